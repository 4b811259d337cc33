"""The model card: what a trained model is, what it was measured on, and what it must not be taken for.

Markdown with a YAML front matter, as the Hugging Face hub reads it (its documentation, "Model Cards"); the sections
follow Mitchell et al. 2019, "Model Cards for Model Reporting". The text is in `card.md.jinja`. Names of classes and
data come from users: all are escaped.
"""

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.backbones.encoders import load_backbones
from automl.backbones.input import InputSpec
from automl.errors import shorten
from automl.models.folder import Labels
from automl.recipe import Recipe
from automl.schema import Part
from automl.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from automl.models.fused_ensemble import FusedEnsemble

_HUB_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0"})
"""Those of timm's weights that the hub knows by these identifiers; any other is `other` with its name."""

_SPECIAL = str.maketrans({char: f"\\{char}" for char in string.punctuation if char in r"\`*_{}[]<>#|~&!$@:"})
_CLASSES_SHOWN = 20
_OFF = (None, "none", 0, False)
_CROPS = {"native": "the middle, not resized", "squash": "all of it, both sides resized, nothing cut off"}
_SOURCES = {"confirm": "models of this recipe that learned from the training split alone (automl confirm)"}


def render_model_card(
    recipe: Recipe, labels: Labels, inputs: InputSpec, metrics: Mapping[str, Any], data: Mapping[str, Any]
) -> str:
    """Writes the card, `README.md`, of a trained model.

    `metrics` is what `metrics.json` holds: `trained_on` (counts), `metric`, `validation` and `holdout` (each with
    `source`, `value`, `low`, `high`, `n`, `all`), `training` (`seconds`, `images_per_second`, `last_loss`, `epochs`,
    `steps`), `memory` (`predicted_bytes`, `measured_peak_bytes`, `device`), `versions`, `weights` (`source`,
    `licence`). `data` holds `name`, `format`, `counts` (samples by split, then by class name) and `groups` (their
    number, or by split). What is missing or None in them is left out of the card.
    """
    from automl.training.metrics import metric_sign

    binary = len(labels.classes) == 2
    weights = metrics.get("weights") or {}
    scratch = not recipe.pretrained or weights.get("source", "hub") is None
    licence = None if scratch else str(weights.get("licence") or find_weights_licence(recipe.backbone))
    splits = ((split, metrics.get(split) or {}) for split in ("validation", "holdout"))
    scores = {split: score for split, score in splits if score.get("value") is not None}
    values = [score["value"] for score in scores.values()]
    choices = [
        (key.replace("_", " "), text)
        for key, value in recipe
        if (value not in _OFF or key in ("pretrained", "seed")) and (text := _describe_choice(value))
    ]
    shown = labels.classes[:_CLASSES_SHOWN]
    counts: Mapping[str, Mapping[str, int]] = data.get("counts") or {}
    samples = [(split, sum(each.values()), *(each.get(name, 0) for name in shown)) for split, each in counts.items()]
    return _render_card(
        [(recipe.backbone, licence)],
        "binary-classification" if binary else "multi-class-classification",
        labels=labels,
        names=shorten([_escape_text(name) for name in labels.classes], _CLASSES_SHOWN),
        positive=_escape_text(labels.classes[labels.positive]) if binary else "",
        folder="images/" if recipe.view.media == "image" else "clips/",
        inputs=inputs,
        crop=_CROPS.get(recipe.augmentation.crop.name, "the middle square, resized"),
        choices=[("choice", "value"), *choices],
        data={key: value for key, value in data.items() if value},
        shown=_CLASSES_SHOWN,
        samples=[("split", "samples", *shown), *samples],
        metrics=metrics,
        scores=scores,
        others=sorted(set().union(*(score.get("all") or {} for score in scores.values()))),
        sources=_SOURCES,
        optimism=metric_sign(metrics["metric"]) * (values[0] - values[1]) if len(values) == 2 else None,
        costs=_list_costs(metrics.get("training") or {}, metrics.get("memory") or {}),
    )


def render_ensemble_card(joined: "FusedEnsemble", data: str, splits: Sequence[str]) -> str:
    """Writes the card of joined models, trained on `splits` of a data set; each member has a card of its own."""
    recipes = [member.recipe for member in joined.members]
    return _render_card(
        [(recipe.backbone, find_weights_licence(recipe.backbone) if recipe.pretrained else None) for recipe in recipes],
        "ensemble",
        joined=joined,
        folder="images/" if recipes[0].view.media == "image" else "clips/",
        members=_escape_text(", ".join(member.name for member in joined.members)),
        data={"name": data},
        splits=" + ".join(splits),
        metrics={},
    )


