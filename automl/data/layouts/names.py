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

from automl.data.layouts.text_table import list_names
from automl.data.layouts.tree import LeftOut, NameIndex, Tree, spell_name, walk_media
from automl.errors import DataError

_SPREAD_OUT = 0.1  # share of names that are missing in one folder: then they are looked for in all of them
_NEAREST_AMONG = 100_000  # files among which the nearest name is looked for
_SHOWN = 5


@dataclass(frozen=True)
class Names:
    """How the names of one column are understood."""

    base: Path  # the folder they are relative to
    hits: int  # how many different ones of those that were tried are files
    loosely: bool = False  # they may differ from the files' names
    near: bool = False  # most are the files' own: one that is not is looked for in its folder alone
    dropped: int = 0  # folders in front that are not there
    single: bool = True  # they all lie below `base`; else anywhere, each name once
    numbers: bool = False  # they are numbers that lost their zeros
    rivals: tuple[str, ...] = ()  # other folders that have files of most of the names too


class Finder:
    """The files below a folder, by the names that a table beside or above them has."""

    def __init__(self, table: Path, root: Path | None = None, tree: Tree | None = None) -> None:
        """Prepares to look for the names of a table, none of which leads out of `root` (None: the table's folder)."""
        self._table, self.root = table, root if root is not None else table.parent
        self._absolute = os.path.abspath(self.root)  # noqa: PTH100
        self._real = os.path.realpath(self.root)
        self._known = tree
        self._index_folder = lru_cache(64)(self._list_folder)

    @cached_property
    def bases(self) -> list[Path]:
        """Folders the names may be relative to, the likeliest first."""
        folders = [self._table.parent]
        for parent in dict.fromkeys((self._table.parent, self.root)):
            if not parent.is_dir():
                continue
            inner = sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
            folders += [parent, *sorted(inner, key=lambda path: not self._is_called_like_table(path.name))]
        return list(dict.fromkeys(path for path in folders if self._is_inside(os.path.abspath(path))))  # noqa: PTH100

    def settle_names(self, names: Sequence[str], loosely: bool = True) -> Names:
        """Finds out how some names of a column are to be understood; `loosely`: they may differ from the files'."""
        names = list(dict.fromkeys(name for name in names if name))
        hits = {base: sum(self._find_exactly(base, name) is not None for name in names) for base in self.bases}
        # what test.csv names is looked for in test/, though a train/ with the same names may have more of them
        inner = [base for base in self.bases if hits[base] and base != self.root]
        called = [base for base in inner if self._is_called_like_table(base.name)]
        best = max(called or self.bases, key=lambda base: hits[base], default=self._table.parent)
        most = hits.get(best, 0)
        others = [base for base in self.bases if base != best and 2 * hits[base] >= max(most, 1)]
        rivals = tuple(_relative_to(base, self.root) for base in others)
        exact = Names(best, most, loosely, near=True, rivals=rivals)
        if not loosely or most > (1 - _SPREAD_OUT) * len(names):
            return exact
        if most and (called or 2 * most >= len(names)):
            # as they are, in whatever folder, if each is one file
            matches = [self._tree.index.find(name) for name in names]
            anywhere = sum(map(len, matches))
            if any(len(files) > 1 for files in matches) or anywhere < (1 - _SPREAD_OUT) * len(names):
                return exact
            return Names(self.root, anywhere, True, single=False)
        loose = self._settle_loosely(names)
        return loose if loose.hits > exact.hits else exact

    def locate_file(self, names: Names, name: str) -> str | None:
        """Finds a file by its name: its absolute path, "" if there is none, None if the name leads out of the root.

        Raises:
            DataError: If it may be more than one file.
        """
        path = self._find_exactly(names.base, name)
        if path is None and names.loosely and name:
            files = self._find_loosely(names, name)
            if len(files) > 1:
                raise DataError(
                    f"{self._table}: {name!r} may be {list_names(sorted(files))}; write the names with their folder "
                    "and ending"
                )
            path = os.path.join(self._absolute, files[0]) if files else None  # noqa: PTH118
        if path is not None:
            return path
        spelled = name.replace("\\", "/")
        inside = self._is_inside(os.path.abspath(os.path.join(names.base, spelled)))  # noqa: PTH100, PTH118
        return "" if inside and spelled[1:2] != ":" else None

    def nearest_name(self, name: str) -> str:
        """Returns the name of a file that is most like a name, for a message; "" if none is."""
        tree = self._known
        if tree is None or len(tree) > _NEAREST_AMONG:
            return ""
        files = {os.path.basename(file): file for file in tree.files_below("")}  # noqa: PTH119
        close = difflib.get_close_matches(name.replace("\\", "/").rpartition("/")[2], files, n=1, cutoff=0.7)
        return files[close[0]] if close else ""

    def list_copies(self, name: str) -> list[str]:
        """Lists the files, relative to the root, whose last part is that of a name."""
        return self._tree.index.find(name, dropped=len(name))

    # --- as they stand

    def _find_exactly(self, base: Path, name: str) -> str | None:
        """Returns the path of a file by its name as it stands; None if there is none below the root."""
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            path = os.path.join(base, spelling)  # noqa: PTH118 - ten times as fast as Path, for every row
            try:
                if spelling and stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
                    path = os.path.abspath(path)  # noqa: PTH100
                    return path if self._is_inside(path) else None
            except (OSError, ValueError):  # ValueError: a NUL in the name
                continue
        return None

    def _is_inside(self, path: str) -> bool:
        """Returns whether an absolute path lies below the root, links taken as they are named."""
        inside = (self._absolute, self._real)
        return any(path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in inside)

    # --- as people write them

    @property
    def _tree(self) -> Tree:
        """All that lies below the root."""
        if self._known is None:
            self._known = Tree(self.root)
        return self._known

    def _is_called_like_table(self, folder: str) -> bool:
        """Returns whether a folder is called like the table: test/ and test_images/ for test.csv or a submission."""
        stems = [self._table.stem.lower()]
        if "submission" in stems[0]:
            stems.append("test")
        return any(stem.startswith(folder.lower()) or folder.lower().startswith(stem) for stem in stems if folder)

    def _settle_loosely(self, names: Sequence[str]) -> Names:
        """Finds out how names are understood that are not the files' own."""
        deepest = max((len(spell_name(name)) for name in names), default=1)
        dropped, numbers, matches = 0, False, dict[str, list[str]]()
        for fewer, as_numbers in [*((depth, False) for depth in range(deepest)), (deepest - 1, True)]:
            candidates = {name: self._tree.index.find(name, fewer, as_numbers) for name in names}
            candidates = {name: files for name, files in candidates.items() if files}
            if len(candidates) > len(matches):
                dropped, numbers, matches = fewer, as_numbers, candidates
            if 2 * len(matches) >= len(names):
                break  # what is missing then is missing, and not to be found in another folder
        if all(len(files) == 1 for files in matches.values()):
            folders = {_folder_of(file, name, dropped) for name, (file,) in matches.items()}
            if len(folders) > 1:
                return Names(self.root, len(matches), True, dropped=dropped, single=False, numbers=numbers)
        base, hits, others = self._likeliest_folder(matches, dropped)
        return Names(self.root / base, hits, True, dropped=dropped, numbers=numbers, rivals=tuple(others))

    def _likeliest_folder(self, matches: dict[str, list[str]], dropped: int) -> tuple[str, int, list[str]]:
        """Chooses the folder that names are relative to: one called like the table, its own, or that of most names.

        With it, relative to the root, come how many names are in it, and others that have as many of them.
        """
        counts = Counter(
            folder for name, files in matches.items() for folder in {_folder_of(file, name, dropped) for file in files}
        )
        most = max(counts.values(), default=0)
        own = _relative_to(self._table.parent, self.root)

        def rank_folder(folder: str) -> tuple[bool, bool, bool, int, str]:
            called = any(map(self._is_called_like_table, folder.split("/")))
            return not called, 2 * counts[folder] < most, folder != own, -counts[folder], folder

        best = min(counts, key=rank_folder, default="")
        return best, counts[best], [name for name in counts if name != best and 2 * counts[name] >= counts[best]]

    def _find_loosely(self, names: Names, name: str) -> list[str]:
        """Lists the files that a name may mean, relative to the root."""
        if names.near:
            folder = os.path.dirname(os.path.join(names.base, name.replace("\\", "/")))  # noqa: PTH118, PTH120
            return self._index_folder(folder).find(name, dropped=len(name))
        files = self._tree.index.find(name, names.dropped, names.numbers)
        if not names.single:
            return files
        base = _relative_to(names.base, self.root)
        return [file for file in files if _folder_of(file, name, names.dropped) == base]

    def _list_folder(self, folder: str) -> NameIndex:
        """Indexes the media files in one folder, relative to the root; none if it is not there."""
        files = []
        if self._is_inside(os.path.abspath(folder)) and os.path.isdir(folder):  # noqa: PTH100, PTH112
            entries = walk_media(Path(folder), LeftOut(), deep=False)
            files = [os.path.relpath(os.path.join(folder, name), self.root) for _, name in entries]  # noqa: PTH118
        return NameIndex(files)


