"""Folders of classes, with or without folders of splits around or in them."""

import os
import re
from collections.abc import Sequence

from automl.data.layouts.columns import FORGED, GENUINE, SPLIT_NAMES
from automl.data.layouts.label_file import LabelFile, Row
from automl.data.layouts.text_table import listing, printable
from automl.data.layouts.tree import Tree

_WORDS = GENUINE | FORGED | {"ai", "nature", "generated", "synthetic"}
_NO_CLASSES = re.compile(
    r"(images?|imgs?|jpegimages|pictures|photos|masks?|labels?|annotations?|segmentation\w*|trimaps?|ground_?truth|gt"
    r"|thumb(nail)?s|previews?|depth|edges)",
    re.IGNORECASE,
)
_PART = re.compile(r"\w*(part|fold|batch|chunk|shard|split|set|images?|imgs?|data|vol|dis[ck])[-_ ]*\d+", re.IGNORECASE)
_SHOWN = 5


def are_classes(names: set[str]) -> bool:
    """Whether names of folders may be those of classes: several, and not all of splits, parts or images/ and masks/."""
    others = [
        name for name in names if not _split_of(name) and not _NO_CLASSES.fullmatch(name) and not _PART.fullmatch(name)
    ]
    return len(names) > 1 and bool(others)


def read_folders(tree: Tree) -> LabelFile:
    """Reads one folder per class.

    The classes are the first level of folders that are no splits; or those that say real and fake, wherever they are.
    """
    top = _top(tree)
    told = [f"all files lie in {top}/"] if top else []
    found = _read_levels(tree, top) or _read_first_level(tree, top)
    return LabelFile(found.rows, found.problems, (*told, *found.told))


def _top(tree: Tree) -> str:
    """The folder that holds the classes or the splits: down as long as all lies in one folder of folders."""
    level = ""
    while not tree.directly(level) and len(tree.folders(level)) == 1:
        (inner,) = tree.folders(level)
        if not tree.folders(inner) or (_split_of(_last(inner)) and len(tree.folders(inner)) > 1):
            break
        level = inner
    return level


def _read_levels(tree: Tree, top: str) -> LabelFile | None:
    """Reads folders whose classes or splits are not at the usual level; None if they are.

    `car/real` and `cat/fake`: the classes are the second level; `real/train` and `fake/train`: the splits are.
    """
    places = [folder[len(top) :].strip("/").split("/") for folder in _with_files(tree, top)]
    depth = min((len(parts) for parts in places if parts != [""]), default=0)
    names = [{parts[level] for parts in places if parts != [""]} for level in range(depth)]
    words = [level for level in range(depth) if _are_words(names[level])]
    split = next((level for level in range(depth) if _are_splits(names[level])), None)
    usual = 1 if split == 0 else 0
    label = words[0] if words else next((level for level in range(depth) if level != split), None)
    if label is None or (label == usual and split in (0, None)):
        return None
    rows, problems, beside = [], list[str](), dict[str, int]()
    for folder in _with_files(tree, top):
        parts = folder[len(top) :].strip("/").split("/")
        if parts == [""]:
            problems.append(_loose(tree, top))
            continue
        name = re.sub(r"^\d+[-_]", "", parts[label]) if words else parts[label]
        where = _split_of(parts[split]) if split is not None else ""
        if split is not None and not where:
            beside[parts[split]] = beside.get(parts[split], 0) + len(tree.directly(folder))
            continue
        rows += _rows(tree, [f"{folder}/{file}" for file in tree.directly(folder)], name, where)
    problems += [f"{name}/ is no split and is left out: {count} files" for name, count in beside.items()]
    others = [level for level in range(depth) if level not in (label, split)]
    told = [f"the classes are the folders of level {label + 1}: {_some(names[label])}"]
    if split is not None:
        told.append(f"the splits are the folders of level {split + 1}: {_some(names[split])}")
    told += [f"the folders of level {level + 1} are not told apart: {_some(names[level])}" for level in others]
    return LabelFile(*_printable(rows, problems), tuple(told))


