"""Finding the files that a table names, as people write names.

A name is first looked for as it stands, below the table's folder or one of the folders in it. Where that fails, the
names of all files are compared without regard to case, Unicode form (NFC, NFD) and ending, and folders in front that
are not there are left out (`/kaggle/input/x/train/a.jpg`). How that is done is settled once for a table, by some of
its names: what is missing in one folder must not be found in another.
"""

import difflib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from automl.data.layouts.text_table import listing
from automl.data.layouts.tree import LeftOut, Tree, is_number, loosen, stem_of, walk_media
from automl.errors import DataError

_SPREAD_OUT = 0.1  # share of names that are missing in one folder: then they are looked for in all of them
_NEAREST_AMONG = 100_000  # files among which the nearest name is looked for


@dataclass(frozen=True)
class Names:
    """How the names of one column are understood.

    Attributes:
        base: The folder they are relative to.
        hits: How many different ones of those that were tried are files.
        loosely: Whether they may differ from the files' names.
        near: Whether most are the files' own: one that is not is looked for in its folder alone.
        dropped: Folders in front that are not there.
        single: Whether they all lie below `base`; else anywhere, each name once.
        numbers: Whether names are numbers that lost their zeros.
        rivals: Other folders that have files of most of the names too.
    """

    base: Path
    hits: int
    loosely: bool = False
    near: bool = False
    dropped: int = 0
    single: bool = True
    numbers: bool = False
    rivals: tuple[str, ...] = ()


