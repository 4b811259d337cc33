"""Folders of classes, with or without folders of splits around or in them."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from automl.data.layouts.columns import FORGED, GENUINE, SPLIT_NAMES, split_in, split_words
from automl.data.layouts.label_file import LabelFile, Row
from automl.data.layouts.text_table import is_printable, list_names
from automl.data.layouts.tree import Tree, last_part

_WORDS = GENUINE | FORGED | {"ai", "nature", "generated", "synthetic"}
_NO_CLASSES = re.compile(
    r"(images?|imgs?|jpegimages|pictures|photos|masks?|labels?|annotations?|segmentation\w*|trimaps?|ground_?truth|gt"
    r"|thumb(nail)?s|previews?|depth|edges)",
    re.IGNORECASE,
)
_PART = re.compile(r"\w*(part|fold|batch|chunk|shard|split|set|images?|imgs?|data|vol|dis[ck])[-_ ]*\d+", re.IGNORECASE)


def are_classes(names: set[str]) -> bool:
    """Returns whether folders may be classes: several, and not all of splits, parts or images/ and masks/."""
    others = [
        name for name in names if not _split_in(name) and not _NO_CLASSES.fullmatch(name) and not _PART.fullmatch(name)
    ]
    return len(names) > 1 and bool(others)


def read_folders(tree: Tree) -> LabelFile:
    """Reads one folder per class.

    The classes are the first level of folders that are no splits; or those called real and fake, wherever they are.
    """
    top = _find_top(tree)
    read = LabelFile(remarks=[f"all files lie in {top}/"] if top else [])
    if not _read_levels(tree, top, read):
        _read_first_level(tree, top, read)
    if odd := [row.name for row in read.rows if not is_printable(row.name)]:
        line = f"{len(odd)} names are not printable and are left out, rename them: {list_names(odd)}"
        read.problems.insert(0, line)
        read.rows = [row for row in read.rows if is_printable(row.name)]
    return read


def _find_top(tree: Tree) -> str:
    """Finds the folder that holds the classes or the splits: down as long as all lies in one folder of folders."""
    top = ""
    for folder in tree.lone_folders():
        inner = tree.folders_in(folder)
        if folder and (not inner or (_split_in(last_part(folder)) and len(inner) > 1)):
            break
        top = folder
    return top


def _read_levels(tree: Tree, top: str, read: LabelFile) -> bool:
    """Reads folders whose classes or splits are not at the usual level; returns whether they are so.

    `car/real` and `cat/fake`: the classes are the second level; `real/train` and `fake/train`: the splits are.
    """
    parts_of = {folder: folder[len(top) :].strip("/").split("/") for folder in _folders_with_files(tree, top)}
    inside = [parts for parts in parts_of.values() if parts != [""]]
    depth = min(map(len, inside), default=0)
    names = [{parts[level] for parts in inside} for level in range(depth)]
    # real and fake, perhaps numbered
    bare = [{re.sub(r"^\d+[-_]", "", name.lower()) for name in level_names} for level_names in names]
    words = [level for level in range(depth) if bare[level] <= _WORDS and len(bare[level]) > 1]
    # the training set, and another or nothing else
    called = [{_split_in(name) for name in level_names} for level_names in names]
    splits = [level for level in range(depth) if "train" in called[level]]
    split = next((level for level in splits if "" not in called[level] or len(called[level]) > 2), None)
    label = words[0] if words else next((level for level in range(depth) if level != split), None)
    if label is None or (label == (1 if split == 0 else 0) and split in (0, None)):
        return False
    beside = Counter[str]()
    for folder, parts in parts_of.items():
        if parts == [""]:
            read.problems.append(_describe_loose_files(tree, top))
            continue
        name = re.sub(r"^\d+[-_]", "", parts[label]) if words else parts[label]
        own_split = _split_in(parts[split]) if split is not None else ""
        files = tree.files_in(folder)
        if split is not None and not own_split:
            beside[parts[split]] += len(files)
        else:
            _add_rows(read, tree, [f"{folder}/{file}" for file in files], name, own_split)
    read.problems += [f"{name}/ is no split and is left out: {count} files" for name, count in beside.items()]
    read.remarks.append(f"the classes are the folders of level {label + 1}: {_list_folders(names[label])}")
    if split is not None:
        read.remarks.append(f"the splits are the folders of level {split + 1}: {_list_folders(names[split])}")
    for level in range(depth):
        if level not in (label, split):
            read.remarks.append(
                f"no difference is made between the folders of level {level + 1}: {_list_folders(names[level])}"
            )
    return True


def _read_first_level(tree: Tree, top: str, read: LabelFile) -> None:
    """Reads one folder per class, with or without folders for the splits around them."""
    folders = tree.folders_in(top)
    called = {folder: SPLIT_NAMES.get(last_part(folder).lower(), "") for folder in folders}
    worded = {folder: _split_in(last_part(folder)) for folder in folders}
    if sum(bool(split) and bool(tree.folders_in(folder)) for folder, split in worded.items()) > 1:
        called = worded  # seg_train/ and seg_test/ with folders in them; one alone may be a class
    if "validation" not in called.values():  # train/ and eval/
        called |= {folder: "validation" for folder in folders if last_part(folder).lower() in ("eval", "evaluation")}
    # a class may be called "test", but not when there is a train folder of classes beside it, or only such folders
    splits = [folder for folder in folders if called[folder] and tree.folders_in(folder)]
    if not any(called[folder] == "train" for folder in splits) and (len(splits) < len(folders) or not splits):
        _read_classes(tree, top, "", read)
        if odd := [f"{last_part(folder)}/" for folder in folders if called[folder]]:
            read.remarks.append(f"{_list_folders(odd)} read as a class: there is no train/ with folders of classes")
        return
    for folder in folders:
        if not called[folder]:
            count = sum(1 for _ in tree.files_below(folder))
            read.problems.append(f"{_list_folders([last_part(folder)])}/ is no split and is left out: {count} files")
            continue
        level = folder
        while not tree.files_in(level) and len(inner := tree.folders_in(level)) == 1 and tree.folders_in(inner[0]):
            (level,) = inner
        _read_classes(tree, level, called[folder], read)


def _read_classes(tree: Tree, parent: str, split: str, read: LabelFile) -> None:
    """Reads the files below each class folder of `parent`."""
    folders = tree.folders_in(parent)
    for folder in folders:
        _add_rows(read, tree, list(tree.files_below(folder)), last_part(folder), split)
    full = {last_part(folder) for folder in folders}
    empty = [path for path in sorted((tree.root / parent).iterdir()) if path.is_dir() and path.name not in full]
    for path in empty:
        if not path.name.startswith((".", "__MACOSX")):
            name = f"{path.relative_to(tree.root)}/"
            read.problems.append(f"{name!r} holds no images, videos or sounds")
    if tree.files_in(parent):
        read.problems.append(_describe_loose_files(tree, parent))
    if folders and not any(tree.files_in(folder) for folder in folders):
        inner = [folder[len(parent) :].strip("/") for one in folders for folder in tree.folders_in(one)]
        read.remarks.append(f"no difference is made between the folders in those of classes: {_list_folders(inner)}")


def _add_rows(read: LabelFile, tree: Tree, names: Sequence[str], label: str, split: str) -> None:
    """Adds files of one class and split."""
    base = os.path.abspath(tree.root)  # noqa: PTH100
    read.rows += [Row(f"{base}/{name}", name, label, "", split) for name in names]


def _describe_loose_files(tree: Tree, folder: str) -> str:
    """Says that files lie beside the folders of classes."""
    loose, called = tree.files_in(folder), last_part(folder) or tree.root.resolve().name
    return f"left out, files of {called}/ that lie in no class folder ({len(loose)}): {list_names(loose)}"


def _folders_with_files(tree: Tree, top: str) -> Iterator[str]:
    """Yields the folders below and with `top` that hold files themselves."""
    if tree.files_in(top):
        yield top
    for folder in tree.folders_in(top):
        yield from _folders_with_files(tree, folder)


def _split_in(name: str) -> str:
    """Returns the split in the name of a folder: `train` for seg_train and training_set; "" for none."""
    return "" if not _WORDS.isdisjoint(split_words(name)) else split_in(name)


def _list_folders(names: Sequence[str] | set[str]) -> str:
    """Lists up to five folders in order, without quotes."""
    return list_names(sorted(set(names)), quoted=False)