def outside_error(file: Path, root: Path, names: Sequence[str]) -> DataError:
    """Makes the error for names of a table that lead out of the folder they are relative to."""
    return DataError(
        f"{file}: {len(names)} names lead out of {root}: {list_names(names)}; give the folder that holds both the "
        "table and the files, or write names relative to that folder"
    )


def describe_difference(finder: Finder, pairs: Iterator[tuple[str, str]]) -> str:
    """Says how names differ from the files that they mean, by the first that does; "" if none does."""
    for name, path in pairs:
        if not path.endswith(name.replace("\\", "/").lstrip("./")):
            return f"{name!r} is {os.path.relpath(path, finder.root)!r}"
    return ""


def describe_rivals(file: Path, finder: Finder, names: Names) -> list[str]:
    """Says in one line that a table's names are those of files in other folders as well; else nothing."""
    if not names.rivals:
        return []
    taken = os.path.relpath(names.base, finder.root)
    others = ", ".join(f"{folder or '.'}/" for folder in names.rivals[:_SHOWN])
    return [f"{file.name}: its names are files of {taken}/ and of {others}; those of {taken}/ are taken"]


def _relative_to(path: Path, root: Path) -> str:
    """Returns a folder relative to another, "" for itself."""
    relative = os.path.relpath(path, root)
    return "" if relative == "." else relative


def _folder_of(file: str, name: str, dropped: int) -> str:
    """Returns the folder that a name is relative to if it means this file."""
    parts = len(spell_name(name))
    return "/".join(file.split("/")[: -(parts - min(dropped, parts - 1))])