class Finder:
    """The files below a folder, by the names that a table beside or above them has."""

    def __init__(self, table: Path, root: Path | None = None, tree: Tree | None = None) -> None:
        """Prepares to look.

        Args:
            table: The table; names are relative to its folder, or to one in it.
            root: No name leads out of this folder; None: the table's.
            tree: What lies below `root`, if that is known already.
        """
        self._table, self.root = table, root if root is not None else table.parent
        self._absolute = os.path.abspath(self.root)  # noqa: PTH100
        self._real = os.path.realpath(self.root)
        self._tree = tree
        self._listed = lru_cache(64)(self._list)

    @cached_property
    def bases(self) -> list[Path]:
        """Folders the names may be relative to, the likeliest first."""
        found = [self._table.parent]
        for parent in dict.fromkeys((self._table.parent, self.root)):
            if not parent.is_dir():
                continue
            inner = sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
            found += [parent, *sorted(inner, key=lambda path: not self._called(path.name))]
        return list(dict.fromkeys(path for path in found if self._holds(path)))

    def settle(self, names: Sequence[str], loosely: bool = True) -> Names:
        """Finds out how names are to be understood.

        Args:
            names: Some of a column.
            loosely: Whether names may differ from the files'.
        """
        names = list(dict.fromkeys(name for name in names if name))
        hits = {base: sum(self._exact(base, name) is not None for name in names) for base in self.bases}
        # what test.csv names is looked for in test/, though a train/ with the same names may have more of them
        called = [base for base in self.bases if hits[base] and base != self.root and self._called(base.name)]
        best = max(called or self.bases, key=lambda base: hits[base], default=self._table.parent)
        most = hits.get(best, 0)
        others = [_relative(base, self.root) for base in self.bases if base != best and 2 * hits[base] >= max(most, 1)]
        exact = Names(best, most, loosely, near=True, rivals=tuple(others))
        if not loosely or most > (1 - _SPREAD_OUT) * len(names):
            return exact
        if most and (called or 2 * most >= len(names)):
            return self._spread_out(names) or exact
        found = self._settle_loosely(names)
        return found if found.hits > exact.hits else exact

    def locate(self, names: Names, name: str) -> str | None:
        """Finds a file.

        Args:
            names: How names are understood.
            name: One of them.

        Returns:
            Its absolute path, "" if there is no such file, None if the name leads out of the folder.

        Raises:
            DataError: If it may be more than one file.
        """
        path = self._exact(names.base, name)
        if path is None and names.loosely and name:
            found = self._loosely(names, name)
            if len(found) > 1:
                raise DataError(
                    f"{self._table}: {name!r} may be {listing(sorted(found))}; write the names with their folder and "
                    "ending"
                )
            path = os.path.join(self._absolute, found[0]) if found else None  # noqa: PTH118
        if path is None:
            return None if self._leaves(names.base, name) else ""
        return path

    def nearest(self, name: str) -> str:
        """The name of a file that is most like a name, for a message; "" if none is."""
        tree = self._tree if self._tree is not None else self.__dict__.get("_known")
        if tree is None or len(tree) > _NEAREST_AMONG:
            return ""
        last = _parts(name)[-1]
        known = {os.path.basename(file): file for file in tree.below("")}  # noqa: PTH119
        close = difflib.get_close_matches(last, known, n=1, cutoff=0.7)
        return known[close[0]] if close else ""

    # --- as they stand

    def _exact(self, base: Path, name: str) -> str | None:
        """The path of a file by its name as it stands; None if there is none below the root."""
        spellings = (name, name.replace("\\", "/")) if "\\" in name else (name,)
        for spelling in spellings:
            path = os.path.join(base, spelling)  # noqa: PTH118 - ten times as fast as Path, for every row
            try:
                if spelling and stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
                    path = os.path.abspath(path)  # noqa: PTH100
                    return path if self._holds_text(path) else None
            except (OSError, ValueError):  # ValueError: a NUL in the name
                continue
        return None

    def _holds(self, path: Path) -> bool:
        return self._holds_text(os.path.abspath(path))  # noqa: PTH100

    def _holds_text(self, path: str) -> bool:
        """Whether an absolute path lies below the root, links taken as they are named."""
        inside = (self._absolute, self._real)
        return any(path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in inside)

    def _leaves(self, base: Path, name: str) -> bool:
        """Whether a name leads out of the root."""
        spelled = name.replace("\\", "/")
        if spelled[1:2] == ":":
            return True
        return not self._holds_text(os.path.abspath(os.path.join(base, spelled)))  # noqa: PTH100, PTH118

    # --- as people write them

    @cached_property
    def _known(self) -> Tree:
        """All that lies below the root."""
        return self._tree if self._tree is not None else Tree(self.root)

    def copies(self, name: str) -> list[str]:
        """The files, relative to the root, whose last part is that of a name."""
        return self._candidates(_parts(name)[-1:], 0, numbers=False)

    def _called(self, folder: str) -> bool:
        """Whether a folder is called like the table: test/, test_images/ and test.csv or a sample submission."""
        stems = [self._table.stem.lower()]
        if "submission" in stems[0]:
            stems.append("test")
        return any(stem.startswith(folder.lower()) or folder.lower().startswith(stem) for stem in stems if folder)

    def _spread_out(self, names: Sequence[str]) -> Names | None:
        """The names as they are if each is one file, in whatever folder; None if one of them is several."""
        found = [self._candidates(_parts(name), 0, numbers=False) for name in names]
        if any(len(files) > 1 for files in found) or sum(map(len, found)) < (1 - _SPREAD_OUT) * len(names):
            return None
        return Names(self.root, sum(map(len, found)), True, single=False)

    def _settle_loosely(self, names: Sequence[str]) -> Names:
        """How names are understood that are not the files' own."""
        deepest = max((len(_parts(name)) for name in names), default=1)
        ways = [(dropped, False) for dropped in range(deepest)] + [(deepest - 1, True)]
        best, found = (0, False), dict[str, list[str]]()
        for dropped, numbers in ways:
            candidates = {name: self._candidates(_parts(name), dropped, numbers) for name in names}
            candidates = {name: files for name, files in candidates.items() if files}
            if len(candidates) > len(found):
                best, found = (dropped, numbers), candidates
            if 2 * len(found) >= len(names):
                break  # what is missing then is missing, and not to be found in another folder
        dropped, numbers = best
        if all(len(files) == 1 for files in found.values()):
            several = len({_folder_of(file, _parts(name), dropped) for name, (file,) in found.items()}) > 1
            if several:
                return Names(self.root, len(found), True, dropped=dropped, single=False, numbers=numbers)
        base, others = self._likeliest(found, dropped)
        hits = sum(any(_folder_of(f, _parts(name), dropped) == base for f in files) for name, files in found.items())
        return Names(self.root / base, hits, True, dropped=dropped, numbers=numbers, rivals=tuple(others))

    def _likeliest(self, found: dict[str, list[str]], dropped: int) -> tuple[str, list[str]]:
        """The folder, relative to the root, that names are relative to, and others that have as many of them.

        It is one called like the table, the table's own, or that of most names.
        """
        counts = Counter(
            folder
            for name, files in found.items()
            for folder in {_folder_of(file, _parts(name), dropped) for file in files}
        )
        most = max(counts.values(), default=0)
        own = _relative(self._table.parent, self.root)

        def rank(folder: str) -> tuple[bool, bool, bool, int, str]:
            called = any(self._called(part) for part in folder.split("/"))
            return not called, 2 * counts[folder] < most, folder != own, -counts[folder], folder

        best = min(counts, key=rank, default="")
        return best, [folder for folder in counts if folder != best and 2 * counts[folder] >= counts[best]]

    def _loosely(self, names: Names, name: str) -> list[str]:
        """The files that a name may mean, relative to the root."""
        parts = _parts(name)
        if names.near:
            stem, folder = stem_of(parts[-1]), os.path.dirname(os.path.join(names.base, *parts))  # noqa: PTH118, PTH120
            return _narrowed(self._listed(folder).get(stem, []), parts[-1])
        files = self._candidates(parts, names.dropped, names.numbers)
        if not names.single:
            return files
        base = _relative(names.base, self.root)
        return [file for file in files if _folder_of(file, parts, names.dropped) == base]

    def _candidates(self, parts: list[str], dropped: int, numbers: bool) -> list[str]:
        """The files whose path ends as a name does, without its first folders."""
        last = parts[-1]
        stem = stem_of(last)
        if numbers:
            files = self._known.by_number.get(int(stem), []) if is_number(stem) else []
        else:
            files = self._known.by_stem.get(stem) or self._known.by_stem.get(loosen(last), [])
        tail = [loosen(part) for part in parts[min(dropped, len(parts) - 1) : -1]]
        if tail:
            files = [file for file in files if [loosen(part) for part in file.split("/")[:-1]][-len(tail) :] == tail]
        return _narrowed(files, last)

    def _list(self, folder: str) -> dict[str, list[str]]:
        """The media files in one folder, relative to the root, by their loosened names; none if it is not there."""
        found: dict[str, list[str]] = {}
        if self._holds_text(os.path.abspath(folder)) and os.path.isdir(folder):  # noqa: PTH100, PTH112
            for _, name in walk_media(Path(folder), LeftOut(), deep=False):
                file = os.path.relpath(os.path.join(folder, name), self.root)  # noqa: PTH118
                found.setdefault(stem_of(name), []).append(file)
        return found


