"""How much worse models are on degraded copies: a score for each degradation, and one robust score.

The robust score is the mean of the metric over the degradations, each counted once (as the mean corruption error of
Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR, is
a mean over corruptions), and beside it stands the worst one.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.data.splits import choose_of_each_class
from automl.degradations.copies import degrade_files
from automl.degradations.degradation import Degradation, choose_degradations, load_degradations
from automl.errors import DataError, SpecError, shorten
from automl.evaluation.measures import Value, measure_metrics, sign_of
from automl.evaluation.predictions import predict_samples
from automl.evaluation.samples import LabelledSamples
from automl.files import cache_dir
from automl.models.predict import Model
from automl.reporter import Progress, Reporter, end_at_interrupt
from automl.units import format_count, format_seconds

Floats = NDArray[np.floating[Any]]

_LEAST = 5  # samples of each class that are taken, if there are so many
_SHOWN = 3
_SURE_SECONDS, _LONG_SECONDS = 10.0, 120.0  # of copying: after which its pace is known, and what is long


@dataclass(frozen=True)
class DegradedScores:
    """Models on copies with one degradation."""

    name: str
    samples: int
    failed: dict[str, str]
    """Files without a copy that can be read, and why; they are left out here."""
    metrics: tuple[Value | None, ...]
    """Of each model; None where it cannot be computed."""
    drops: tuple[float | None, ...]
    """How much worse each model is than on the same files as they are; negative: better."""


@dataclass(frozen=True)
class Robustness:
    """Models on degraded copies."""

    samples: int
    """How many were degraded."""
    of: int
    """How many there are."""
    clean: tuple[Value | None, ...]
    """The metric on these samples as they are, of each model."""
    degradations: tuple[DegradedScores, ...]
    mean: tuple[float | None, ...]
    """The robust score: the mean over the degradations, of each model."""
    worst: tuple[str | None, ...]
    """The degradation that each model is worst on."""
    worst_values: tuple[float | None, ...]


def read_degradations(wanted: str | Path) -> Sequence[Degradation]:
    """Reads degradations: `all` that ship, a YAML file of them, or a name or wildcard of those that ship.

    Raises:
        SpecError: If the file has mistakes, or the name means none.
    """
    text = str(wanted)
    if text == "all":
        return load_degradations()
    if Path(text).expanduser().is_file() or Path(text).suffix in (".yaml", ".yml"):
        return load_degradations(Path(text).expanduser())
    return choose_degradations([text])


def keep_fitting(
    known: Sequence[Degradation], wanted: str | Path, samples: LabelledSamples, models: Sequence[Model]
) -> list[Degradation]:
    """Keeps the degradations that can be applied to the samples and change what a model looks at.

    Raises:
        SpecError: If none of those that are `wanted` does.
    """
    seen = {member.folder.recipe.view.media for model in models for member in model.members}
    fitting = [one for one in known if one.medium in seen and samples.media in one.applies_to]
    if not fitting:
        names = shorten([one.name for one in known], 10)
        raise SpecError(f"--degrade {wanted}: none of its degradations is for {samples.media} files: {names or 'none'}")
    return fitting


def choose_rows(labels: NDArray[np.integer[Any]], wanted: int) -> NDArray[np.int64]:
    """Chooses samples at random, as many of each class in proportion, and at least 5 of it if there are so many.

    Raises:
        SpecError: If `wanted` is less than 1.
    """
    if wanted < 1:
        raise SpecError(f"--degrade-samples {wanted}: give 1 or more")
    return choose_of_each_class(labels, wanted, _LEAST)


def measure_robustness(
    models: Sequence[Model],
    names: Sequence[str],
    samples: LabelledSamples,
    clean: Sequence[Floats],
    degradations: Sequence[Degradation],
    *,
    classes: Sequence[str],
    positive: int,
    metric: str,
    wanted: int,
    tta: str,
    reporter: Reporter,
) -> Robustness:
    """Measures models on degraded copies of the samples, which lie in the cache's folder until they are scored.

    Args:
        models: The models, and `names` what they are called.
        names: As above.
        samples: The samples.
        clean: What each model predicts of them as they are, (N, C).
        degradations: What is done to them.
        classes: Names of the classes, in the order of the probabilities.
        positive: The positive class, where there are two.
        metric: What is measured.
        wanted: How many samples are degraded, at most.
        tta: As for `Model.predict`.
        reporter: Receives what is done.
    """
    rows = choose_rows(samples.labels, wanted)
    some, predictions = samples.take_rows(rows), [each[rows] for each in clean]
    reporter.print_line(
        f"degrading {len(rows)} of {format_count(len(samples.table), 'sample')} in "
        f"{format_count(len(degradations), 'way')}; the copies lie in {cache_dir()} and are removed when scored"
    )
    announce, scored = _AnnounceTime(reporter, len(rows) * len(degradations)), []
    for degradation in degradations:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with (
            end_at_interrupt(reporter, "stopping: nothing is written; the copies are removed"),
            tempfile.TemporaryDirectory(prefix="degraded-", dir=cache_dir()) as folder,
        ):
            with reporter.show_progress(f"{degradation.name}: copying") as progress:
                sources = [Path(path) for path in some.table["path"]]
                copies = degrade_files(sources, degradation, Path(folder), announce.follow(progress))
            failed = {row: str(copy) for row, copy in enumerate(copies) if isinstance(copy, DataError)}
            copied = np.setdiff1d(np.arange(len(copies)), list(failed))
            scores = [np.zeros((len(copies), len(classes))) for _ in models]
            degraded = some.take_rows(copied)
            degraded.table["path"] = [str(copies[row]) for row in copied]
            for name, model, score in zip(names, models, scores, strict=True):
                with reporter.show_progress(f"{degradation.name}: predicting with {name}") as progress:
                    predicted = predict_samples(model, classes, degraded, tta, progress)
                score[copied] = predicted.probabilities
                if samples.media == "image":  # a clip that shows nothing has the training prior, as everywhere
                    failed |= {int(copied[row]): why for row, why in predicted.problems.items()}
        scored.append(_score_copies(degradation.name, some, predictions, scores, failed, positive, metric))
        values = zip(names, scored[-1].metrics, strict=True)
        shown = ", ".join(f"{name} {value.value:.4f}" for name, value in values if value is not None)
        reporter.print_line(f"{degradation.name} ({len(scored)} of {len(degradations)}): {metric} {shown or 'none'}")
        if failed:
            shown = shorten([f"{some.table['name'][row]} ({why})" for row, why in failed.items()], _SHOWN, "; ")
            reporter.print_line(f"warning: {degradation.name}: no copy of {format_count(len(failed), 'file')}: {shown}")
    return _sum_up(scored, some, predictions, positive, metric, len(samples.table))


class _AnnounceTime:
    """Announces once, after the first copies, how long all of them will take, if that is long."""

    def __init__(self, reporter: Reporter, copies: int) -> None:
        self._reporter, self._copies, self._started = reporter, copies, time.monotonic()
        self._announced = False

    def follow(self, progress: Progress) -> Progress:
        """Returns a callback that passes on what is done."""

        def pass_on(done: int, total: int) -> None:
            progress(done, total)
            spent = time.monotonic() - self._started
            if self._announced or not done or spent < _SURE_SECONDS:
                return
            self._announced = True
            if (whole := spent / done * self._copies) > _LONG_SECONDS:
                self._reporter.print_line(
                    f"making {format_count(self._copies, 'copy', 'copies')} takes about {format_seconds(whole)} if all "
                    "take as long as the first ones; --degrade-samples and --degrade NAME make fewer"
                )

        return pass_on


def _score_copies(
    name: str,
    samples: LabelledSamples,
    clean: Sequence[Floats],
    scores: Sequence[Floats],
    failed: dict[int, str],
    positive: int,
    metric: str,
) -> DegradedScores:
    """Measures what was predicted of copies, beside the same files as they are."""
    kept = np.setdiff1d(np.arange(len(samples.table)), list(failed))
    values, drops = list[Value | None](), list[float | None]()
    for before, after in zip(clean, scores, strict=True):
        value = _measure(samples.take_rows(kept), after[kept], positive, metric)
        reference = _measure(samples.take_rows(kept), before[kept], positive, metric)
        values.append(value)
        drops.append(sign_of(metric) * (reference.value - value.value) if value and reference else None)
    reasons = {str(samples.table["name"][row]): why for row, why in sorted(failed.items())}
    return DegradedScores(name, len(kept), reasons, tuple(values), tuple(drops))


def _measure(samples: LabelledSamples, probabilities: Floats, positive: int, metric: str) -> Value | None:
    """Measures one metric; None where it cannot be computed."""
    if not len(probabilities):
        return None
    return measure_metrics(samples.labels, probabilities, positive, samples.groups, [metric]).values.get(metric)


def _sum_up(
    scored: Sequence[DegradedScores],
    samples: LabelledSamples,
    clean: Sequence[Floats],
    positive: int,
    metric: str,
    total: int,
) -> Robustness:
    """Computes the mean over degradations, and finds the worst one."""
    means, worst, values = list[float | None](), list[str | None](), list[float | None]()
    for k in range(len(clean)):
        known = [(one.name, value.value) for one in scored if (value := one.metrics[k]) is not None]
        means.append(float(np.mean([value for _, value in known])) if known else None)
        lowest = min(known, key=lambda pair: sign_of(metric) * pair[1], default=(None, None))
        worst.append(lowest[0])
        values.append(lowest[1])
    reference = tuple(_measure(samples, each, positive, metric) for each in clean)
    return Robustness(len(samples.table), total, reference, tuple(scored), tuple(means), tuple(worst), tuple(values))
