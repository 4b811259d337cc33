"""Reads and writes files so that nothing is lost and nothing in them is trusted."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from automl.errors import AutomlError, DataError, SpecError, WeightsError, is_disk_full

Value = TypeVar("Value")

_PIECE_BYTES = 2**18
"""Of a file of more than three such pieces its beginning, its middle and its end are read."""


def check_weights_dir(weights_dir: Path | None) -> None:
    """Raises WeightsError if a folder of weights is given and is none."""
    if weights_dir is not None and not weights_dir.is_dir():
        raise WeightsError(f"--weights-dir {weights_dir} is not a folder; give one that holds safetensors files")


def cache_dir() -> Path:
    """Returns the folder for what can be made again: decoded images, the demo, timings, memory predictions.

    `AUTOML_CACHE` overrides it; else it is `automl` under `XDG_CACHE_HOME` or `~/.cache`.
    """
    if override := os.environ.get("AUTOML_CACHE"):
        return Path(override).expanduser()
    # An empty XDG_CACHE_HOME counts as unset (XDG Base Directory Specification).
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "automl"


def shipped(folder: str, name: str) -> Path:
    """Finds a file that comes with automl, in a wheel or in a checkout; it may not exist.

    Args:
        folder: `search_spaces` or `studies`.
        name: The file's name, with its ending.
    """
    package = Path(__file__).parent
    inside = package / folder / name  # a wheel
    return inside if inside.exists() else package.parent / folder / name  # a checkout


def is_there(path: Path) -> bool:
    """Returns whether there is a file or folder.

    Raises:
        DataError: If that cannot be known: it lies in a folder that is closed to us.
    """
    try:
        return path.exists()
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror or exc}") from exc


class _StrictLoader(yaml.SafeLoader):
    """Reads YAML as `yaml.safe_load` does, but refuses a name that stands twice in a mapping: one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and name.tag != "tag:yaml.org,2002:merge":
                if name.value in seen:
                    problem = f"{name.value} stands there twice, first in line {seen[name.value]}"
                    raise yaml.constructor.ConstructorError(None, None, problem, name.start_mark)
                seen[name.value] = name.start_mark.line + 1
        return super().construct_mapping(node, deep)


def load_yaml(path: Path, error: type[AutomlError] = SpecError) -> Any:
    """Reads a YAML file as `yaml.safe_load` does; a name that stands twice in a mapping is refused.

    Raises:
        AutomlError: Of type `error`, with the file, line and column where the YAML is broken.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(exc, "problem", None) or getattr(exc, "reason", None) or "not YAML"
        raise error(f"{path}{where}: {problem}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise error(f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    except (ValueError, AttributeError) as exc:  # PyYAML's own, for `2024-99-99` and other values it half recognises
        raise error(f"{path}: a value cannot be read: {exc}; put it in quotes if it is text") from exc
    except RecursionError as exc:
        raise error(f"{path}: nested too deeply to be read") from exc


def find_line(path: Path, keys: Sequence[str]) -> int | None:
    """Finds the line of a value in a YAML file that can be read, or of the nearest that holds it; None if none does.

    Args:
        path: The file.
        keys: The names that lead to the value; in a list, its number.
    """
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    line = None
    for key in keys:
        entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if isinstance(node, yaml.MappingNode):
            entries = {str(name.value): (name, value) for name, value in node.value}
        elif isinstance(node, yaml.SequenceNode):
            entries = {str(number): (value, value) for number, value in enumerate(node.value)}
        if key not in entries:
            break
        name, node = entries[key]
        line = name.start_mark.line + 1
    return line


def digest_pieces(path: str | Path, size: int) -> str:
    """Computes a digest of a file's bytes, of a large file of three pieces of it; "" of one that cannot be read.

    `size` is that of the file in bytes.
    """
    digest = hashlib.blake2b(digest_size=8)
    starts = (0, size // 2, size - _PIECE_BYTES) if size > 3 * _PIECE_BYTES else range(0, size, _PIECE_BYTES)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - of a path that may be no valid text
            for start in starts:
                file.seek(start)
                digest.update(file.read(_PIECE_BYTES))
    except OSError:
        return ""
    return digest.hexdigest()


def read_header(path: Path) -> dict[str, str]:
    """Reads the `# key: value` lines on top of a shipped table.

    Raises:
        OSError: If the file cannot be read.
        UnicodeDecodeError: If it is not UTF-8.
    """
    header: dict[str, str] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("#"):
                break
            key, _, value = line.lstrip("# ").partition(":")
            header[key.strip()] = value.strip()
    return header


@contextmanager
def write_atomically(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` when the block ends well: a reader never sees half a file.

    `mode` are the permissions that the file has at most, within the process's umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode & ~_read_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_umask() -> int:
    """Returns the process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Writes a text file atomically, as UTF-8; `mode` as in `write_atomically`."""
    with write_atomically(path, mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def explain_write_errors(path: Path, error: type[AutomlError] = SpecError, flag: str = "--out") -> Iterator[None]:
    """Turns the system's errors of writing a file into one line for the user.

    Raises:
        AutomlError: Of type `error`, if the file cannot be written.
    """
    try:
        yield
    except OSError as exc:
        room = "the disk is full; " if is_disk_full(exc) else ""
        raise error(f"cannot write {path}: {exc.strerror or exc}; {room}choose another {flag}") from exc


def is_page_name(path: Path) -> bool:
    """Returns whether a file is called as an HTML page is: under any other name there may be a file that is needed."""
    return path.suffix.lower() in (".html", ".htm")


@dataclass(frozen=True)
class CacheEntry:
    """A JSON file of the cache, named by the SHA-256 of what its content depends on.

    Attributes:
        folder: The folder's name in the cache.
        key: What the content depends on; anything that JSON can write.
        prefix: What the file's name begins with.
        digits: How many of the digest are in the file's name.
    """

    folder: str
    key: Any
    prefix: str = ""
    digits: int = 32

    @property
    def path(self) -> Path:
        """The file."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return cache_dir() / self.folder / f"{self.prefix}{digest[: self.digits]}.json"

    def load_json(self, parse: Callable[[Any], Value]) -> Value | None:
        """Returns what `parse` makes of the content; None if there is no file, or it is damaged or of another key."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return parse(content) if content.get("key", self.key) == self.key else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def save_json(self, content: Mapping[str, Any]) -> None:
        """Writes the content; a cache that cannot be written is no error."""
        with suppress(OSError):
            write_text(self.path, json.dumps(content))
