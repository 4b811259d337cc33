"""Compiles the leaderboard table that the package ships, from timm's result CSVs.

    python studies/leaderboard/refresh.py DIR [--out FILE]

DIR holds `results/*.csv` of the timm repository: eight leaderboards, and, where there are, `benchmark-infer-*.csv`
(multiply-adds and activations by image size) and `model_metadata-in1k.csv` (how models were pretrained). Family and
licence come from the installed timm. Names are checked, since models are later built by them.
"""

import argparse
import datetime
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl.backbones.table import COLUMNS, SHIPPED
from automl.errors import SpecError
from automl.files import explain_write_errors, write_text

if TYPE_CHECKING:
    import pandas as pd

BOARD_FILES = {
    "imagenet": "results-imagenet.csv",
    "a": "results-imagenet-a.csv",
    "a_clean": "results-imagenet-a-clean.csv",
    "r": "results-imagenet-r.csv",
    "r_clean": "results-imagenet-r-clean.csv",
    "real": "results-imagenet-real.csv",
    "sketch": "results-sketch.csv",
    "v2": "results-imagenetv2-matched-frequency.csv",
}
RENAMED = {"img_size": "image_size", "param_count": "params_m"}
KEY = ["model", "image_size"]
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
SOURCE = "timm repository results/*.csv (github.com/huggingface/pytorch-image-models)"

DATA = {
    **{name: name for name in ("in12k", "in21k", "in22k", "laion2b", "webli", "m30m", "m38m", "yfcc100m", "ig1b")},
    "jft": "jft300m",
    "laiona": "laion-aesthetic",
    "openai": "wit400m",  # CLIP's own pairs (Radford et al. 2021, section 2.2)
    "seer": "ig1b",  # Goyal et al. 2022: a billion public Instagram images
    "swag": "ig3.6b",  # Singh et al. 2022
}
"""Data by the word in a tag that stands for it."""

METHODS = {
    **{"ns": "ns", "wsl": "wsl", "swsl": "swsl", "ssl": "semisl", "ap": "ap", "adv": "adv"},
    **dict.fromkeys(("dist", "distilled", "ssld"), "dist"),
    **dict.fromkeys(("mim", "mae", "fcmae", "dino", "indomain"), "selfsl"),
}
"""Method by word, in the vocabulary of timm's `model_metadata-in1k.csv`."""


def refresh_table(folder: Path, out: Path = SHIPPED) -> "pd.DataFrame":
    """Compiles the table and writes it, atomically, with its source, licence, date and command on top.

    Args:
        folder: The folder with timm's result CSVs.
        out: Where the table goes; the one that automl reads by default.

    Returns:
        The table written.

    Raises:
        SpecError: If a CSV is missing or unfit, or the table cannot be written.
    """
    import timm

    table = compile_table(folder)
    header = {
        "source": SOURCE,
        "licence": "Apache-2.0, as its source",
        "date": datetime.date.today().isoformat(),
        "command": f"python studies/leaderboard/refresh.py {folder.resolve().name}",
        "timm": timm.__version__,
    }
    comment = "".join(f"# {key}: {' '.join(value.split())}\n" for key, value in header.items())
    with explain_write_errors(out):
        write_text(out, comment + table.to_csv(index=False, lineterminator="\n"))
    return table


def compile_table(folder: Path) -> "pd.DataFrame":
    """Joins timm's leaderboards to one row per distinct (model, image size) of any of them.

    Args:
        folder: The folder with timm's result CSVs.

    Returns:
        The columns `COLUMNS`, sorted by model and image size. A board that lacks a row is NaN in it.

    Raises:
        SpecError: If CSVs are missing (all are named), or one is not a leaderboard.
    """
    import pandas as pd

    missing = [name for name in BOARD_FILES.values() if not (folder / name).is_file()]
    if missing:
        raise SpecError(f"{folder} lacks {', '.join(missing)}; give the folder `results` of the timm repository")
    boards = {name: _read_board(folder / file) for name, file in BOARD_FILES.items()}
    same = ["params_m", "crop_pct", "interpolation"]  # on every board
    table = pd.concat([board[KEY + same] for board in boards.values()]).drop_duplicates(KEY)
    for name, board in boards.items():
        table = table.merge(board[[*KEY, "top1"]].rename(columns={"top1": name}), on=KEY, how="left")
    table = table.merge(_describe_models(table["model"], folder), on="model").sort_values(KEY, ignore_index=True)
    table[["gmacs", "macts"]] = _read_compute(table, folder)
    return table[list(COLUMNS)]


def _read_board(path: Path) -> "pd.DataFrame":
    """Reads and checks one leaderboard: model, image_size, top1 (%), params_m, crop_pct, interpolation."""
    wanted = ["model", "img_size", "top1", "param_count", "crop_pct", "interpolation"]
    board = _read_csv(path, wanted).rename(columns=RENAMED)
    for name in ("image_size", "top1", "params_m", "crop_pct"):
        _check_figures(path, board, name, 100 if name == "top1" else math.inf)
    bad = [model for model in board["model"] if not MODEL_NAME.fullmatch(str(model))]
    if bad:
        raise SpecError(f"{path}: not a timm model name: {bad[0]!r}; letters, digits, '_', '.' and '-' make one")
    if board.duplicated(KEY).any():
        model, size = board.loc[board.duplicated(KEY), KEY].iloc[0]
        raise SpecError(f"{path}: {model} at {size} pixels is listed twice; keep one row")
    return board.astype({"image_size": "int64"})