def find_weights_licence(backbone: str) -> str:
    """Finds the licence of a backbone's pretrained weights in the shipped tables, as timm and the hub write it.

    Such as `apache-2.0`; "unknown" for weights that they do not have. A name without a tag means the
    architecture's default weights.
    """
    table = load_backbones()
    licences = table.loc[table["model"] == _add_tag(backbone), "licence"]
    return (str(licences.iloc[0]) if len(licences) else "") or "unknown"


def _add_tag(backbone: str) -> str:
    """Adds the tag of its default weights to a backbone's name."""
    if "." in backbone:
        return backbone
    from timm.models import get_pretrained_cfg

    try:
        default = get_pretrained_cfg(backbone)
    except RuntimeError:  # an architecture that this timm does not know
        return backbone
    return f"{backbone}.{default.tag}" if default is not None and default.tag else backbone


def _render_card(backbones: Sequence[tuple[str, str | None]], kind: str, **values: Any) -> str:
    """Fills in the template; `backbones` with the licences of their weights, None for training from scratch."""
    from huggingface_hub import ModelCard, ModelCardData

    pretrained = dict(sorted({name: licence for name, licence in backbones if licence is not None}.items()))
    licences = ", ".join(sorted(set(pretrained.values())))
    known = licences in _HUB_LICENCES or licences == "unknown"
    bases = [f"timm/{_add_tag(name)}" for name in pretrained]
    front = ModelCardData(
        license=(licences if known else "other") if licences else None,
        license_name=None if known or not licences else licences,
        base_model=bases[0] if len(bases) == 1 else bases or None,
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "automl-timm", kind],
    )
    escapes: dict[str, Any] = {"text": _escape_text, "counts": _describe_counts, "table": _format_table}
    card = ModelCard.from_template(
        front,
        template_path=str(Path(__file__).with_name("card.md.jinja")),
        backbones=_escape_text(", ".join(name for name, _ in backbones)),
        licences=pretrained,
        **escapes,
        **values,
    )
    return f"{card.content}\n"


def _describe_choice(value: Any) -> str:
    """Describes a value of a recipe; of a part, its name and what is switched on in it; "" for one that is off."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, Part):
        return str(value)
    name = getattr(value, "name", "")
    if name == "none":
        return ""
    choices = ((key, item) for key, item in value if key not in ("name", "jpeg_min_quality") and item not in _OFF)
    inner = ", ".join(
        f"{key.replace('_', ' ')} {text}"
        for key, item in choices
        if not key.endswith("_min") and (text := _describe_choice(item))  # the bound of a step that may be off
    )
    return f"{name} ({inner})" if name and inner else name or inner


def _list_costs(training: Mapping[str, Any], memory: Mapping[str, Any]) -> list[str]:
    """Lists what the training needed, as far as it is known."""
    device = f" ({_escape_text(memory['device'])})" if memory.get("device") else ""
    costs = (
        (memory.get("predicted_bytes"), "peak memory of a training step, predicted: {}", format_bytes),
        (memory.get("measured_peak_bytes"), f"peak memory, measured: {{}}{device}", format_bytes),
        (training.get("seconds"), "training time: {}", format_seconds),
        (training.get("images_per_second"), "training images a second: {}", _describe_choice),
        (training.get("epochs"), "epochs: {}", _describe_choice),
        (training.get("steps"), "optimizer steps: {}", _describe_choice),
        (training.get("last_loss"), "last training loss: {}", _describe_choice),
    )
    return [text.format(describe(value)) for value, text, describe in costs if value is not None]


# --- text -------------------------------------------------------------------------------------------------------


def _escape_text(value: object) -> str:
    """Writes any value as plain Markdown text: one line, nothing in it is markup, a link or a cell border."""
    printable = "".join(char if char.isprintable() else " " for char in str(value))
    return re.sub(r"\s+", " ", printable).strip().translate(_SPECIAL)


def _format_table(rows: Iterable[Iterable[object]]) -> str:
    """Writes a table, the header first, in Markdown."""
    header, *cells = [[_escape_text(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells))


def _describe_counts(counts: object) -> str:
    """Writes `train 600 (real 300, fake 300), validation 200`, from a number or from mappings however deep."""
    if not isinstance(counts, Mapping):
        return _escape_text(counts)
    return ", ".join(
        f"{_escape_text(name)} " + (f"({_describe_counts(value)})" if isinstance(value, Mapping) else str(value))
        for name, value in counts.items()
    )
