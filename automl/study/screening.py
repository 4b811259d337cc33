"""Screening: the pool in the order of what its backbones' frozen features tell of the study's own images.

The leaderboards rank backbones on ImageNet, and most encoders not at all. A linear probe on the features of a few
hundred training images ranks them on the task itself, in a stated share of the time (`automl.features.screening`).
"""

import math
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from typing import Any

from automl.devices import is_gpu
from automl.features.screening import Candidate, ScreeningRow, screen_backbones
from automl.recipe import Recipe
from automl.spec import StudySpec
from automl.study.pool import Pool, PoolEntry
from automl.study.setup import StudySetup, StudyViews
from automl.study.spaces import list_views, usual_image_size
from automl.units import format_seconds

SHARE = 0.08
"""Of the time that a study has, at most."""

_LONGEST_SECONDS = 600.0
"""However much time there is: more images tell little more."""

_SHORTEST_SECONDS = 3.0
"""For a backbone: in less, its network is not even built and warm."""


def plan_screening(spec: StudySpec, pool: Pool) -> float:
    """Plans how many seconds the pool is screened for; 0: not at all.

    Without `screening` in the spec it is where the order of the pool is not known: where an encoder is in it that no
    leaderboard ranks.
    """
    with_weights = [entry for entry in pool.entries if entry.weights is not None]
    wanted = spec.screening if spec.screening is not None else any(entry.score is None for entry in with_weights)
    if not wanted or len(with_weights) < 2:
        return 0.0
    seconds = min(_LONGEST_SECONDS, SHARE * spec.budget.timeout if spec.budget.timeout else _LONGEST_SECONDS)
    return seconds if seconds >= _SHORTEST_SECONDS * len(with_weights) else 0.0


def screen_pool(
    setup: StudySetup, device: str, seconds: float, print_line: Callable[[str], None]
) -> tuple[Pool, list[ScreeningRow]]:
    """Screens a pool on the study's training images, and puts it into that order.

    On a GPU another process does it, because this one never uses CUDA.

    Returns:
        The pool, the most promising backbone first, and a row for each of its backbones, in its order.

    Raises:
        DataError: If the training split has no image through the first view of the space.
    """
    if is_gpu(device):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            rows = process.submit(_screen, setup, device, seconds).result()
    else:
        rows = _screen(setup, device, seconds, print_line)
    ranks = {row.backbone: rank for rank, row in enumerate(rows)}
    entries = sorted(setup.pool.entries, key=lambda entry: ranks.get(entry.backbone, len(ranks)))
    return replace(setup.pool, entries=tuple(entries)), rows


def _screen(
    setup: StudySetup, device: str, seconds: float, print_line: Callable[[str], None] = lambda _: None
) -> list[ScreeningRow]:
    """Screens the pool in this process."""
    view = list_views(setup.space)[0]
    data = StudyViews(setup, device).open_view(view)
    usual = usual_image_size(setup.space)
    candidates = [
        Candidate(describe_input(entry, view, usual), entry.locate_weights(), _time_image(entry, usual))
        for entry in setup.pool.entries
    ]
    return screen_backbones(candidates, data, device, seconds, print_line=print_line)


def describe_input(entry: PoolEntry, view: Any, image_size: int) -> Recipe:
    """Describes how a backbone is shown images: as the known-good recipes show them, whole."""
    return Recipe.from_mapping(
        {
            "backbone": entry.backbone,
            "view": view,
            "image_size": entry.restriction.nearest_size(image_size),
            "augmentation": {"crop": {"name": "squash"}},
            "numerics": entry.timing.numerics(),
        }
    )


def _time_image(entry: PoolEntry, image_size: int) -> float:
    """Returns the seconds of a forward pass of one image."""
    return entry.timing.scale_to(entry.restriction.nearest_size(image_size)).evaluation_seconds


def store_rows(rows: list[ScreeningRow]) -> list[dict[str, Any]]:
    """Returns the rows as plain data, to be stored with the study."""
    return [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(row).items()}
        for row in rows
    ]


def describe_rows(rows: list[ScreeningRow], metric: str, spent_seconds: float, budget_seconds: float) -> Iterator[str]:
    """Yields lines for a person: one a backbone, and what it cost."""
    for rank, row in enumerate(rows):
        if math.isnan(row.score):
            yield f"screened {rank}: {row.backbone} · not scored: {row.reason}"
            continue
        cut = " · cut early" if row.cut_early else ""
        layer = f"best layer {row.best_layer} · nearest neighbours {row.knn_score:.3f}"
        yield (
            f"screened {rank}: {row.backbone} · {metric} of a linear probe {row.score:.3f} ± {row.standard_error:.3f} "
            f"on {row.images} images · {layer} · {format_seconds(row.seconds)}{cut}"
        )
    yield (
        f"screening took {format_seconds(spent_seconds)} of {format_seconds(budget_seconds)} allowed: the pool is in "
        "that order; --no-screening keeps the leaderboard's"
    )
