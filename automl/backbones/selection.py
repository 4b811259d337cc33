"""Chooses backbones of the shipped tables by wildcards, size, family and licence, and explains why nothing is left."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from automl.backbones.encoders import load_encoders
from automl.backbones.table import load_table
from automl.errors import PoolError, SpecError, check_name, find_near_names
from automl.units import format_count

if TYPE_CHECKING:
    import pandas as pd

COMMERCIAL_LICENCES = frozenset({"apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0"})
"""Licences of weights that allow commercial use, as timm and the hub write them."""


def select_rows(table: "pd.DataFrame", names: Iterable[str] = ("*",), **limits: Any) -> "pd.DataFrame":
    """Keeps the rows that pass every filter of `build_filters`, in their order; perhaps none."""
    for mask in build_filters(table, names, **limits).values():
        table = table[mask[table.index]]
    return table.reset_index(drop=True)


def build_filters(
    table: "pd.DataFrame",
    names: Iterable[str] = ("*",),
    max_params: float | None = None,
    image_size: int | None = None,
    family: str | None = None,
    licence: str = "any",
) -> "dict[str, pd.Series[bool]]":
    """Makes one boolean column for each filter that is set, by the filter as a user writes it.

    Args:
        table: Rows with the columns of `load_table`; ranked or not.
        names: Wildcards as `timm.list_models` writes them (`convnext*`, `*.fb_in22k*`); a row is kept if one of them
            matches its `arch` or its `arch.tag`.
        max_params: Most parameters, in millions.
        image_size: The side of the evaluated image in pixels, exactly.
        family: timm's module name, such as `convnext`, `efficientnet` or `eva`.
        licence: `any`, or `commercial`: only weights whose licence in timm is known to allow commercial use
            (`COMMERCIAL_LICENCES`). Non-commercial, vendor-specific, "unknown" and missing licences are left out. The
            terms of the pretraining images are another matter, which no table settles.

    Raises:
        SpecError: If the family or the licence is not a valid name, or a number is not positive.
    """
    patterns = tuple(names)
    for label, number in (("--max-params", max_params), ("--image-size", image_size)):
        if number is not None and not number > 0:
            raise SpecError(f"{label} must be positive, got {number}")
    check_name("licence filter", licence, ("any", "commercial"))
    masks: dict[str, pd.Series[bool]] = {}
    if patterns and "*" not in patterns:
        matches = table["model"].map(lambda model: _matches_name(model, patterns))
        masks[f"names {' '.join(patterns)}"] = matches.astype(bool)
    if family is not None:
        check_name("family", family, set(table["family"]))
        masks[f"--family {family}"] = table["family"] == family
    if licence == "commercial":
        masks["--licence commercial"] = table["licence"].isin(COMMERCIAL_LICENCES)
    if image_size is not None:
        masks[f"--image-size {image_size}"] = table["image_size"] == image_size
    if max_params is not None:
        masks[f"--max-params {max_params:g}"] = table["params_m"] <= max_params
    return masks


def find_unmatched(table: "pd.DataFrame", names: Iterable[str]) -> list[str]:
    """Lists the names and wildcards (as for `build_filters`) that match no row of a table."""
    models = list(dict.fromkeys(table["model"]))
    return [name for name in names if not any(_matches_name(model, (name,)) for model in models)]


def explain_no_rows(table: "pd.DataFrame", masks: "Mapping[str, pd.Series[bool]]") -> str | None:
    """Explains which filter of `build_filters`, applied in order, leaves no row; None if rows are left."""
    left = table
    passed: list[str] = []
    for label, mask in masks.items():
        before, left = left, left[mask[left.index]]
        if left.empty:
            after = f"after {', '.join(passed)} " if passed else ""
            left_over = f"{format_count(len(before), 'row')} {'is' if len(before) == 1 else 'are'} left"
            why = f"{after}{left_over}, and {label} keeps none"
            return f"no backbone matches: {why}{_suggest_value(before, label)}"
        passed.append(label)
    return None


def find_backbones(names: Iterable[str]) -> list[str]:
    """Finds the backbones that names mean: timm's own, or what matches a wildcard; each once.

    A wildcard stands for backbones of the leaderboard; where it matches none of them, for encoders.

    Raises:
        RecipeError: If timm has no such backbone, with the nearest names.
        PoolError: If no backbone matches a wildcard.
    """
    from automl.backbones.timm_model import check_backbone  # imports torch

    backbones: dict[str, None] = {}
    for name in names:
        if not set(name) & set("*?["):
            check_backbone(name)
            backbones[name] = None
            continue
        table = load_table()
        if find_unmatched(table, [name]) and not find_unmatched(encoders := load_encoders(), [name]):
            table = encoders
        if why := explain_no_rows(table, build_filters(table, [name])):
            raise PoolError(why)
        backbones |= dict.fromkeys(select_rows(table, [name])["model"])
    return list(backbones)


def suggest_backbones(name: str, models: Iterable[str]) -> str:
    """Writes `; near: x, y` for a name or wildcard that matches no backbone, or nothing where none is near."""
    near = find_near_names(name, sorted({model.partition(".")[0] for model in models}))
    return f"; near: {', '.join(near)}" if near else ""


def _matches_name(model: str, patterns: tuple[str, ...]) -> bool:
    architecture = model.partition(".")[0]
    return any(fnmatchcase(model, pattern) or fnmatchcase(architecture, pattern) for pattern in patterns)


def _suggest_value(rows: "pd.DataFrame", label: str) -> str:
    """Lists what the rows before a filter have, which it could ask for."""
    option, _, value = label.partition(" ")
    if rows.empty:
        return ""
    if option == "names":
        return suggest_backbones(value, rows["model"]) or "; wildcards are like 'convnext*' or '*.fb_in22k*'"
    if option == "--max-params":
        return f"; the smallest has {rows['params_m'].min():g} million parameters"
    if option == "--gpu-mem" and "gpu_gb" in rows and rows["gpu_gb"].notna().any():
        least = rows.sort_values("gpu_gb").iloc[0]
        return f"; the smallest, {least['model']} at {least['image_size']} pixels, needs {least['gpu_gb']:.2f}GB"
    column = {"--family": "family", "--image-size": "image_size", "--licence": "licence"}.get(option)
    if column is None:
        return ""
    offered = [str(item) or "(none)" for item in sorted(rows[column].unique())]
    return f"; they have: {', '.join(offered)}"
