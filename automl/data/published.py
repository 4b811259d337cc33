"""Public sets of videos that are laid out in a way of their own, read as they are downloaded.

Celeb-DF (Li et al., CVPR 2020): Celeb-real/, YouTube-real/, Celeb-synthesis/ and a list of the videos to test on.
FaceForensics++ (Rössler et al., ICCV 2019): original_sequences/ and manipulated_sequences/, each with folders for the
source, the compression and `videos`. In both, a forged video is named after the ones it was made of: they are a group.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from automl.data.label_file import LabelFile, Row
from automl.data.tree import Tree

__all__ = ["read_published"]

_TEST_LIST = "List_of_testing_videos.txt"
_CELEB_DF = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "fake"}
_FACE_FORENSICS = {"original_sequences": "real", "manipulated_sequences": "fake"}


def read_published(tree: Tree, level: str) -> LabelFile | None:
    """Reads a known set; None if this is none.

    Args:
        tree: The files.
        level: The folder that may be the set, relative to the tree's root.
    """
    folders = {os.path.basename(folder): folder for folder in tree.folders(level)}  # noqa: PTH119
    if _CELEB_DF.keys() & folders.keys() and "Celeb-synthesis" in folders:
        return _read_celeb_df(tree, level, folders)
    if _FACE_FORENSICS.keys() <= folders.keys():
        files = list(_labelled(tree, folders, _FACE_FORENSICS))
        groups = _pairs(_stem(name) for name, _ in files)
        rows = [_row(tree, name, label, groups.get(_stem(name), ""), "") for name, label in files]
        return LabelFile(tuple(rows), told=("FaceForensics++: videos of one source, original or forged, are a group",))
    return None


def _read_celeb_df(tree: Tree, level: str, folders: dict[str, str]) -> LabelFile:
    """Celeb-DF: id0_id1_0000.mp4 is id0_0000.mp4 with another face."""
    listed = tree.root / level / _TEST_LIST
    test: set[str] = set()
    if listed.is_file():
        lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
        test = {line.split(maxsplit=1)[1].strip() for line in lines if len(line.split(maxsplit=1)) == 2}
    rows = []
    for name, label in _labelled(tree, folders, _CELEB_DF):
        found = re.fullmatch(r"(id\d+)(_id\d+)?(_\d+)", _stem(name))
        inside = name.removeprefix(f"{level}/") if level else name
        split = ("holdout" if inside in test else "train") if test else ""
        rows.append(_row(tree, name, label, found[1] + found[3] if found else "", split))
    counted = sum(row.split == "holdout" for row in rows)
    told = [f"Celeb-DF: {counted} of the {len(test)} videos of {_TEST_LIST} are the holdout"] if test else []
    told.append("Celeb-DF: a forged video and the one it was made of are a group")
    return LabelFile(tuple(rows), told=tuple(told), tables=(listed,) if test else ())


def _labelled(tree: Tree, folders: dict[str, str], labels: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yields (file relative to the root, label)."""
    for folder, label in labels.items():
        if folder in folders:
            yield from ((name, label) for name in tree.below(folders[folder]))


def _row(tree: Tree, name: str, label: str, group: str, split: str) -> Row:
    return Row(os.path.abspath(tree.root / name), name, label, group, split)  # noqa: PTH100


def _stem(name: str) -> str:
    return Path(name).stem


def _pairs(stems: Iterable[str]) -> dict[str, str]:
    """The groups of names such as 000 and 000_003: whatever shares a number, directly or through others."""
    numbers = {stem: re.findall(r"(?<![^_])\d{2,3}(?=_|$)", stem.partition("__")[0]) for stem in stems}
    root: dict[str, str] = {}

    def find(number: str) -> str:
        while root.setdefault(number, number) != number:
            number = root[number]
        return number

    for found in numbers.values():
        for other in found[1:]:
            one, two = sorted((find(found[0]), find(other)))
            root[two] = one
    return {stem: f"source {find(found[0])}" for stem, found in numbers.items() if found}