def _read_csv(path: Path, wanted: list[str]) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_csv(path, usecols=wanted, thousands=",")[wanted]  # parameters above a billion: "1,013.01"
    except (OSError, ValueError) as exc:
        raise SpecError(f"cannot read {path}: {exc}; it must be a CSV with the columns {', '.join(wanted)}") from exc


def _check_figures(path: Path, rows: "pd.DataFrame", column: str, limit: float) -> None:
    """Refuses text, negative and missing figures, and those above the limit."""
    import pandas as pd

    figures = pd.to_numeric(rows[column], errors="coerce")
    bad = ~figures.between(0, limit)
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise SpecError(
            f"{path}, row {row + 2}: {column} is {rows[column].iloc[row]!r}, not a number from 0 to {limit:g}"
        )


def read_pretraining(model: str, recorded: str | None = None) -> str:
    """Reads from a weights tag what a model was trained on before ImageNet-1k, and how if not with labels alone.

    A tag such as `clip_laion2b_augreg_ft_in12k_in1k_384` lists data in the order of training, among methods and sizes:
    LAION-2B, then ImageNet-12k, then ImageNet-1k.

    Args:
        model: timm's `arch.tag`.
        recorded: What timm's metadata says of it, such as `in1k-dist`; used for what the tag leaves out.

    Returns:
        Data joined by `+`, in order, then `-method`: `in21k`, `laion2b+in12k`, `jft300m-ns`; `in1k` if ImageNet-1k
        was all.
    """
    architecture, _, tag = model.partition(".")
    words = tag.split("_")
    data = list(dict.fromkeys(DATA[word] for word in words if word in DATA))
    if not data and words[0] == "clip" and architecture.startswith("eva"):
        data = ["laion400m"]  # EVA-CLIP (Fang et al. 2022, section 3.5)
    recorded_data, _, recorded_method = (recorded or "").partition("-")
    if not data and recorded_data and not recorded_data.startswith("in1k"):
        data = [recorded_data]
    method = next((METHODS[word] for word in words if word in METHODS), recorded_method)
    return "+".join(data or ["in1k"]) + (f"-{method}" if method else "")


def _describe_models(models: "pd.Series[str]", folder: Path) -> "pd.DataFrame":
    """Returns pretraining, family and licence of each distinct model."""
    import pandas as pd

    path = folder / "model_metadata-in1k.csv"
    recorded: dict[str, str] = {}
    if path.is_file():
        metadata = _read_csv(path, ["model", "pretrain"])
        recorded = dict(zip(metadata["model"], metadata["pretrain"], strict=True))
    names = sorted(set(models))
    architectures = [name.partition(".")[0] for name in names]
    # The record has no tags: it speaks of a model only where the architecture has one set of weights.
    sole = {name for name in architectures if architectures.count(name) == 1}
    rows = [
        (name, read_pretraining(name, recorded.get(arch) if arch in sole else None), *_family_and_licence(name))
        for name, arch in zip(names, architectures, strict=True)
    ]
    return pd.DataFrame(rows, columns=["model", "pretraining", "family", "licence"])


def _family_and_licence(model: str) -> tuple[str, str]:
    """Returns the timm module and the weights' licence; for a name timm does not know, its first word and ""."""
    import timm

    architecture = model.partition(".")[0]
    if not timm.is_model(architecture):
        return re.match(r"[A-Za-z]*", architecture)[0].lower() or architecture, ""  # type: ignore[index]
    family = timm.models.model_entrypoint(architecture).__module__.rpartition(".")[2]
    try:
        pretrained = timm.get_pretrained_cfg(model, allow_unregistered=False)
    except RuntimeError:  # the architecture is known, these weights are not
        return family, ""
    return family, (getattr(pretrained, "license", None) or "").lower()


def _read_compute(table: "pd.DataFrame", folder: Path) -> list[tuple[float, float]]:
    """Returns GMACs and millions of activations of one image, for each row.

    A size that no benchmark has is scaled from the nearest one by the ratio of areas (exact for convolutions, too low
    for attention over more tokens).
    """
    known: dict[str, dict[int, tuple[float, float]]] = {}
    wanted = ["model", "infer_img_size", "infer_gmacs", "infer_macts"]
    for path in sorted(folder.glob("benchmark-infer-*.csv")):
        rows = _read_csv(path, wanted).dropna()
        for name in wanted[1:]:
            _check_figures(path, rows, name, math.inf)
        for model, size, gmacs, macts in rows.itertuples(index=False):
            known.setdefault(str(model).partition(".")[0], {}).setdefault(int(size), (gmacs, macts))
    return [
        _scale_to_size(known.get(model.partition(".")[0], {}), size)
        for model, size in zip(table["model"], table["image_size"], strict=True)
    ]


def _scale_to_size(known: dict[int, tuple[float, float]], size: int) -> tuple[float, float]:
    """Scales the figures of the nearest known image size to another size; NaN if none is known."""
    if not known:
        return math.nan, math.nan
    nearest = min(known, key=lambda other: abs(math.log(other / size)))
    scale = (size / nearest) ** 2
    gmacs, macts = known[nearest]
    return round(gmacs * scale, 3), round(macts * scale, 3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compiles the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder `results` of the timm repository")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="default: where automl reads it")
    given = parser.parse_args(arguments)
    try:
        table = refresh_table(given.folder, given.out)
    except SpecError as exc:
        parser.error(str(exc))
    print(f"{given.out}: {len(table):,} rows, {table['model'].nunique():,} models")


if __name__ == "__main__":
    main()
