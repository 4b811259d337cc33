"""SQLite as a study's storage: with a write-ahead log, where the file system allows one.

A trial makes a hundred small transactions. In SQLite's usual mode each waits several times for the disk; with a log
(https://www.sqlite.org/wal.html) and `synchronous=NORMAL` none does. A process that is killed loses nothing; a computer
that loses its power may lose the last moments, never the file.

While a study is open, what was written last lies in `study.db-wal` beside `study.db`: whoever copies one copies both.
"""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

_LOCAL = {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
"""File systems that one machine alone writes: those who use a log share memory, which several machines cannot."""

_MOUNTS = Path("/proc/self/mounts")


class StudyConnection(sqlite3.Connection):
    """A connection to a study's file; `factory=StudyConnection` of `sqlite3.connect`."""

    def __init__(self, database: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("uri"):  # its owner has said how it is opened
            super().__init__(database, *args, **kwargs)
        elif _rests_out_of_reach(Path(database)):
            # To read it, SQLite would begin a log; nobody else has one.
            super().__init__(f"file:{quote(str(database))}?immutable=1", *args, **kwargs | {"uri": True})
        else:
            super().__init__(database, *args, **kwargs)
            self._keep_log(is_local(Path(database)))

    def _keep_log(self, wanted: bool) -> None:
        mode = "WAL" if wanted else "DELETE"
        # It stays as it is where it cannot be written, and while others have it open in the other mode.
        with suppress(sqlite3.OperationalError):
            if self.execute(f"PRAGMA journal_mode={mode}").fetchone() == ("wal",):
                self.execute("PRAGMA synchronous=NORMAL")


def _rests_out_of_reach(path: Path) -> bool:
    """Returns whether a file is kept with a log, has none now, and lies where none can be made."""
    if os.access(path.parent, os.W_OK) or Path(f"{path}-wal").exists():
        return False
    try:
        with path.open("rb") as file:
            return file.read(20)[18:19] == b"\x02"  # https://www.sqlite.org/fileformat.html: 1 legacy, 2 log
    except OSError:
        return False


def is_local(path: Path) -> bool:
    """Returns whether a file lies on a file system of this machine alone; False where that is not known."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    fields = [line.split() for line in lines if line.count(" ") > 2]
    kinds = {Path(mount.replace(r"\040", " ")): kind for _, mount, kind, *_ in fields}  # the last one at a path counts
    return next((kinds[folder] in _LOCAL for folder in path.absolute().resolve().parents if folder in kinds), False)
