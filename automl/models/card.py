"""The model card: what a trained model is, what it was measured on, and what it must not be taken for.

Markdown with a YAML front matter, as the Hugging Face hub reads it (its documentation, "Model Cards"); the sections
follow Mitchell et al. 2019, "Model Cards for Model Reporting". Names of classes and data come from users: all escaped.
"""

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from automl.errors import SpecError
from automl.models.folder import Input, Labels
from automl.recipe import Recipe
from automl.schema import Part
from automl.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from automl.models.view_ensemble import ViewEnsemble

_HUB_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0"})
"""Those of timm's weights that the hub knows by these identifiers; any other is `other` with its name."""

_SPECIAL = str.maketrans({char: f"\\{char}" for char in string.punctuation if char in r"\`*_{}[]<>#|~&!$@:"})
_CLASSES_SHOWN = 20
_OFF = ("none", 0, 0.0, False)


def model_card(
    recipe: Recipe, labels: Labels, inputs: Input, metrics: Mapping[str, Any], data: Mapping[str, Any]
) -> str:
    """Writes the card of a trained model.

    Args:
        recipe: How it was trained.
        labels: What its outputs mean.
        inputs: How a file becomes its input.
        metrics: What `metrics.json` holds: `trained_on` (counts), `metric`, `validation` and `holdout` (each with
            `source`, `value`, `low`, `high`, `n`, `all`), `training` (`seconds`, `images_per_second`, `last_loss`,
            `epochs`, `steps`), `memory` (`predicted_bytes`, `measured_peak_bytes`, `device`), `versions`,
            `weights` (`source`, `licence`). What is missing or None is left out of the card.
        data: `name`, `format`, `counts` (samples by split, then by class name), `groups` (their number, or by split).
            Each may be missing.

    Returns:
        The text of `README.md`; it ends with a newline.
    """
    licence = _licence(recipe, metrics)
    sections = (
        (
            "",
            [
                f"# {_text(recipe.backbone)} on {_text(data.get('name') or 'your data')}",
                "",
                _what(recipe, labels, licence),
            ],
        ),
        ("How to use it", _usage(recipe, labels, inputs)),
        ("Data", _data(labels, metrics, data)),
        ("Recipe", _table(("choice", "value"), _recipe_rows(recipe))),
        ("Metrics", _metrics(metrics, labels)),
        ("Memory and time", _costs(metrics)),
        ("Licence", _licence_lines(recipe, licence)),
        ("Versions", [f"- {_text(name)} {_text(value)}" for name, value in _mapping(metrics, "versions").items()]),
        ("Limits", _limits(labels)),
    )
    parts = [_front_matter(recipe, labels, licence)]
    for title, lines in sections:
        if lines:
            parts.append("\n".join(([f"## {title}", ""] if title else []) + lines) + "\n")
    return "\n".join(parts)


def ensemble_card(found: "ViewEnsemble", data: str, learned: Sequence[str]) -> str:
    """Writes the card of views that are joined; each member has a card of its own.

    Args:
        found: The members, their weights and scores.
        data: The name of the data set.
        learned: The splits that the members of this folder were trained on.

    Returns:
        The text of `README.md`; it ends with a newline.
    """
    header, *rows = found.rows()
    views = ", ".join(member.view for member in found.members)
    lines = [
        f"# {_text(views)} of {_text(data)}, joined",
        "",
        "A fusion of the views of a clip: each member is the best recipe of a view, and a clip's score is a logistic "
        "regression on the members' log-odds (`fusion.json`). A view that sees nothing of a clip, such as a silent "
        f"one, adds nothing. The members learned from {' + '.join(learned)}.",
        "",
        *_table(header, rows),
        "",
        *(f"- {_text(line)}" for line in found.lines()),
        "- The scores are of members that learned from the training split alone.",
        "",
        "```sh",
        "automl predict FOLDER --data clips/ --out submission.csv",
        "```",
    ]
    return "\n".join(lines) + "\n"


def weights_licence(backbone: str) -> str:
    """The licence of a backbone's pretrained weights, from the leaderboard table, as timm and the hub write it.

    Args:
        backbone: A timm name; without a tag, the architecture's default weights are meant.

    Returns:
        Such as `apache-2.0`; "unknown" for weights that the table does not have.
    """
    from automl.backbones.table import load_table

    table = load_table()
    found = table.loc[table["model"] == _tagged(backbone), "licence"]
    return (str(found.iloc[0]) if len(found) else "") or "unknown"


def _tagged(backbone: str) -> str:
    """The name with its weights tag."""
    if "." in backbone:
        return backbone
    from timm.models import get_pretrained_cfg

    try:
        default = get_pretrained_cfg(backbone)
    except RuntimeError:  # an architecture that this timm does not know
        return backbone
    return f"{backbone}.{default.tag}" if default is not None and default.tag else backbone


