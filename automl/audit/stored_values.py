"""Properties of files that were read before, in the cache: `automl search` need not read what `automl data` has."""

import os
from pathlib import Path

from automl.audit.properties import Values
from automl.files import CacheEntry

_VERSION = 1  # raise it when the same file gives other values


class StoredValues:
    """The properties of the files of one data set, each as of the file's size and modification time."""

    def __init__(self, root: Path) -> None:
        self._entry = CacheEntry("audit", {"version": _VERSION, "root": str(root)})
        self._files: dict[str, tuple[str, Values]] = self._entry.load_json(lambda content: content["files"]) or {}
        self._changed = False

    def find_values(self, path: str) -> Values | None:
        """Returns the properties of a file; None if they are not known, or of the file as it was."""
        signature, values = self._files.get(path, ("", None))
        return values if values is not None and signature == _sign_file(path) else None

    def add_values(self, path: str, values: Values) -> None:
        """Takes the properties of a file."""
        self._files[path] = (_sign_file(path), values)
        self._changed = True

    def save(self) -> None:
        """Writes what was added; a cache that cannot be written is no error."""
        if self._changed:
            self._entry.save_json({"key": self._entry.key, "files": self._files})


def _sign_file(path: str) -> str:
    """Returns what changes with a file's content, "" if it is gone."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - twice as fast as Path.stat
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"
