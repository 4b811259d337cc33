"""Choosing rows of the leaderboard: wildcards, size, family, licence; and why nothing is left."""

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from automl.backbones.ranking import check_name
from automl.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd

COMMERCIAL_LICENCES = frozenset({"apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0"})
"""Licences of weights that allow commercial use, as timm and the hub write them."""


def select(
    table: "pd.DataFrame",
    names: Iterable[str] = ("*",),
    max_params: float | None = None,
    image_size: int | None = None,
    family: str | None = None,
    licence: str = "any",
) -> "pd.DataFrame":
    """Keeps the rows that pass every filter, in their order.

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

    Returns:
        The rows kept, perhaps none.

    Raises:
        SpecError: If the family or the licence is not a valid name, or a number is not positive.
    """
    kept = table
    for mask in filters(table, names, max_params, image_size, family, licence).values():
        kept = kept[mask[kept.index]]
    return kept.reset_index(drop=True)


def filters(
    table: "pd.DataFrame",
    names: Iterable[str] = ("*",),
    max_params: float | None = None,
    image_size: int | None = None,
    family: str | None = None,
    licence: str = "any",
) -> "dict[str, pd.Series[bool]]":
    """One boolean column per filter that is set, by the filter's name as a person would write it; see `select`."""
    patterns = tuple(names)
    for label, number in (("--max-params", max_params), ("--image-size", image_size)):
        if number is not None and not number > 0:
            raise SpecError(f"{label} must be positive, got {number}")
    check_name("licence filter", licence, ("any", "commercial"))
    masks: dict[str, pd.Series[bool]] = {}
    if patterns and "*" not in patterns:
        masks[f"names {' '.join(patterns)}"] = table["model"].map(lambda model: _matches(model, patterns)).astype(bool)
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


def unmatched(table: "pd.DataFrame", names: Iterable[str]) -> list[str]:
    """Lists the names and wildcards that match no row.

    Args:
        table: Rows with the columns of `load_table`.
        names: As for `select`.
    """
    models = list(dict.fromkeys(table["model"]))
    return [name for name in names if not any(_matches(model, (name,)) for model in models)]


def emptied_by(table: "pd.DataFrame", masks: "Mapping[str, pd.Series[bool]]") -> str | None:
    """Says which filter, applied in order, leaves no row, and what would be left without it.

    Args:
        table: The rows that the masks index, of the columns of `load_table`.
        masks: As from `filters`; others may be added.

    Returns:
        One line for a person, or None if rows are left.
    """
    left = table
    passed: list[str] = []
    for label, mask in masks.items():
        before, left = left, left[mask[left.index]]
        if left.empty:
            after = f"after {', '.join(passed)} " if passed else ""
            return f"no backbone matches: {after}{len(before):,} rows are left, and {label} keeps none" + _hint(
                before, label
            )
        passed.append(label)
    return None


def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    architecture = model.partition(".")[0]
    return any(fnmatchcase(model, pattern) or fnmatchcase(architecture, pattern) for pattern in patterns)


def _hint(rows: "pd.DataFrame", label: str) -> str:
    """What the rows before a filter would have offered it."""
    option, _, value = label.partition(" ")
    if rows.empty:
        return ""
    if option == "names":
        architectures = sorted({model.partition(".")[0] for model in rows["model"]})
        near = difflib.get_close_matches(value.replace("*", ""), architectures, n=3, cutoff=0.4)
        return f"; near: {', '.join(near)}" if near else "; wildcards are like 'convnext*' or '*.fb_in22k*'"
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
