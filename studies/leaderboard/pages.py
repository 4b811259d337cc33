"""docs/backbones.md: what the sweep and the training of each family found, for people.

    python studies/leaderboard/pages.py [--out docs/backbones.md]

It reads what `capabilities.py`, `learning.py`, `exports.py` and `encoders.py` wrote, and examines nothing itself.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl.units import format_figure

if TYPE_CHECKING:
    from automl.backbones.capability_table import Capabilities

HERE = Path(__file__).parent
SPACE_SIZES = (128, 160, 192, 224, 256)
"""The image sizes of the shipped search space."""
CHECKS = ("learns", "moves", "frozen", "layer_decay", "saves", "bf16", "torch", "onnx", "memory")

HEAD = """# What each backbone can do

<!-- Made by `python studies/leaderboard/pages.py`; do not edit. -->

`automl search` asks this table before it draws a recipe: an image size at which a backbone cannot load its weights is
not drawn for it, nor is stochastic depth where a network has none. `automl backbones NAME` prints a backbone's row, and
`automl backbones --check` examines backbones with the installed timm and says what differs from the table.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page."""
    from automl.backbones.capability_table import SHIPPED, load_capabilities
    from automl.files import read_header

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "docs" / "backbones.md")
    given = parser.parse_args(arguments)
    rows = load_capabilities()
    learned = sorted(read_table(HERE / "learning.csv"), key=lambda row: row["family"])
    exported = read_table(HERE / "exports.csv")
    numbers = counts(rows, exported, learned, read_header(SHIPPED).get("timm", "?"))
    page = [HEAD, *numbers, *describe_encoders(), *sizes(rows), *lacks(rows)]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join([*page, *training(learned)]) + "\n", encoding="utf-8")


def read_table(path: Path) -> list[dict[str, str]]:
    """Reads what `learning.py` or `exports.py` found; nothing, if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def counts(
    rows: Sequence["Capabilities"], exported: Sequence[dict[str, str]], learned: Sequence[dict[str, str]], timm: str
) -> list[str]:
    """How many backbones can do what."""
    one_each = list({row.arch: row for row in sorted(rows, key=lambda row: not row.default_weights)}.values())
    wanted = set(SPACE_SIZES)
    lines = [
        f"## In numbers (timm {timm})",
        "",
        f"{len(rows):,} backbones of the leaderboard: {len(one_each)} architectures with the weights they come with.",
        "",
        "| | architectures | not |",
        "|---|---|---|",
        _count("can be built", one_each, lambda row: not row.problem),
        _count(
            "run at every size of the shipped search space (128 to 256 px)", one_each, lambda r: wanted <= {*r.runs}
        ),
        _count("load their weights at every one of these sizes", one_each, lambda row: wanted <= {*row.loads}),
        _count("load their weights at one of these sizes, or at their own", one_each, lambda row: bool(row.loads)),
        _count("have stochastic depth (`drop_path`)", one_each, lambda row: row.drop_path),
        _count("have gradient checkpointing", one_each, lambda row: row.grad_checkpointing),
        _count("can be built for images of one channel", one_each, lambda row: row.other_channels),
        _count("have layers between which layer decay tells", one_each, lambda row: row.layer_groups > 1),
        _count("have a classifier that timm's train.py can scale", one_each, lambda row: row.plain_head),
    ]
    for name, what in (("timm", "whose YAML timm's train.py accepts"), ("python", "whose script builds the network")):
        yes = sum(row[name] == "yes" for row in exported)
        lines += [f"| {what} | {yes} | {len(exported) - yes} |"] if exported else []
    for check in CHECKS if learned else ():
        yes = sum(row[check] == "yes" for row in learned)
        lines.append(f"| of {len(learned)} families, the smallest: {MEANING[check]} | {yes} | {len(learned) - yes} |")
    return [*lines, ""]


MEANING = {
    "learns": "six steps lower the loss",
    "moves": "every weight that should move moves",
    "frozen": "what is frozen stays",
    "layer_decay": "learning rates rise towards the head",
    "saves": "saved and loaded, the probabilities are the same",
    "bf16": "bf16 and fp32 agree",
    "torch": "torch.export agrees",
    "onnx": "ONNX agrees",
    "memory": "memory is predicted within 2 %",
}


def _count(what: str, rows: Sequence["Capabilities"], can: Callable[["Capabilities"], bool]) -> str:
    number = sum(map(can, rows))
    return f"| {what} | {number} | {len(rows) - number} |"


