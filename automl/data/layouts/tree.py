"""The images, videos and sounds below a folder, found in one walk, and a count of all that is left out.

The same rule for training and for predictions: hidden files and folders are no part of the data; links are followed,
wherever they lead, but never round in a circle; what is no image, video or sound is counted by its ending.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path

from automl.data.layouts.text_table import TABLES, is_printable, list_names
from automl.errors import DataError
from automl.media.kinds import ENDINGS, Medium, find_medium_at, find_medium_within, is_media

_MOST_ENDINGS = 1000  # counted one by one; a folder of hashes has as many endings as files
_SHOWN_ENDINGS = 20
_MOST_TABLES = 20  # of one folder and ending: more are one note for each file, not labels
_LOOKED_AT = 50  # tables in all, the least deep first
_LABELS = re.compile(r"label|train|val|test|meta|annot|protocol|split|list", re.IGNORECASE)
_DIGITS = 100
_CLOSED = "folders that cannot be opened"
_DANGLING = "links that lead nowhere"
_STRANGE = "pipes, sockets or devices"
_CIRCLE = "links to a folder around them"


@dataclass
class LeftOut:
    """What a walk met and did not take."""

    endings: Counter[str] = field(default_factory=Counter)  # in lower case, of files that are no wanted media
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # what else, by the reason
    outside: int = 0  # links that lead out of the folder; they are followed
    tables: list[str] = field(default_factory=list)  # text tables; they are counted among the endings, too

    def count_ending(self, name: str) -> None:
        """Counts a file that is not read."""
        ending = os.path.splitext(name)[1].lower() or "no ending"  # noqa: PTH122 - for every file
        if not is_printable(ending) or (ending not in self.endings and len(self.endings) >= _MOST_ENDINGS):
            ending = "other endings"
        self.endings[ending] += 1

    def list_warnings(self) -> list[str]:
        """Lists what a user should know of, one line each."""
        reasons = (what for what in (_CLOSED, _DANGLING, _STRANGE, _CIRCLE) if what in self.names)
        return [f"left out, {what} ({len(self.names[what])}): {list_names(self.names[what])}" for what in reasons]

    def list_remarks(self, read: Iterable[str] = ()) -> list[str]:
        """Lists what else was left out, one line each; `read` are tables that were read after all."""
        lines = []
        counts = Counter(self.endings)
        counts.subtract(os.path.splitext(name)[1].lower() for name in read)  # noqa: PTH122
        if counts := +counts:
            shown = ", ".join(f"{ending} {count}" for ending, count in sorted(counts.items())[:_SHOWN_ENDINGS])
            more = f" and {len(counts) - _SHOWN_ENDINGS} more endings" if len(counts) > _SHOWN_ENDINGS else ""
            files = "file" if counts.total() == 1 else "files"
            lines.append(f"{counts.total()} {files} of kinds that are not read: {shown}{more}")
        if self.outside:
            lines.append(f"links that lead out of the folder, which are followed: {self.outside}")
        return lines


def walk_media(
    root: Path,
    left: LeftOut,
    media: Collection[Medium] = tuple(ENDINGS),
    *,
    strict: bool = False,
    deep: bool = True,
) -> Iterator[tuple[str, str]]:
    """Yields (folder relative to the root, "" for itself; name) of each file below a folder, in no order.

    Args:
        root: The folder.
        left: Takes what is left out.
        media: The kinds of files that are wanted.
        strict: Raise for a folder that cannot be opened, instead of leaving it out.
        deep: Whether the folders in it are walked through, too.

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
            left.names[_CLOSED].append(folder)
            continue
        within = (*around, (stat.st_dev, stat.st_ino))
        with entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink() and not _can_follow(entry, name, within, base, left):
                    continue
                if entry.is_dir():
                    pending += [(name, within)] if deep else []
                elif entry.is_file():  # a pipe or a device would never end
                    kind = find_medium_at(entry.path)
                    if kind in media or (kind and find_medium_within(entry.path) in media):  # whatever it is called
                        yield folder, entry.name
                    else:
                        left.count_ending(entry.name)
                        if entry.name.lower().endswith(TABLES):
                            left.tables.append(name)
                else:
                    left.names[_STRANGE].append(name)