def _licence(recipe: Recipe, metrics: Mapping[str, Any]) -> str | None:
    """Of the pretrained weights; None when the training began from scratch."""
    weights = _mapping(metrics, "weights")
    if not recipe.pretrained or ("source" in weights and weights["source"] is None):
        return None
    return str(weights.get("licence") or weights_licence(recipe.backbone))


# --- sections ---------------------------------------------------------------------------------------------------


def _front_matter(recipe: Recipe, labels: Labels, licence: str | None) -> str:
    front: dict[str, Any] = {}
    if licence is not None:
        known = licence in _HUB_LICENCES or licence == "unknown"
        front = {"license": licence} if known else {"license": "other", "license_name": licence}
        front["base_model"] = f"timm/{_tagged(recipe.backbone)}"
    kind = "binary-classification" if len(labels.classes) == 2 else "multi-class-classification"
    front |= {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "automl-timm", kind],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"


def _what(recipe: Recipe, labels: Labels, licence: str | None) -> str:
    started = "from scratch" if licence is None else "from its pretrained weights"
    names = _names(labels.classes)
    task = f"tells {len(labels.classes)} classes apart: {names}"
    positive = f". Its score is the probability of {_text(labels.classes[labels.positive])}"
    return (
        f"An image classifier that {task}{positive if len(labels.classes) == 2 else ''}. It is timm's "
        f"{_text(recipe.backbone)}, trained {started} by automl."
    )


def _usage(recipe: Recipe, labels: Labels, inputs: Input) -> list[str]:
    shown = {"native": "the middle, not resized", "squash": "all of it, both sides resized, nothing cut off"}
    crop = shown.get(recipe.augmentation.crop.name, "the middle square, resized")
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (inputs.mean, inputs.std))
    columns = "the positive class" if len(labels.classes) == 2 else "each class"
    return [
        "```sh",
        "automl predict FOLDER --data images/ --out submission.csv",
        "```",
        "",
        "```python",
        "import automl",
        "",
        'automl.load("FOLDER").predict(["a.jpg", "b.png"])  # a pandas DataFrame',
        "```",
        "",
        f"FOLDER is the folder of this card; what is predicted is the probability of {columns}. An image is decoded to "
        f"{inputs.decode_size} px (short side, never enlarged); {crop} ({inputs.interpolation}), gives "
        f"{inputs.image_size} × {inputs.image_size} px; values in 0 to 1 are normalised with mean ({mean}) and "
        f"standard deviation ({std}). `preprocessing.json` and `labels.json` have the same for programs.",
    ]