def _read_first_level(tree: Tree, top: str) -> LabelFile:
    """Reads one folder per class, with or without folders for the splits around them."""
    folders = tree.folders(top)
    called = {folder: SPLIT_NAMES.get(_last(folder).lower(), "") for folder in folders}
    worded = {folder: _split_of(_last(folder)) for folder in folders}
    if sum(bool(split) and bool(tree.folders(folder)) for folder, split in worded.items()) > 1:
        called = worded  # seg_train/ and seg_test/ with folders in them; one alone may be a class
    if "validation" not in called.values():  # train/ and eval/
        called.update({folder: "validation" for folder in folders if _last(folder).lower() in ("eval", "evaluation")})
    # a class may be called "test", but not when there is a train folder of classes beside it, or only such folders
    splits = [folder for folder in folders if called[folder] and tree.folders(folder)]
    beside_train = any(called[folder] == "train" for folder in splits)
    if not beside_train and (len(splits) < len(folders) or not splits):
        rows, problems, told = _class_folders(tree, top, "")
        odd = [f"{_last(folder)}/" for folder in folders if called[folder]]
        told += [f"{_some(odd)} read as a class: there is no train/ with folders of classes"] if odd else []
        return LabelFile(*_printable(rows, problems), tuple(told))
    rows, problems, told = list[Row](), list[str](), list[str]()
    for folder in folders:
        if called[folder]:
            inner = folder
            while not tree.directly(inner) and len(tree.folders(inner)) == 1 and tree.folders(tree.folders(inner)[0]):
                (inner,) = tree.folders(inner)
            found, warned, said = _class_folders(tree, inner, called[folder])
            rows, problems, told = rows + found, problems + warned, told + said
        else:
            count = sum(1 for _ in tree.below(folder))
            problems.append(f"{_some([f'{_last(folder)}/'])} is no split and is left out: {count} files")
    return LabelFile(*_printable(rows, problems), tuple(told))


def _class_folders(tree: Tree, parent: str, split: str) -> tuple[list[Row], list[str], list[str]]:
    """Lists the files below each class folder of `parent`; with warnings, and what else is to be told."""
    rows: list[Row] = []
    problems: list[str] = []
    folders = tree.folders(parent)
    for folder in folders:
        rows += _rows(tree, list(tree.below(folder)), _last(folder), split)
    problems += [f"{empty!r} holds no images, videos or sounds" for empty in _empty_folders(tree, parent)]
    if tree.directly(parent):
        problems.append(_loose(tree, parent))
    told = []
    if folders and not any(tree.directly(folder) for folder in folders):
        inner = [folder[len(parent) :].strip("/") for one in folders for folder in tree.folders(one)]
        told.append(f"the folders in those of classes are not told apart: {_some(inner)}")
    return rows, problems, told


def _rows(tree: Tree, names: Sequence[str], label: str, split: str) -> list[Row]:
    base = os.path.abspath(tree.root)  # noqa: PTH100
    return [Row(f"{base}/{name}", name, label, "", split) for name in names]


def _printable(rows: list[Row], problems: list[str]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows whose names can be printed, and the warnings, one more if some cannot."""
    odd = [row.name for row in rows if not printable(row.name)]
    if odd:
        problems = [f"{len(odd)} names are not printable and are left out, rename them: {listing(odd)}", *problems]
        rows = [row for row in rows if printable(row.name)]
    return tuple(rows), tuple(problems)


def _loose(tree: Tree, folder: str) -> str:
    loose, called = tree.directly(folder), _last(folder) or tree.root.resolve().name
    return f"{len(loose)} files of {called}/ lie in no class folder and are left out: {listing(loose)}"


def _empty_folders(tree: Tree, parent: str) -> list[str]:
    """The folders beside class folders that hold no media, relative to the root."""
    full = {_last(folder) for folder in tree.folders(parent)}
    inside = sorted(path for path in (tree.root / parent).iterdir() if path.is_dir() and path.name not in full)
    shown = [path for path in inside if not path.name.startswith((".", "__MACOSX"))]
    return [f"{path.relative_to(tree.root)}/" for path in shown]


def _with_files(tree: Tree, top: str) -> list[str]:
    """The folders below and with `top` that hold files themselves."""
    found = [top] if tree.directly(top) else []
    for folder in tree.folders(top):
        found += _with_files(tree, folder)
    return found


def _are_words(names: set[str]) -> bool:
    """Whether names of folders say real and fake."""
    words = {re.sub(r"^\d+[-_]", "", name.lower()) for name in names}
    return words <= _WORDS and len(words) > 1


def _are_splits(names: set[str]) -> bool:
    """Whether names of folders are those of splits: the training set, and another or nothing else."""
    called = {_split_of(name) for name in names}
    return "train" in called and ("" not in called or len(called) > 2)


def _split_of(name: str) -> str:
    """The split that the name of a folder says: `train` for seg_train and training_set; "" for none."""
    words = re.split(r"[^a-z]+", name.lower())
    if not _WORDS.isdisjoint(words):
        return ""
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _some(names: Sequence[str] | set[str]) -> str:
    """Up to five names, without quotes."""
    shown = sorted(set(names))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(name if printable(name) else ascii(name) for name in shown[:_SHOWN]) + more


def _last(folder: str) -> str:
    return folder.rpartition("/")[2]