def _can_follow(
    entry: "os.DirEntry[str]", name: str, within: tuple[tuple[int, int], ...], base: str, left: LeftOut
) -> bool:
    """Returns whether a link is followed; counts it where it is not, or leads out."""
    try:
        stat = entry.stat()
    except OSError:
        left.names[_DANGLING].append(name)
        return False
    if (stat.st_dev, stat.st_ino) in within:
        left.names[_CIRCLE].append(name)
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

    def files_in(self, folder: str) -> list[str]:
        """Returns the names of the media files in a folder itself, sorted."""
        return self._files.get(folder, [])

    def folders_in(self, folder: str) -> list[str]:
        """Lists the folders in a folder that hold media files at any depth, relative to the root, sorted."""
        return [f"{folder}/{name}" if folder else name for name in sorted(self._inner.get(folder, ()))]

    def files_below(self, folder: str) -> Iterator[str]:
        """Yields the media files below a folder, relative to the root, sorted within their folders."""
        for name in self.files_in(folder):
            yield f"{folder}/{name}" if folder else name
        for inner in self.folders_in(folder):
            yield from self.files_below(inner)

    def lone_folders(self) -> Iterator[str]:
        """Yields the root, and the folders in it as long as all files lie in one of them."""
        level = ""
        yield level
        while not self.files_in(level) and len(self.folders_in(level)) == 1:
            (level,) = self.folders_in(level)
            yield level

    @cached_property
    def tables(self) -> list[str]:
        """Text tables that may be label files, the least deep first, relative to the root."""
        kinds: dict[tuple[str, str], list[str]] = {}
        for name in self.left.tables:
            folder, _, last = name.rpartition("/")
            kinds.setdefault((folder, last.rpartition(".")[2].lower()), []).append(name)
        some: list[str] = []
        for names in kinds.values():
            some += [name for name in names if len(names) <= _MOST_TABLES or _LABELS.search(last_part(name))]
        return sorted(some, key=lambda name: (name.count("/"), name))[:_LOOKED_AT]

    @cached_property
    def index(self) -> "NameIndex":
        """The files, relative to the root, by the ends of their paths."""
        return NameIndex(self.files_below(""))


# --- names as people write them ---------------------------------------------------------------------------------


class NameIndex:
    """Files by the ends of their paths, loosely spelled (`spell_name`)."""

    def __init__(self, files: Iterable[str], aliases: Iterable[tuple[str, str]] = ()) -> None:
        """Takes the files' paths, and (name, path) of those that have another name as well."""
        self._spelled = [(spell_name(file), file) for file in files]
        self._spelled += [(spell_name(name), file) for name, file in aliases]
        self._by_tail = cache(self._index_tails)

    def matches(self, name: str, dropped: int = 0, by_number: bool = False) -> list[str]:
        """Finds the files whose paths end with a name, whatever their endings, without `dropped` folders in front.

        `by_number`: numbers are compared, without folders: names may have lost their zeros.
        """
        parts = spell_name(name)
        if by_number:
            return self._by_number.get(int(parts[-1]), []) if is_number(parts[-1]) else []
        parts = parts[min(dropped, len(parts) - 1) :]
        tails = self._by_tail(len(parts))
        return tails.get(parts) or tails.get((*parts[:-1], loosen_text(last_part(name))), [])

    def find(self, name: str, dropped: int = 0, by_number: bool = False) -> list[str]:
        """Returns, of several `matches`, those whose ending is the name's, and of these, those whose case is."""
        files = self.matches(name, dropped, by_number)
        for spell in (loosen_text, str):
            last = spell(last_part(name))
            files = [file for file in files if len(files) > 1 and spell(last_part(file)) == last] or files
        return files

    def _index_tails(self, count: int) -> dict[tuple[str, ...], list[str]]:
        """Sorts the files by so many last parts of their paths."""
        index: dict[tuple[str, ...], list[str]] = {}
        for parts, file in self._spelled:
            if len(parts) >= count:
                alike = index.setdefault(parts[-count:], [])
                alike += [file] if file not in alike[-1:] else []  # by its path and by its other name
        return index

    @cached_property
    def _by_number(self) -> dict[int, list[str]]:
        """The files whose names are numbers, by these."""
        index: dict[int, list[str]] = {}
        for (stem,), files in self._by_tail(1).items():
            if is_number(stem):
                index.setdefault(int(stem), []).extend(files)
        return index


def spell_name(name: str) -> tuple[str, ...]:
    """Splits a name into parts in any case, Unicode form and ending; Windows' backslashes are understood."""
    folder, _, last = name.replace("\\", "/").rpartition("/")
    return *_spell_folders(folder), stem_of(last)


@lru_cache(4096)
def _spell_folders(folder: str) -> tuple[str, ...]:
    """Spells the folders of a name; a drive and empty parts are none."""
    parts = [part for part in folder.split("/") if part not in ("", ".", "..")]
    return tuple(stem_of(part) for part in (parts[1:] if parts and parts[0].endswith(":") else parts))


def loosen_text(text: str) -> str:
    """Spells names alike that people take for the same: in any case and Unicode form."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def stem_of(last: str) -> str:
    """Returns the last part of a name without the ending of a media file, loosely spelled."""
    return loosen_text(os.path.splitext(last)[0] if is_media(last) else last)  # noqa: PTH122


def is_number(text: str) -> bool:
    """Returns whether a text is a whole number of a size that files are called by."""
    return text.isascii() and text.isdigit() and len(text) < _DIGITS


def last_part(name: str) -> str:
    """Returns what stands behind the last slash or backslash."""
    return name.replace("\\", "/").rpartition("/")[2]
