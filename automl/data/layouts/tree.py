"""The images, videos and sounds below a folder, found in one walk, and a count of all that is left out.

The same rule for training and for predictions: hidden files and folders are no part of the data; links are followed,
wherever they lead, but never round in a circle; what is no image, video or sound is counted by its ending.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from automl.data.layouts.text_table import TABLES, listing, printable
from automl.errors import DataError
from automl.media.kinds import ENDINGS, Medium, is_media, medium_at, medium_within

_MOST_ENDINGS = 1000  # counted one by one; a folder of hashes has as many endings as files
_MOST_TABLES = 20  # of one folder and ending: more are one note for each file, not labels
_LOOKED_AT = 50  # tables in all, the least deep first
_LABELS = re.compile(r"label|train|val|test|meta|annot|protocol|split|list", re.IGNORECASE)
_DIGITS = 100


@dataclass
class LeftOut:
    """What a walk met and did not take."""

    endings: Counter[str] = field(default_factory=Counter)
    """Files that are no media of the wanted kinds, by their endings in lower case."""
    dangling: list[str] = field(default_factory=list)
    """Links that lead nowhere."""
    circles: list[str] = field(default_factory=list)
    """Links to a folder that they lie in."""
    strange: list[str] = field(default_factory=list)
    """What is neither a file nor a folder: pipes, sockets, devices."""
    closed: list[str] = field(default_factory=list)
    """Folders that cannot be opened."""
    outside: int = 0
    """Links that lead out of the folder; they are followed."""
    tables: list[str] = field(default_factory=list)
    """Text tables, which may be label files; they are counted among the endings, too."""

    def count(self, name: str) -> None:
        """Counts a file that is not read."""
        ending = os.path.splitext(name)[1].lower() or "no ending"  # noqa: PTH122 - for every file
        if not printable(ending) or (ending not in self.endings and len(self.endings) >= _MOST_ENDINGS):
            ending = "other endings"
        self.endings[ending] += 1

    def warnings(self) -> list[str]:
        """What a user should know of, one line each."""
        lines = []
        if self.closed:
            lines.append(f"{len(self.closed)} folders cannot be opened and are left out: {listing(self.closed)}")
        if self.dangling:
            lines.append(f"{len(self.dangling)} links lead nowhere and are left out: {listing(self.dangling)}")
        if self.strange:
            lines.append(f"{len(self.strange)} are no files and are left out: {listing(self.strange)}")
        if self.circles:
            lines.append(f"{len(self.circles)} links lead back to a folder around them: {listing(self.circles)}")
        return lines

    def notes(self, read: Collection[str] = ()) -> list[str]:
        """What else was left out, one line each; `read` are tables that were read after all."""
        lines = []
        counts = Counter(self.endings)
        counts.subtract(os.path.splitext(name)[1].lower() for name in read)  # noqa: PTH122
        counts = +counts
        if counts:
            shown = ", ".join(f"{ending} {count}" for ending, count in sorted(counts.items())[:20])
            more = f" and {len(counts) - 20} more endings" if len(counts) > 20 else ""
            lines.append(f"{_files(counts.total())} of kinds that are not read: {shown}{more}")
        if self.outside:
            lines.append(f"{self.outside} links lead out of the folder and are followed")
        return lines


def walk_media(
    root: Path,
    left: LeftOut,
    media: Collection[Medium] = tuple(ENDINGS),
    *,
    strict: bool = False,
    deep: bool = True,
) -> Iterator[tuple[str, str]]:
    """Walks through a folder, holding none of its names.

    Args:
        root: The folder.
        left: Is told what is left out.
        media: The kinds of files that are wanted.
        strict: Raise for a folder that cannot be opened, instead of leaving it out.
        deep: Whether the folders in it are walked through, too.

    Yields:
        (folder relative to the root, "" for itself; name) of each file, in no order.

    Raises:
        DataError: If the root, or with `strict` a folder in it, cannot be opened.
    """
    base = os.path.realpath(root)
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        folder, around = pending.pop()
        try:
            stat = os.stat(root / folder)  # noqa: PTH116
            entries = os.scandir(root / folder)
        except OSError as exc:
            if strict or not folder:
                raise DataError(f"cannot read {root / folder}: {exc.strerror or exc}") from exc
            left.closed.append(folder)
            continue
        within = (*around, (stat.st_dev, stat.st_ino))
        with entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink() and not _follow(entry, name, within, base, left):
                    continue
                if entry.is_dir():
                    pending += [(name, within)] if deep else []
                elif entry.is_file():  # a pipe or a device would never end
                    kind = medium_at(entry.path)
                    if kind in media or (kind and medium_within(entry.path) in media):  # whatever it is called
                        yield folder, entry.name
                    else:
                        left.count(entry.name)
                        if entry.name.lower().endswith(TABLES):
                            left.tables.append(name)
                else:
                    left.strange.append(name)


def _follow(
    entry: "os.DirEntry[str]", name: str, within: tuple[tuple[int, int], ...], base: str, left: LeftOut
) -> bool:
    """Whether a link is followed; counts it where it is not, or leads out."""
    try:
        stat = entry.stat()
    except OSError:
        left.dangling.append(name)
        return False
    if (stat.st_dev, stat.st_ino) in within:
        left.circles.append(name)
        return False
    if not os.path.realpath(entry.path).startswith(base + os.sep):
        left.outside += 1
    return True


class Tree:
    """All media files below a folder, by folder."""

    def __init__(self, root: Path) -> None:
        """Walks through the folder `root`; DataError if it cannot be opened."""
        self.root, self.left = root, LeftOut()
        self._files: dict[str, list[str]] = {}
        for folder, name in walk_media(root, self.left):
            self._files.setdefault(folder, []).append(name)
        for names in self._files.values():
            names.sort()
        self._inner: dict[str, set[str]] = {}
        for folder in self._files:
            while folder:
                parent, _, name = folder.rpartition("/")
                self._inner.setdefault(parent, set()).add(name)
                folder = parent

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))

    def directly(self, folder: str) -> list[str]:
        """The names of the media files in a folder itself, sorted."""
        return self._files.get(folder, [])

    def folders(self, folder: str) -> list[str]:
        """The folders in a folder that hold media files at any depth, relative to the root, sorted."""
        return [f"{folder}/{name}" if folder else name for name in sorted(self._inner.get(folder, ()))]

    def below(self, folder: str) -> Iterator[str]:
        """Yields the media files below a folder, relative to the root, sorted within their folders."""
        for name in self.directly(folder):
            yield f"{folder}/{name}" if folder else name
        for inner in self.folders(folder):
            yield from self.below(inner)

    @cached_property
    def tables(self) -> list[str]:
        """Text tables that may be label files, the least deep first, relative to the root."""
        kinds: dict[tuple[str, str], list[str]] = {}
        for name in self.left.tables:
            folder, _, last = name.rpartition("/")
            kinds.setdefault((folder, last.rpartition(".")[2].lower()), []).append(name)
        some = [
            name
            for names in kinds.values()
            for name in names
            if len(names) <= _MOST_TABLES or _LABELS.search(name.rpartition("/")[2])
        ]
        return sorted(some, key=lambda name: (name.count("/"), name))[:_LOOKED_AT]

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """The files, relative to the root, by their last part as `stem_of` spells it."""
        index: dict[str, list[str]] = {}
        for file in self.below(""):
            index.setdefault(stem_of(file.rpartition("/")[2]), []).append(file)
        return index

    @cached_property
    def by_number(self) -> dict[int, list[str]]:
        """The files whose names are numbers, by these."""
        found: dict[int, list[str]] = {}
        for stem, files in self.by_stem.items():
            if is_number(stem):
                found.setdefault(int(stem), []).extend(files)
        return found


def loosen(text: str) -> str:
    """A spelling that is the same for names that people take for the same: in any case and Unicode form."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def stem_of(last: str) -> str:
    """The last part of a name without the ending of a media file, loosely spelled."""
    return loosen(os.path.splitext(last)[0] if is_media(last) else last)  # noqa: PTH122


def is_number(text: str) -> bool:
    """Whether a text is a whole number of a size that files are called by."""
    return text.isascii() and text.isdigit() and len(text) < _DIGITS


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"