def sizes(rows: Sequence["Capabilities"]) -> list[str]:
    """The backbones whose weights do not load at every size of the shipped space, and why."""
    lines = [
        "## Image sizes",
        "",
        "Their weights load, or they run, at these sizes only; all others take every size from 128 to 256 px.",
        "",
        "| backbone | with its weights | from scratch | why not at others |",
        "|---|---|---|---|",
    ]
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in rows:
        if not set(SPACE_SIZES) <= {*row.loads}:
            key = _list(row.loads), "all" if set(SPACE_SIZES) <= {*row.runs} else _list(row.runs), row.why_not
            alike[key].append(row.backbone)
    for (loads, runs, why), names in sorted(alike.items(), key=lambda item: item[1]):
        lines.append(f"| {_names(names)} | {loads} | {runs} | {why.replace('|', '/')} |")
    return [*lines, ""]


ENCODERS = """## Encoders

{count} of timm's pretrained networks have no classifier of ImageNet's thousand classes, so no leaderboard ranks them:
DINOv3, SigLIP, MAE, networks trained on ImageNet-21k and others. What is known of each without building it ships in
`automl/backbones/encoders.csv`, and what it needs of a GPU in `encoder_memory.csv`: trained as a whole, its head alone
(`frozen`), or its head and normalisation layers (`norms`).

```sh
automl backbones --encoders '*dinov3*'                                   # size, cost, pretraining, licence
automl backbones --encoders --gpu-mem 16GB --precision frozen            # what fits if the head alone is trained
automl weights 'vit_base_patch16_dinov3.*'                               # what to fetch, and where to put it
automl search --data photos/ --weights-dir weights --backbones '*dinov3*'
automl search --data photos/ --weights-dir weights --encoders only
```

`--encoders auto`, the default of a search, takes them where `--backbones` names them, or where their weights are in
`--weights-dir` or the hub's cache: behind the ranked ones, and beside those at most half of a full pool. `none` leaves
them out. {without} return tokens and have no place for a classifier; those cannot be trained here.

Data and method are read from names, and left out where a name does not tell. Parameters in millions, from the smallest.

| pretraining | encoders | parameters | licence of the weights | the smallest |
|---|---|---|---|---|"""


def describe_encoders() -> list[str]:
    """The encoders, by what they were trained on and how."""
    from automl.backbones.encoders import load_encoders

    table = load_encoders()
    lines = ENCODERS.format(count=len(table), without=int(table["gmacs"].isna().sum())).splitlines()
    for pretraining, rows in table.dropna(subset="gmacs").sort_values("params_m").groupby("pretraining"):
        least, most = rows["params_m"].iloc[0], rows["params_m"].iloc[-1]
        span = " to ".join(dict.fromkeys(map(format_figure, (least, most))))
        licences = _list(sorted({licence or "not known" for licence in rows["licence"]}))
        cells = (str(pretraining) or "not known", str(len(rows)), span, licences, rows["model"].iloc[0])
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def lacks(rows: Sequence["Capabilities"]) -> list[str]:
    """The architectures without stochastic depth, and those without gradient checkpointing."""
    lines = ["## Neither drawn nor set", ""]
    for what, has in (("stochastic depth", "drop_path"), ("gradient checkpointing", "grad_checkpointing")):
        names = sorted({row.arch for row in rows if not getattr(row, has)})
        lines += [f"No {what} ({len(names)} architectures): {', '.join(names)}.", ""]
    return lines


def training(learned: Sequence[dict[str, str]]) -> list[str]:
    """One architecture of each of timm's model files, trained; every "no" with its reason."""
    if not learned:
        return []
    lines = [
        "## One of each family, trained",
        "",
        "The smallest architecture of each of timm's model files, six steps on two classes of pictures on the CPU"
        " (`studies/leaderboard/learning.py`).",
        "",
        f"| backbone | px | loss | {' | '.join(check.replace('_', ' ') for check in CHECKS)} |",
        "|---" * (3 + len(CHECKS)) + "|",
    ]
    for row in learned:
        loss = f"{float(row['first_loss']):.2f} → {float(row['last_loss']):.2g}" if row["last_loss"] else ""
        cells = " | ".join(row[check] or "–" for check in CHECKS)
        lines.append(f"| {row['backbone']} | {row['image_size']} | {loss} | {cells} |")
    reasons = [f"- {row['backbone']}: {row['why']}" for row in learned if row["why"]]
    return [*lines, "", 'Each "no" explained, and what else was seen:', "", *reasons, ""]


def _list(values: Iterable[int | str]) -> str:
    return ", ".join(map(str, values)) or "none"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


if __name__ == "__main__":
    main()
