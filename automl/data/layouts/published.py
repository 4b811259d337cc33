"""Public sets of videos that are laid out in a way of their own, read as they are downloaded.

Celeb-DF (Li et al., CVPR 2020): Celeb-real/, YouTube-real/, Celeb-synthesis/ and a list of the videos to test on.
FaceForensics++ (Rössler et al., ICCV 2019): original_sequences/ and manipulated_sequences/, each with folders for the
source, the compression and `videos`. In both, a forged video is named after the ones it was made of: they are a group.
Where frames were taken out of the videos (as DeepfakeBench does), a folder is called as its video was.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from automl.data.layouts.label_file import LabelFile, Row
from automl.data.layouts.text_table import listing
from automl.data.layouts.tree import Tree
from automl.errors import DataError
from automl.media.kinds import is_media, medium_of

_TEST_LIST = "List_of_testing_videos.txt"
_CELEB_DF = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "fake"}
_FACE_FORENSICS = {"original_sequences": "real", "manipulated_sequences": "fake"}
_HOLDERS = ("videos", "frames", "images", "faces")  # folders whose name says nothing of what lies in them
_CELEB_VIDEO = re.compile(r"((id\d+)(?:_id\d+)?(_\d+)|\d{5})(_.*)?")
_SOURCE_NUMBERS = re.compile(r"(\d{2,3})(?:_(\d{2,3}))?(_.*)?")


def read_published(tree: Tree, level: str) -> LabelFile | None:
    """Reads a known set; None if this is none.

    Args:
        tree: The files.
        level: The folder that may be the set, relative to the tree's root.

    Raises:
        DataError: If it is one, and all of it is real, or all forged.
    """
    folders = [folder.rpartition("/")[2] for folder in tree.folders(level)]
    for called, names, read in _SETS:
        labels = {f"{at}/{name}": names[at] for at in folders if at in names for name in _inside(tree, level, at)}
        others = [at for at in folders if at not in names]
        there = set(labels.values())
        if len(there) > 1:
            found = read(tree, level, labels)
            left = {f"{at}/": len(_inside(tree, level, at)) for at in others}
            left |= {"what lies beside the folders": len(loose)} if (loose := tree.directly(level)) else {}
            said = [f"{what} is no part of {called} and is left out: {count} files" for what, count in left.items()]
            return replace(found, problems=(*found.problems, *said))
        if there and not others and (called != "FaceForensics++" or any(map(_is_held, labels))):
            missing = " or ".join(f"{at}/" for at, label in names.items() if label not in there)
            raise DataError(
                f"{tree.root / level}: this is {called} without {missing}, all of it is {there.pop()}; put that "
                "beside the others, or take the folders as classes with --format folder"
            )
    return None


def _is_held(name: str) -> bool:
    """Whether a file lies in a folder for videos or for their frames."""
    return not {"videos", "frames"}.isdisjoint(name.split("/"))


def _inside(tree: Tree, *folders: str) -> list[str]:
    """The files below a folder, relative to it."""
    folder = "/".join(filter(None, folders))
    return [name[len(folder) + 1 :] for name in tree.below(folder)]


# --- Celeb-DF


def _read_celeb_df(tree: Tree, level: str, labels: dict[str, str]) -> LabelFile:
    """Celeb-DF: id0_id1_0000.mp4 is id0_0000.mp4 with another face."""
    listed = tree.root / level / _TEST_LIST
    test = _test_videos(listed) if listed.is_file() else {}
    found = {name: _video_of(name, _CELEB_VIDEO) for name in labels}
    groups = {name: (video[2] or "YouTube ") + (video[3] or video[1]) for name, video in found.items() if video}
    videos = {name: _in_class(name, video[1]) if video else _stem(name) for name, video in found.items()}
    there = test.keys() & set(videos.values())
    splits = {name: "holdout" if video in test else "train" for name, video in videos.items()} if there else {}
    told, problems = [], []
    if test:
        told.append(f"Celeb-DF: {len(there)} of the {len(test)} videos of {_TEST_LIST} are the holdout")
    if test and not there:
        problems.append(
            f"Celeb-DF: {_TEST_LIST} is not used: none of its videos is there: {listing(list(test.values()))}"
        )
    told.append(f"Celeb-DF: a forged video and the one it was made of are a group ({_share(groups, labels)})")
    problems += _ungrouped("Celeb-DF", groups, labels)
    rows = _rows(tree, level, labels, groups, splits)
    return LabelFile(rows, tuple(problems), tuple(told), tables=(listed,) if test else ())


def _test_videos(listed: Path) -> dict[str, str]:
    """The videos of the list, `1 YouTube-real/00170.mp4`, as written, by class folder and name without ending."""
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.split(maxsplit=1)[1].strip() for line in lines if len(line.split(maxsplit=1)) == 2]
    return {_in_class(name, _stem(name)): name for name in names}


def _in_class(name: str, video: str) -> str:
    """A video with its class, whatever lies between them."""
    return f"{name.partition('/')[0]}/{video}"


# --- FaceForensics++


def _read_face_forensics(tree: Tree, level: str, labels: dict[str, str]) -> LabelFile:
    """FaceForensics++: 000_003.mp4 is 000.mp4 with the face or the expression of 003.mp4."""
    masks = {name for name in labels if "masks" in name.split("/")[:-1]}
    labels = {name: label for name, label in labels.items() if name not in masks}
    numbers: dict[str, list[str]] = {}
    for name, label in labels.items():
        if found := _video_of(name, _SOURCE_NUMBERS):  # of an original, a second number is that of a frame
            numbers[name] = [found[1], found[2]] if found[2] and label == "fake" else [found[1]]
    groups = _joined(numbers)
    told = [
        f"FaceForensics++: videos of one source, original or forged, are a group ({_share(groups, labels)})",
        *([f"FaceForensics++: masks/ is no part of the videos: {len(masks)} files are not read"] if masks else []),
    ]
    kinds = sorted({part for name in labels for part in name.split("/")[:-1] if re.fullmatch(r"raw|c\d\d", part)})
    if len(kinds) > 1:
        told.append(f"FaceForensics++: {' and '.join(kinds)} of one video all count, and are of one group")
    problems = tuple(_ungrouped("FaceForensics++", groups, labels))
    return LabelFile(_rows(tree, level, labels, groups, {}), problems, tuple(told))


def _joined(numbers: dict[str, list[str]]) -> dict[str, str]:
    """The groups of files by the numbers of their sources: what shares one, directly or through others."""
    root: dict[str, str] = {}

    def find(number: str) -> str:
        while root.setdefault(number, number) != number:
            number = root[number]
        return number

    for found in numbers.values():
        for other in found[1:]:
            one, two = sorted((find(found[0]), find(other)))
            root[two] = one
    return {name: f"source {find(found[0])}" for name, found in numbers.items()}


# --- both


def _video_of(name: str, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """The video that a file is, or was taken out of: by the innermost folder that is called as one, else by its name.

    A frame's own name counts only where nothing but the class is around it: 010.png is a frame's number, not a video's.
    """
    _, *folders, last = name.split("/")
    if found := next(filter(None, map(pattern.fullmatch, reversed(folders))), None):
        return found
    is_own = medium_of(last) == "video" or not folders or folders[-1] in _HOLDERS
    return pattern.fullmatch(_stem(last)) if is_own else None


def _stem(name: str) -> str:
    """The last part of a name, without the ending of a media file."""
    last = name.rpartition("/")[2]
    return os.path.splitext(last)[0] if is_media(last) else last  # noqa: PTH122


def _share(groups: dict[str, str], labels: dict[str, str]) -> str:
    return f"{len(groups)} of {len(labels)} files"


def _ungrouped(called: str, groups: dict[str, str], labels: dict[str, str]) -> list[str]:
    """The warning about files that may have got no group although they belong to one; none if all have."""
    alone = [name for name in labels if name not in groups]
    said = f"{called}: {len(alone)} files are of no group, their names are not those of the set's videos: "
    return [said + listing(alone)] if alone else []


def _rows(
    tree: Tree, level: str, labels: dict[str, str], groups: dict[str, str], splits: dict[str, str]
) -> tuple[Row, ...]:
    """The rows of files given relative to the set."""
    base = os.path.abspath(tree.root / level)  # noqa: PTH100
    inside = f"{level}/" if level else ""
    return tuple(
        Row(f"{base}/{name}", inside + name, label, groups.get(name, ""), splits.get(name, ""))
        for name, label in labels.items()
    )


_SETS: tuple[tuple[str, dict[str, str], Callable[[Tree, str, dict[str, str]], LabelFile]], ...] = (
    ("Celeb-DF", _CELEB_DF, _read_celeb_df),
    ("FaceForensics++", _FACE_FORENSICS, _read_face_forensics),
)
"""Name, labels of the folders, and what reads the files given with their labels."""