def _data(labels: Labels, metrics: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    lines = [f"- {key}: {_text(data[key])}" for key in ("name", "format") if data.get(key)]
    groups = data.get("groups")
    if groups:
        lines.append(f"- groups (samples that stay together in one split): {_counts(groups)}")
    trained_on = metrics.get("trained_on")
    if trained_on:
        lines.append(f"- trained on: {_counts(trained_on)}")
    counts = _mapping(data, "counts")
    if counts:
        shown = labels.classes[:_CLASSES_SHOWN]
        rows = [
            (split, sum(by_class.values()), *(by_class.get(name, 0) for name in shown))
            for split, by_class in counts.items()
        ]
        lines += ["", *_table(("split", "samples", *shown), rows)]
        if len(shown) < len(labels.classes):
            lines += ["", f"The first {len(shown)} of {len(labels.classes)} classes are shown."]
    return lines


def _recipe_rows(recipe: Recipe) -> list[tuple[str, str]]:
    rows = []
    for key, value in recipe:
        chosen = _part(value) if isinstance(value, Part) else _value(value)
        if chosen and (value not in _OFF or key in ("pretrained", "seed")):
            rows.append((key.replace("_", " "), chosen))
    return rows


def _part(part: Part) -> str:
    """A part of a recipe in one line: its name, and what is switched on in it."""
    name = getattr(part, "name", "")
    if name == "none":
        return ""
    switched: list[str] = []
    for key, value in part:
        chosen = _part(value) if isinstance(value, Part) else _value(value)
        if key == "name" or not chosen or value in _OFF or value is None:
            continue
        if key.endswith("_min") or key == "jpeg_min_quality":  # bounds of a step that may be off
            continue
        switched.append(f"{key.replace('_', ' ')} {chosen}")
    inner = ", ".join(switched)
    return f"{name} ({inner})" if name and inner else name or inner


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _metrics(metrics: Mapping[str, Any], labels: Labels) -> list[str]:
    name = str(metrics.get("metric") or "score")
    scores = {split: _mapping(metrics, split) for split in ("validation", "holdout")}
    found = {split: score for split, score in scores.items() if score.get("value") is not None}
    if not found:
        return ["This model was not measured on samples it did not learn from."] if metrics.get("trained_on") else []
    rows = [
        (split, _figure(score["value"]), _interval(score), score.get("n") or "–", _measured(score))
        for split, score in found.items()
    ]
    lines = _table(("split", name, "95 % interval", "samples", "measured on"), rows)
    if "validation" in found:
        lines += ["", "The validation split chose the recipe, so its figure flatters; the holdout chose nothing."]
    if len(found) == 2:
        optimism = _optimism(name, *(float(score["value"]) for score in found.values()))
        lines += ["", f"Optimism (how much better validation looks than holdout): {optimism:+.4f}."]
    names = sorted({metric for score in found.values() for metric in _mapping(score, "all")})
    if names:
        every = [(metric, *(_figure(_mapping(s, "all").get(metric)) for s in found.values())) for metric in names]
        lines += ["", *_table(("metric", *found), every)]
    if len(labels.classes) == 2:
        lines += ["", f"The positive class is {_text(labels.classes[labels.positive])}."]
    return lines


def _measured(score: Mapping[str, Any]) -> str:
    source = str(score.get("source") or "–")
    meaning = {
        "confirm": "models of this recipe that learned from the training split alone (automl confirm)",
        "this model": "this model",
    }
    return meaning.get(source, source)


def _optimism(metric: str, validation: float, holdout: float) -> float:
    """Positive when validation looks better than holdout."""
    from automl.training.metrics import direction

    try:
        sign = -1 if direction(metric) == "minimize" else 1
    except SpecError:  # a metric of another version: the plain difference
        sign = 1
    return sign * (validation - holdout)


def _costs(metrics: Mapping[str, Any]) -> list[str]:
    training, memory = _mapping(metrics, "training"), _mapping(metrics, "memory")
    device = f" ({_text(memory['device'])})" if memory.get("device") else ""
    lines = (
        (memory.get("predicted_bytes"), "peak memory of a training step, predicted: {}", format_bytes),
        (memory.get("measured_peak_bytes"), f"peak memory, measured: {{}}{device}", format_bytes),
        (training.get("seconds"), "training time: {}", format_seconds),
        (training.get("images_per_second"), "training images a second: {}", _value),
        (training.get("epochs"), "epochs: {}", _value),
        (training.get("steps"), "optimizer steps: {}", _value),
        (training.get("last_loss"), "last training loss: {}", _value),
    )
    return [f"- {text.format(form(value))}" for value, text, form in lines if value is not None]


def _licence_lines(recipe: Recipe, licence: str | None) -> list[str]:
    if licence is None:
        lines = ["Trained from scratch: no pretrained weights bring a licence with them."]
    else:
        lines = [
            f"The pretrained weights of {_text(recipe.backbone)} have the licence {_text(licence)} by timm's records. "
            "Terms of the images they learned from may reach further.",
        ]
    return [*lines, "", "The licence of the data this model was trained on is not known here and is the user's matter."]


def _limits(labels: Labels) -> list[str]:
    lines = [
        "- The figures hold for images like those of the data above: same sources, same processing.",
        "- Probabilities were not calibrated on other shares of the classes than those of the training data.",
    ]
    if len(labels.classes) == 2:
        lines.insert(0, "- A detector of forgeries that was trained on one generator does not know others.")
    return lines


# --- text -------------------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    """Any value as plain Markdown text: one line, nothing in it is markup, a link or a cell border."""
    printable = "".join(char if char.isprintable() else " " for char in str(value))
    return re.sub(r"\s+", " ", printable).strip().translate(_SPECIAL)


def _names(names: Iterable[str]) -> str:
    every = [_text(name) for name in names]
    more = f" and {len(every) - _CLASSES_SHOWN} more" if len(every) > _CLASSES_SHOWN else ""
    return ", ".join(every[:_CLASSES_SHOWN]) + more


def _table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    cells = [[_text(cell) for cell in row] for row in (header, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + " --- |" * len(cells[0]), *lines[1:]]


def _counts(counts: object) -> str:
    """`train 600 (real 300, fake 300), validation 200`, from a number or from mappings however deep."""
    if not isinstance(counts, Mapping):
        return _text(counts)
    parts = []
    for name, value in counts.items():
        inner = f"({_counts(value)})" if isinstance(value, Mapping) else _text(value)
        parts.append(f"{_text(name)} {inner}")
    return ", ".join(parts)


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "–"


def _interval(score: Mapping[str, Any]) -> str:
    low, high = score.get("low"), score.get("high")
    return "–" if low is None or high is None else f"{_figure(low)} to {_figure(high)}"


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key; an empty one where there is none."""
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}
