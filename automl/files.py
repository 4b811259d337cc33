"""Reading and writing files so that nothing is lost and nothing in them is trusted."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from automl.errors import AutomlError, DataError, SpecError


def cache_dir() -> Path:
    """The folder for what can be made again: decoded images, the demo, timings, memory predictions.

    `AUTOML_CACHE` overrides it; else it is `automl` under `XDG_CACHE_HOME` or `~/.cache`.
    """
    if override := os.environ.get("AUTOML_CACHE"):
        return Path(override).expanduser()
    # An empty XDG_CACHE_HOME counts as unset (XDG Base Directory Specification).
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "automl"


def shipped(folder: str, name: str) -> Path:
    """Finds a file that comes with automl, in a wheel or in a checkout.

    Args:
        folder: `search_spaces` or `studies`.
        name: The file's name, with its ending.

    Returns:
        Its path, which may not exist.
    """
    package = Path(__file__).parent
    inside = package / folder / name  # a wheel
    return inside if inside.exists() else package.parent / folder / name  # a checkout


def is_there(path: Path) -> bool:
    """Whether there is a file or folder.

    Raises:
        DataError: If that cannot be told: it lies in a folder that is closed to us.
    """
    try:
        return path.exists()
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror or exc}") from exc


def load_yaml(path: Path, error: type[AutomlError] = SpecError) -> Any:
    """Reads a YAML file with `yaml.safe_load`.

    Args:
        path: The file.
        error: What to raise when it cannot be read.

    Returns:
        What the file holds.

    Raises:
        AutomlError: Of type `error`, with the file, line and column where the YAML is broken.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(exc, "problem", None) or getattr(exc, "reason", None) or "not YAML"
        raise error(f"{path}{where}: {problem}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise error(f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    except (ValueError, AttributeError) as exc:  # PyYAML's own, for `2024-99-99` and other values it half recognises
        raise error(f"{path}: a value cannot be read: {exc}; put it in quotes if it is text") from exc
    except RecursionError as exc:
        raise error(f"{path}: nested too deeply to be read") from exc


def read_header(path: Path) -> dict[str, str]:
    """Reads the `# key: value` lines on top of a shipped table.

    Raises:
        OSError: If the file cannot be read.
        UnicodeDecodeError: If it is not UTF-8.
    """
    found: dict[str, str] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("#"):
                break
            key, _, value = line.lstrip("# ").partition(":")
            found[key.strip()] = value.strip()
    return found


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it when the block ends well.

    A reader, or a process killed at any moment, sees the old file or the new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 is for secrets
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, as UTF-8."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that there is no room left on the disk, or for this user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(path: Path, error: type[AutomlError] = SpecError, flag: str = "--out") -> Iterator[None]:
    """Turns the system's errors of writing a file into one line for the user.

    Raises:
        AutomlError: Of type `error`, if the file cannot be written.
    """
    try:
        yield
    except OSError as exc:
        room = "the disk is full; " if is_disk_full(exc) else ""
        raise error(f"cannot write {path}: {exc.strerror or exc}; {room}choose another {flag}") from exc


def cached_json(folder: Path, key: Any, compute: Callable[[], Any]) -> Any:
    """Returns what was computed for a key, from a JSON file where there is one; a damaged file is made again.

    Args:
        folder: Holds one file a key, named by its SHA-256.
        key: Anything that JSON can write; equal keys give the same file.
        compute: Makes the value, which JSON can write, where the file is missing. A cache that cannot be written is
            no error.
    """
    text = json.dumps(key, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = compute()
    with suppress(OSError):
        write_text(path, json.dumps(value))
    return value