def _narrowed(files: list[str], last: str) -> list[str]:
    """Of several files, those whose ending is a name's, and of these, those whose case is."""
    for same in (loosen, lambda text: text):
        alike = [file for file in files if len(files) > 1 and same(file.rpartition("/")[2]) == same(last)]
        files = alike or files
    return files


def leads_out(file: Path, root: Path, names: Sequence[str]) -> DataError:
    """The error for names of a table that lead out of the folder they are relative to."""
    return DataError(
        f"{file}: {len(names)} names lead out of {root}: {listing(names)}; give the folder that holds both the table "
        "and the files, or write names relative to that folder"
    )


def describe_difference(finder: Finder, pairs: Iterator[tuple[str, str]]) -> str:
    """How names differ from the files that they mean, by the first that does; "" if none does."""
    for name, path in pairs:
        if not path.endswith(name.replace("\\", "/").lstrip("./")):
            return f"{name!r} is {os.path.relpath(path, finder.root)!r}"
    return ""


def _relative(path: Path, root: Path) -> str:
    """A folder relative to another, "" for itself."""
    found = os.path.relpath(path, root)
    return "" if found == "." else found


def loosen_name(name: str) -> str:
    """The last part of a name as `Finder` compares it: without ending, in any case and Unicode form."""
    return stem_of(_parts(name)[-1])


def _parts(name: str) -> list[str]:
    """The parts of a name; a drive and empty parts are none."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return (parts[1:] if len(parts) > 1 and parts[0].endswith(":") else parts) or [""]


def _folder_of(file: str, parts: list[str], dropped: int) -> str:
    """The folder that a name is relative to if it means this file."""
    kept = len(parts) - min(dropped, len(parts) - 1)
    return "/".join(file.split("/")[:-kept])
