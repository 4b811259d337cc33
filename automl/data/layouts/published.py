"""Public sets of videos that are laid out in a way of their own, read as they are downloaded.

Celeb-DF (Li et al., CVPR 2020): Celeb-real/, YouTube-real/, Celeb-synthesis/ and a list of the videos to test on.
FaceForensics++ (Rössler et al., ICCV 2019): original_sequences/ and manipulated_sequences/, each with folders for the
source, the compression and `videos`. In both, a forged video is named after the ones it was made of: they are a group.
Where frames were taken out of the videos (as DeepfakeBench does), a folder is called as its video was.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from scipy.cluster.hierarchy import DisjointSet

from automl.data.layouts.label_file import LabelFile, Row
from automl.data.layouts.text_table import list_names
from automl.data.layouts.tree import Tree, last_part, stem_of
from automl.errors import DataError
from automl.media.kinds import find_medium

_Read = tuple[dict[str, str], dict[str, str], dict[str, str]]  # label, group and split of the files, by their names
_TEST_LIST = "List_of_testing_videos.txt"
_CELEB_DF = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "fake"}
_FACE_FORENSICS = {"original_sequences": "real", "manipulated_sequences": "fake"}
_HOLDERS = ("videos", "frames", "images", "faces")  # folders whose name says nothing of what lies in them
_CELEB_VIDEO = re.compile(r"((id\d+)(?:_id\d+)?(_\d+)|\d{5})(_.*)?")
_SOURCE_NUMBERS = re.compile(r"(\d{2,3})(?:_(\d{2,3}))?(_.*)?")


def read_published(tree: Tree, level: str) -> LabelFile | None:
    """Reads the known set that a folder, relative to the tree's root, may be; None if it is none.

    Raises:
        DataError: If it is one, and all of it is real, or all forged.
    """
    folders = [last_part(folder) for folder in tree.folders_in(level)]
    for called, label_of, read_set in _SETS:
        ours = [folder for folder in folders if folder in label_of]
        labels = {f"{name}/{file}": label_of[name] for name in ours for file in _files_inside(tree, level, name)}
        others = [name for name in folders if name not in label_of]
        present = set(labels.values())
        if len(present) > 1:
            read = LabelFile()
            labels, groups, splits = read_set(tree.root / level, labels, read)
            if alone := [name for name in labels if name not in groups]:
                line = f"{called}: {len(alone)} files are of no group, their names are not those of the set's videos: "
                read.problems.append(line + list_names(alone))
            base, inside = os.path.abspath(tree.root / level), f"{level}/" if level else ""  # noqa: PTH100
            read.rows = [
                Row(f"{base}/{name}", inside + name, label, groups.get(name, ""), splits.get(name, ""))
                for name, label in labels.items()
            ]
            left = {f"{name}/": len(_files_inside(tree, level, name)) for name in others}
            left |= {"what lies beside the folders": len(loose)} if (loose := tree.files_in(level)) else {}
            for what, count in left.items():
                read.problems.append(f"{what} is no part of {called} and is left out: {count} files")
            return read
        held = any({"videos", "frames"} & set(name.split("/")) for name in labels)  # in folders for them
        if present and not others and (called != "FaceForensics++" or held):
            missing = " or ".join(f"{name}/" for name, label in label_of.items() if label not in present)
            raise DataError(
                f"{tree.root / level}: this is {called} without {missing}, all of it is {present.pop()}; put that "
                "beside the others, or take the folders as classes with --format folder"
            )
    return None


def _files_inside(tree: Tree, *folders: str) -> list[str]:
    """Lists the files below a folder, relative to it."""
    folder = "/".join(filter(None, folders))
    return [name[len(folder) + 1 :] for name in tree.files_below(folder)]


def _read_celeb_df(folder: Path, labels: dict[str, str], read: LabelFile) -> _Read:
    """Reads Celeb-DF, in which id0_id1_0000.mp4 is id0_0000.mp4 with another face."""
    test_list = folder / _TEST_LIST
    lines = test_list.read_text(encoding="utf-8", errors="replace").splitlines() if test_list.is_file() else []
    listed = [line.split(maxsplit=1)[1].strip() for line in lines if len(line.split(maxsplit=1)) == 2]
    test = {_name_in_class(name): name for name in listed}  # `1 YouTube-real/00170.mp4`
    matches = {name: _match_video(name, _CELEB_VIDEO) for name in labels}
    groups = {name: (match[2] or "YouTube ") + (match[3] or match[1]) for name, match in matches.items() if match}
    videos = {name: _name_in_class(name, match[1] if match else "") for name, match in matches.items()}
    present = test.keys() & set(videos.values())
    splits = {name: "holdout" if video in test else "train" for name, video in videos.items()} if present else {}
    if test:
        read.tables = [test_list]
        read.remarks.append(f"Celeb-DF: {len(present)} of the {len(test)} videos of {_TEST_LIST} are the holdout")
    if test and not present:
        read.problems.append(
            f"Celeb-DF: {_TEST_LIST} is not used: none of its videos is there: {list_names(list(test.values()))}"
        )
    read.remarks.append(
        f"Celeb-DF: a forged video and the one it was made of are a group ({len(groups)} of {len(labels)} files)"
    )
    return labels, groups, splits


def _name_in_class(name: str, video: str = "") -> str:
    """Returns the video that a file is of, else its own name, with its class, whatever lies between them."""
    return f"{name.partition('/')[0]}/{video or stem_of(last_part(name))}"


def _read_face_forensics(_: Path, labels: dict[str, str], read: LabelFile) -> _Read:
    """Reads FaceForensics++, in which 000_003.mp4 is 000.mp4 with the face or the expression of 003.mp4."""
    masks = {name for name in labels if "masks" in name.split("/")[:-1]}
    labels = {name: label for name, label in labels.items() if name not in masks}
    numbers: dict[str, list[str]] = {}
    for name, label in labels.items():
        if match := _match_video(name, _SOURCE_NUMBERS):  # of an original, a second number is that of a frame
            numbers[name] = [match[1], match[2]] if match[2] and label == "fake" else [match[1]]
    # what shares a source, directly or through others
    sources = DisjointSet(number for pair in numbers.values() for number in pair)
    for first, *others in numbers.values():
        for other in others:
            sources.merge(first, other)
    group_of = {number: f"source {min(subset)}" for subset in sources.subsets() for number in subset}
    groups = {name: group_of[first] for name, (first, *_) in numbers.items()}
    share = f"{len(groups)} of {len(labels)} files"
    read.remarks.append(f"FaceForensics++: videos of one source, original or forged, are a group ({share})")
    if masks:
        read.remarks.append(f"FaceForensics++: masks/ is no part of the videos: {len(masks)} files are not read")
    kinds = sorted({part for name in labels for part in name.split("/")[:-1] if re.fullmatch(r"raw|c\d\d", part)})
    if len(kinds) > 1:
        read.remarks.append(f"FaceForensics++: {' and '.join(kinds)} of one video all count, and are of one group")
    return labels, groups, {}


def _match_video(name: str, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """Finds the video that a file is, or was taken out of: by the innermost folder that is called as one, or its name.

    A frame's own name counts only where nothing but the class is around it: 010.png is a frame's number, not a video's.
    """
    _, *folders, last = name.split("/")
    if match := next(filter(None, map(pattern.fullmatch, reversed(folders))), None):
        return match
    is_own = find_medium(last) == "video" or not folders or folders[-1] in _HOLDERS
    return pattern.fullmatch(stem_of(last)) if is_own else None


_SETS: tuple[tuple[str, dict[str, str], Callable[[Path, dict[str, str], LabelFile], _Read]], ...] = (
    ("Celeb-DF", _CELEB_DF, _read_celeb_df),
    ("FaceForensics++", _FACE_FORENSICS, _read_face_forensics),
)
"""Name, labels of the folders, and what gives the files of a folder, with their labels, groups and splits."""
