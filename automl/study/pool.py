"""The pool: the backbones that fit the budgets, best leaderboard score first, then encoders; frozen into the study.

A backbone that does not fit leaves before sampling: with half of 20 backbones too big, 35 of 50 trials were wasted
when such trials failed, and 17.5 when they were pruned. On a GPU, memory is predicted first, and what is predicted to
fit is measured, each backbone in a fresh process; this process never uses CUDA itself.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from automl.backbones.capabilities import find_capabilities
from automl.backbones.capability_table import Capabilities
from automl.backbones.tuning import has_attention
from automl.backbones.weights import Weights, digest_weights
from automl.devices import give_freed_memory_back, is_gpu, keep_freed_memory
from automl.errors import MemoryBudgetError, PoolError, RecipeError, WeightsError, shorten
from automl.gpu.probe import CannotProbe, memory_factor, probe_backbone
from automl.memory.estimate import CONTEXT_BYTES, estimate_training, largest_micro_batch, limit_for_prediction
from automl.memory.table import find_nearest
from automl.processes import cpu_threads
from automl.recipe import Numerics, Recipe
from automl.space.restriction import Restriction
from automl.spec import StudySpec
from automl.study.candidates import Candidate, Candidates, find_candidates, step_cost
from automl.training.precision import Timing, best_numerics, is_timed
from automl.units import format_bytes, format_seconds

_SHOWN = 3
"""Names in a message."""

_CPU_GMACS_PER_CORE = 100.0
"""No CPU core does more fp32 GMAC/s; a backbone that would be too slow even so is not built to be timed."""

_TIMING_SECONDS = 3.0
"""For timing the backbones of a pool on a CPU before the first trial; what is left is timed when a trial draws it."""

_PREDICTED_WITHIN = 2.0
"""A predicted training step takes at most so many times as long as a timed one, or as short (there, too)."""

_LEAST_BYTES_PER_PARAM = 12.0
"""fp32 weights, gradients and one state of the optimizer: no training step needs less."""


_BYTES_PER_FROZEN_PARAM = 4.0
"""fp32 weights: where a part is trained, no training step needs less."""


@dataclass(frozen=True)
class PoolLimits:
    """What a backbone must fit."""

    memory_bytes: int | None
    """For one training step; None: no limit."""
    trial_seconds: float | None
    """For one trial; None: no limit."""
    min_epochs: float
    """Epochs of the shortest trial the space can draw."""
    image_sizes: tuple[int, ...]
    """What the space can draw, in pixels, ascending."""
    reference_image_size: int
    """Where backbones are timed, and compared."""
    max_batch_size: int
    train_images: int
    tunes: tuple[str, ...] = ("all",)
    """How much of a network the space can train, by the names of a recipe's `tune`."""

    def at_sizes(self, image_sizes: tuple[int, ...]) -> "PoolLimits":
        """Narrows them to the image sizes of one backbone, ascending."""
        if image_sizes == self.image_sizes:
            return self
        reference = min(image_sizes, key=lambda size: abs(size - self.reference_image_size))
        return replace(self, image_sizes=image_sizes, reference_image_size=reference)


@dataclass(frozen=True)
class MemoryNeed:
    """The GPU memory that a backbone needs."""

    peak_bytes: int
    """For the space's largest image size and batch or, if that does not fit, for the smallest step; measured, or
    predicted."""
    fits_all: bool
    """Whether the largest fits the memory budget without accumulation."""
    measured: bool = False
    """Whether real steps were measured on the study's GPU; else memory is predicted."""
    predicted_bytes: int | None = None
    """For the same step as `peak_bytes`, where that was measured."""
    micro_batch: int | None = None
    """Images that fit at once, as measured at the space's largest image size and batch; 0: not even the fewest."""
    accumulation: int | None = None
    """Micro-batches of that size in a step."""
    memory_factor: float = 1.0
    """Measured memory beside the CUDA context, as a multiple of the predicted; at least 1."""
    context_bytes: int = CONTEXT_BYTES
    """The CUDA context and cuBLAS's workspaces, as measured; else as assumed."""

    def prediction_limit(self, memory_bytes: int) -> int:
        """Returns the limit for `largest_micro_batch` under which the prediction agrees with what was measured."""
        return limit_for_prediction(memory_bytes, self.context_bytes, self.memory_factor)

    def describe(self, memory_bytes: int | None) -> str:
        """Describes the need within the study's budget in a few words for a person."""
        need = f"needs at {'most' if self.fits_all else 'least'} {format_bytes(self.peak_bytes)}"
        if not self.measured:
            return need
        predicted = self.predicted_bytes
        notes = ["measured" if predicted is None else f"measured; {format_bytes(predicted)} predicted"]
        if memory_bytes is not None:
            notes.append(f"{format_bytes(memory_bytes - self.peak_bytes)} of {format_bytes(memory_bytes)} left")
        if self.micro_batch:
            notes.append(f"its largest step {self.micro_batch} × {self.accumulation} images")
        return f"{need} ({'; '.join(notes)})"


@dataclass(frozen=True)
class PoolEntry:
    """A backbone in the pool, with what it needs and what it can do."""

    backbone: str
    family: str
    score: float | None
    """Of the leaderboards; None: an encoder, which none of them ranks."""
    params_m: float
    weights: str | None
    """`file`, `cache` or `hub`; None: from scratch."""
    weights_path: str | None
    memory: MemoryNeed
    timing: Timing
    image_sizes: tuple[int, ...] = ()
    """The only image sizes that it runs at, with its weights if it has them; none: all of the space's."""
    drop_path: bool = True
    """Whether it has stochastic depth."""
    tunes: tuple[str, ...] = ()
    """The only parts of it that can be trained within the memory budget; none: all of the space's."""
    weights_digest: str = ""
    """Of the file of its weights; "": it was not on the machine that began the study."""

    @property
    def restriction(self) -> Restriction:
        """What the search space may not draw for it."""
        return Restriction(self.image_sizes, self.drop_path, self.tunes)

    def locate_weights(self) -> Weights | None:
        """Returns where the weights are; None: it is trained from scratch."""
        if self.weights is None:
            return None
        return Weights(self.weights, Path(self.weights_path) if self.weights_path else None)  # type: ignore[arg-type]

    def describe_score(self) -> str:
        """Describes the score for a person."""
        return "no score" if self.score is None else f"score {self.score:+.2f}"

    def describe_limits(self) -> str:
        """Describes what it cannot do of what the space can draw; mostly nothing."""
        sizes = f"only at {', '.join(map(str, self.image_sizes))} px" if self.image_sizes else ""
        tunes = f"tune only {', '.join(self.tunes)}" if self.tunes else ""
        return "; ".join(filter(None, (sizes, "" if self.drop_path else "no drop path", tunes)))


@dataclass(frozen=True)
class Pool:
    """Backbones by rank: 0 is the leaderboard's best; encoders, which it does not rank, come last."""

    entries: tuple[PoolEntry, ...]
    notes: tuple[str, ...] = ()
    """What a person should know, one line each."""

    def fastest_rank(self) -> int:
        """Returns the rank of the backbone with the shortest training step."""
        return min(range(len(self.entries)), key=lambda i: self.entries[i].timing.train_seconds)

    def affordable_rank(self, image_size: int, images: float, limit_seconds: float | None) -> int:
        """Returns the rank of the best backbone that trains on so many images in time; without a limit, a middle one.

        A seventh of the limit is left for validation and for what was timed too fast.
        """
        seconds = [
            entry.timing.scale_to(entry.restriction.nearest_size(image_size)).train_seconds * images / 0.85
            for entry in self.entries
        ]
        if limit_seconds is None:
            return sorted(range(len(seconds)), key=seconds.__getitem__)[len(seconds) // 2]
        return next((rank for rank, needed in enumerate(seconds) if needed <= limit_seconds), self.fastest_rank())

    def find_entry(self, name: str) -> PoolEntry | None:
        """Finds the entry of a backbone, with or without its weights tag; None where there is none."""
        exact = (entry for entry in self.entries if entry.backbone == name)
        untagged = (entry for entry in self.entries if entry.backbone.split(".")[0] == name)
        return next(exact, None) or next(untagged, None)

    def entry_of(self, drawn: int | str) -> PoolEntry:
        """Returns the entry that a search space draws: by its rank, or by the name that the space gives it."""
        entry = self.entries[drawn] if isinstance(drawn, int) else self.find_entry(drawn)
        if entry is None:
            raise RecipeError(f"the search space names {drawn}, which is not in the pool")
        return entry

    def to_json(self) -> list[dict[str, Any]]:
        """Returns plain data, to be stored with the study: a flat row an entry."""
        rows = [asdict(entry) for entry in self.entries]
        return [row | row.pop("memory") for row in rows]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> "Pool":
        """Reads what `to_json` wrote, also rows of earlier versions, which have fewer keys."""
        needs = {item.name for item in fields(MemoryNeed)}
        entries = []
        for row in rows:
            need = MemoryNeed(**{name: value for name, value in row.items() if name in needs})
            own = {name: value for name, value in row.items() if name not in needs}
            own |= {"timing": Timing(**row["timing"])}
            own |= {name: tuple(row.get(name, ())) for name in ("image_sizes", "tunes")}
            entries.append(PoolEntry(memory=need, **own))
        return cls(tuple(entries))


# --- memory -------------------------------------------------------------------------------------------------------


def largest_step(backbone: str, limits: PoolLimits) -> Recipe:
    """Makes the step that needs most memory."""
    size, batch = limits.image_sizes[-1], limits.max_batch_size
    return Recipe(backbone=backbone, image_size=size, batch_size=batch, ema_decay=0.99)


def smallest_step(backbone: str, limits: PoolLimits, numerics: Numerics | None = None, tune: str = "") -> Recipe:
    """Makes the step that needs least memory; with `tune`, where so much of the network is trained."""
    tune = tune or min(limits.tunes, key=_BY_MEMORY.index)
    values = {"backbone": backbone, "image_size": limits.image_sizes[0], "batch_size": 2, "tune": {"name": tune}}
    return Recipe.from_mapping(values | {"numerics": numerics or Numerics()})


def find_affordable_tunes(backbone: str, limits: PoolLimits, need: "MemoryNeed", classes: int) -> tuple[str, ...]:
    """Finds how much of a network can be trained within the memory budget; none: as much as the space can draw."""
    limit = limits.memory_bytes
    if need.fits_all or limit is None or len(limits.tunes) == 1:
        return ()
    limit = need.prediction_limit(limit)
    fitting = tuple(
        tune for tune in limits.tunes if estimate_training(smallest_step(backbone, limits, tune=tune), classes) <= limit
    )
    return fitting if len(fitting) < len(limits.tunes) else ()


_BY_MEMORY = ("head", "last", "norms", "lora", "all")
"""The branches of `tune`, that which needs least memory first."""

_TABLE_MARGIN = 1.15
"""Between the shipped table's figure, brought to another image size, and what a trace says."""


def look_up_largest_step(backbone: str, limits: PoolLimits, params_m: float) -> int | None:
    """Looks the memory of a study's largest step up in the shipped table, at the nearest size that it has.

    Counted is a moving average of the weights, too. Returns bytes; None where the table has no figure, or a weak one.
    """
    size = limits.image_sizes[-1]
    row = find_nearest(backbone.partition(".")[0], size)
    needed = None if row is None else row.needed_bytes_at("fp32", limits.max_batch_size, size)
    return None if needed is None else CONTEXT_BYTES + int(4e6 * params_m) + needed


def predict_need(backbone: str, limits: PoolLimits, classes: int, params_m: float = float("nan")) -> MemoryNeed:
    """Predicts the largest step of a study and, where that does not fit, the smallest.

    With the parameters in millions: from the shipped table where that leaves no doubt, which takes no time.
    """
    limit = limits.memory_bytes
    known = None if math.isnan(params_m) else look_up_largest_step(backbone, limits, params_m)
    if known is not None and (limit is None or _TABLE_MARGIN * known <= limit):
        return MemoryNeed(known, fits_all=True)
    peak = estimate_training(largest_step(backbone, limits), classes)
    if limit is None or peak <= limit:
        return MemoryNeed(peak, fits_all=True)
    return MemoryNeed(estimate_training(smallest_step(backbone, limits), classes), fits_all=False)


def measure_need(
    backbone: str, limits: PoolLimits, memory_bytes: int, classes: int, device: str
) -> tuple[MemoryNeed, Timing | None] | None:
    """Measures the largest step of a study on its GPU and, where no part of that fits, the smallest.

    Returns:
        The need, and the timing where it was taken; None if not even the smallest step fits.

    Raises:
        CannotProbe: If nothing can be measured here.
        RecipeError: If a step fails for another reason than memory.
    """
    recipe = largest_step(backbone, limits)
    measurement = probe_backbone(recipe, classes, device, memory_bytes, timed_image_size=limits.reference_image_size)
    recipe = measurement.apply_numerics(recipe)
    timing, micro = measurement.timing, measurement.micro_batch
    if micro == 0:
        recipe = smallest_step(backbone, limits, recipe.numerics)
        measurement = probe_backbone(recipe, classes, device, memory_bytes)
    if measurement.micro_batch == 0:
        return None
    factor = max(1.0, memory_factor(recipe, classes, measurement))
    fits_all = micro >= limits.max_batch_size
    reported = recipe if fits_all else smallest_step(backbone, limits, recipe.numerics)
    predicted = estimate_training(reported, classes)
    step = measurement.largest
    if step is not None and measurement.image_size == reported.image_size and step.batch == reported.batch_size:
        peak_bytes = measurement.context_bytes + step.allocated  # the workspace is a part of this
    else:  # another step was measured, and corrects this one's prediction
        peak_bytes = measurement.base_bytes + int(factor * (predicted - CONTEXT_BYTES))
    need = MemoryNeed(
        peak_bytes=peak_bytes,
        fits_all=fits_all,
        measured=True,
        predicted_bytes=predicted,
        micro_batch=micro,
        accumulation=-(-limits.max_batch_size // micro) if micro else 0,
        memory_factor=factor,
        context_bytes=measurement.base_bytes,
    )
    return need, timing


def fit_within_memory(
    recipe: Recipe, entry: PoolEntry | None, classes: int, memory_bytes: int | None, *, trust_pool: bool = True
) -> Recipe:
    """Splits a recipe's batch so that a micro-batch fits the memory budget; the effective batch stays.

    A micro-batch of the recipe's own that is small enough stays. Without an entry the plain prediction decides; what it
    knows to fit does, if the pool is to be trusted: the budget is the study's, and the recipe one that it drew.

    Raises:
        MemoryBudgetError: If not even the smallest micro-batch fits.
    """
    if memory_bytes is None or (trust_pool and entry is not None and entry.memory.fits_all):
        return recipe
    limit_bytes = memory_bytes if entry is None else entry.memory.prediction_limit(memory_bytes)
    micro = largest_micro_batch(recipe, classes, limit_bytes)
    if micro == 0:
        limit = format_bytes(memory_bytes)
        raise MemoryBudgetError(f"{recipe.backbone} at {recipe.image_size} px does not fit {limit} at any batch size")
    if micro >= (recipe.numerics.micro_batch_size or recipe.batch_size):
        return recipe
    return recipe.with_numerics(micro_batch_size=micro)


def count_least_bytes(row: dict[str, Any], tunes: tuple[str, ...]) -> int:
    """Counts the bytes of GPU memory that no training step of a backbone goes below, by its parameters alone."""
    least = _LEAST_BYTES_PER_PARAM if tunes == ("all",) else _BYTES_PER_FROZEN_PARAM
    return CONTEXT_BYTES + int(least * 1e6 * row["params_m"])


# --- choosing -----------------------------------------------------------------------------------------------------


def build_pool(
    spec: StudySpec,
    limits: PoolLimits,
    classes: int,
    device: str,
    candidates: Candidates | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Pool:
    """Chooses the backbones a study may use; they are timed and, on a GPU, measured on the device.

    Without the candidates, these are looked for.
    """
    candidates = candidates or find_candidates(spec, limits.reference_image_size)
    if not is_gpu(device):
        keep_freed_memory()  # as the workers do: they would be timed too slow
    chooser = _Chooser(spec, limits, classes, device, progress)
    entries = _choose_entries(chooser, candidates.backbones)
    if not entries and chooser.larger:  # nothing but what runs at a larger size alone: then that is what is wanted
        chooser.takes_larger = True
        entries = _choose_entries(chooser, list(chooser.larger.values()))
    if not is_gpu(device):
        give_freed_memory_back()  # for the worker; this process trains no more
    if not entries:
        raise PoolError(chooser.explain_empty())
    explained = (*_explain_encoders(entries), *_explain_lora(entries, limits))
    return Pool(tuple(entries), (*candidates.notes, *explained, *chooser.list_excluded()))


def _choose_entries(chooser: "_Chooser", candidates: list[Candidate]) -> list[PoolEntry]:
    """Fills the pool: ranked backbones first, then encoders.

    Encoders that somebody named or brought the weights of are sure of half a pool, if there are so many; all of them
    get what the ranked ones leave.
    """
    size = chooser.spec.pool.size
    ranked = [candidate for candidate in candidates if candidate[0]["score"] is not None]
    encoders = [candidate for candidate in candidates if candidate[0]["score"] is None]
    meant = iter([candidate for candidate in encoders if _is_meant(*candidate)])
    others = (candidate for candidate in encoders if not _is_meant(*candidate))
    chooser.calibrate(candidates)
    unranked: list[PoolEntry] = []
    chooser.choose_entries(meant, size // 2 if ranked else size, unranked, vary=len(encoders) > size)
    entries: list[PoolEntry] = []
    chooser.choose_entries(ranked, size - len(unranked), entries, vary=len(ranked) > size)
    chooser.choose_entries(chain(meant, others), size - len(entries), unranked, vary=len(encoders) > size)
    return entries + unranked


def _is_meant(row: dict[str, Any], weights: Weights | None) -> bool:
    """Returns whether an encoder was asked for, or its weights lie on this machine."""
    return bool(row["named"]) or (weights is not None and weights.source != "hub")


def _explain_encoders(entries: list[PoolEntry]) -> list[str]:
    """Explains why the encoders of a pool stand where they do."""
    names = [entry.backbone for entry in entries if entry.score is None]
    if not names:
        return []
    behind = "behind the ranked ones, " if len(names) < len(entries) else ""
    return [f"no board ranks encoders; {behind}the cheapest to train first: {shorten(names, _SHOWN)}"]


def _explain_lora(entries: list[PoolEntry], limits: PoolLimits) -> list[str]:
    """Explains for which backbones of a pool `targets: attention` means all layers."""
    lora = [entry.backbone for entry in entries if "lora" in (entry.tunes or limits.tunes)]
    without = [name for name in lora if not has_attention(name)]
    if not without:
        return []
    return [
        f"LoRA changes all layers, whatever tune.lora.targets is, of {shorten(without, _SHOWN)}: no attention there"
    ]


@dataclass
class _Chooser:
    """Looks at one backbone after the other, and remembers why the others were left out."""

    spec: StudySpec
    limits: PoolLimits
    classes: int
    device: str
    progress: Callable[[str], None]
    too_big: list[tuple[int, str]] = field(default_factory=list)
    too_slow: list[tuple[float, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    out_of_memory: list[str] = field(default_factory=list)
    """Predicted to fit, tried, and out of memory."""
    larger: dict[str, Candidate] = field(default_factory=dict)
    """What runs at larger image sizes alone than any of the space's; by its name and size, for a person."""
    takes_larger: bool = False
    seconds_per_cost: float | None = None
    """Of a CPU: seconds of a training step per image and `step_cost`; None: nothing was timed yet."""
    timing_seconds: float = 0.0
    """Spent on timing so far."""
    why_predicted: str | None = None
    """Why nothing can be measured on this GPU."""

    def choose_entries(self, candidates: Iterable[Candidate], most: int, entries: list[PoolEntry], vary: bool) -> None:
        """Adds the first candidates that fit until there are so many entries, a few of each family.

        `vary`: whether there is a choice to make; without one, there is no variety to gain.
        """
        pending = iter(candidates)
        while len(entries) < most and (candidate := next(pending, None)) is not None:
            row, weights = candidate
            relatives = sum(entry.family == row["family"] for entry in entries)
            if vary and relatives >= self.spec.pool.per_family:
                continue
            try:
                entry = None if self._is_hopeless(row) else self._make_entry(row, weights)
            except (RecipeError, WeightsError) as exc:
                self.broken.append(str(exc))
                continue
            if entry is not None:
                entries.append(entry)

    def _make_entry(self, row: dict[str, Any], weights: Weights | None) -> PoolEntry | None:
        """Makes an entry; None when the backbone does not fit."""
        backbone = row["model"]
        capabilities = find_capabilities(backbone, self.limits.image_sizes)
        sizes = self._find_sizes(row, weights, capabilities)
        if not sizes:
            return None
        limits = self.limits.at_sizes(sizes)
        memory = predict_need(backbone, limits, self.classes, float(row["params_m"]))
        if self._is_too_big(memory.peak_bytes, backbone):
            return None
        need = self._measure(backbone, limits, memory)
        if need is None:
            self.out_of_memory.append(backbone)
            return None
        memory, timing = need
        if timing is None:
            timing = self._predict_timing(row, limits) or self._time(backbone, limits.reference_image_size)
        cheapest = smallest_step(backbone, limits)
        if self._is_too_slow(timing.scale_to_recipe(cheapest).train_seconds, limits, backbone):
            return None
        return PoolEntry(
            backbone=backbone,
            family=row["family"],
            score=None if row["score"] is None else float(row["score"]),
            params_m=float(row["params_m"]),
            weights=weights.source if weights else None,
            weights_path=str(weights.path.absolute()) if weights and weights.path else None,
            weights_digest=digest_weights(backbone, weights) if weights else "",
            memory=memory,
            timing=timing,
            image_sizes=() if sizes == self.limits.image_sizes else sizes,
            drop_path=capabilities.drop_path,
            tunes=self._find_tunes(backbone, limits, memory, weights),
        )

    def _find_tunes(
        self, backbone: str, limits: PoolLimits, memory: MemoryNeed, weights: Weights | None
    ) -> tuple[str, ...]:
        """Finds how much of a backbone can be trained; none: as much as the space can draw."""
        if weights is None and "all" in limits.tunes and len(limits.tunes) > 1:
            return ("all",)  # what is frozen at random knows nothing
        return find_affordable_tunes(backbone, limits, memory, self.classes)

    def _time(self, backbone: str, image_size: int) -> Timing:
        """Times a backbone's steps, and counts how long that took."""
        recipe, started = Recipe(backbone=backbone, image_size=image_size), time.perf_counter()
        if is_gpu(self.device) or not is_timed(recipe, self.device):
            self.progress(f"timing {backbone}")
        timing = best_numerics(recipe, self.classes, self.device)
        self.timing_seconds += time.perf_counter() - started
        return timing

    def calibrate(self, candidates: list[Candidate]) -> None:
        """Times the smallest backbone on a CPU, by which the others' times are predicted."""
        if is_gpu(self.device):
            return
        rows = [row for row, _ in candidates if row["gmacs"] > 0 and row["macts"] > 0]  # not NaN
        for row in sorted(rows, key=lambda row: step_cost(row, row["image_size"])):
            size = self.limits.reference_image_size
            if size in find_capabilities(row["model"], (size,)).trainable_sizes(pretrained=False):
                seconds = self._time(row["model"], size).train_seconds
                self.seconds_per_cost = seconds / step_cost(row, size)
                return

    def _predict_timing(self, row: dict[str, Any], limits: PoolLimits) -> Timing | None:
        """Predicts the steps of a backbone; None where there is time to time it, or nothing to predict them by."""
        seconds = self._predict_seconds(row, limits.reference_image_size)
        if seconds is None or self.timing_seconds < _TIMING_SECONDS:
            return None
        if is_timed(Recipe(backbone=row["model"], image_size=limits.reference_image_size), self.device):
            return None  # such as the one by which the others are predicted
        return Timing("fp32", "channels_last", seconds, seconds / 3, limits.reference_image_size, measured=False)

    def _predict_seconds(self, row: dict[str, Any], image_size: int) -> float | None:
        """Predicts the seconds of a training step per image; None where nothing is known."""
        if self.seconds_per_cost is None or not (row["gmacs"] > 0 and row["macts"] > 0):
            return None
        return self.seconds_per_cost * step_cost(row, image_size)

    def _find_sizes(self, row: dict[str, Any], weights: Weights | None, capabilities: Capabilities) -> tuple[int, ...]:
        """Finds the space's image sizes that a backbone runs at, or its own; none where that is a larger one."""
        runs, wanted = capabilities.trainable_sizes(pretrained=weights is not None), self.limits.image_sizes
        if usable := tuple(size for size in wanted if size in runs):
            return usable
        if not runs:
            raise RecipeError(f"{row['model']}: {capabilities.problem or capabilities.why_not}")
        own = Restriction(runs).nearest_size(self.limits.reference_image_size)
        if own > wanted[-1] and not self.takes_larger:
            self.larger[f"{row['model']} ({own} px)"] = (row, weights)
            return ()
        return (own,)

    def _measure(
        self, backbone: str, limits: PoolLimits, predicted: MemoryNeed
    ) -> tuple[MemoryNeed, Timing | None] | None:
        """Measures the need, or keeps the prediction where no probe is possible; None: no step fits."""
        if not is_gpu(self.device) or self.why_predicted is not None:
            return predicted, None
        if limits.memory_bytes is None:
            self.why_predicted = "it is not known how much memory the GPU has; give --gpu-mem"
            return predicted, None
        self.progress(f"measuring {backbone}")
        try:
            return measure_need(backbone, limits, limits.memory_bytes, self.classes, self.device)
        except CannotProbe as exc:
            self.why_predicted = str(exc)
            return predicted, None

    def _is_hopeless(self, row: dict[str, Any]) -> bool:
        """Returns whether the leaderboard's figures alone rule a backbone out, before it is built."""
        backbone, gmacs = row["model"], row["gmacs"]
        if not is_gpu(self.device) and gmacs > 0:  # not NaN
            # At the space's smallest size, which may be smaller than any of the backbone's.
            size = self.limits.image_sizes[0]
            predicted = self._predict_seconds(row, size)
            least = 3 * gmacs * (size / row["image_size"]) ** 2 / (_CPU_GMACS_PER_CORE * cpu_threads())
            seconds = max(least, predicted / _PREDICTED_WITHIN if predicted else 0.0)
            if self.limits.tunes != ("all",):
                seconds /= 3  # a forward pass alone, where the backbone is frozen
            if self._is_too_slow(seconds, self.limits, backbone):
                return True
        return self._is_too_big(count_least_bytes(row, self.limits.tunes), backbone)

    def _is_too_big(self, need: int, backbone: str) -> bool:
        if self.limits.memory_bytes is None or need <= self.limits.memory_bytes:
            return False
        self.too_big.append((need, backbone))
        return True

    def _is_too_slow(self, seconds_per_image: float, limits: PoolLimits, backbone: str) -> bool:
        seconds = seconds_per_image * limits.train_images * limits.min_epochs
        if limits.trial_seconds is None or seconds <= limits.trial_seconds:
            return False
        self.too_slow.append((seconds, backbone))
        return True

    def list_excluded(self) -> list[str]:
        """Lists the backbones that were left out, one line a reason."""
        reasons = {
            "need more GPU memory": [f"{name} ({format_bytes(need)})" for need, name in sorted(self.too_big)],
            "out of GPU memory when tried": self.out_of_memory,
            "too slow: shortest trial": [f"{name} ({format_seconds(time)})" for time, name in sorted(self.too_slow)],
            f"need a larger image size than the space's {self.limits.image_sizes[-1]} px": (
                [] if self.takes_larger else list(self.larger)
            ),
            "broken": self.broken,
        }
        lines = [f"left out, {reason}: {shorten(names, _SHOWN)}" for reason, names in reasons.items() if names]
        if self.why_predicted is not None:
            lines.append(f"memory is predicted, not measured: {self.why_predicted}")
        return lines

    def explain_empty(self) -> str:
        """Explains in one message why the pool is empty."""
        lines, limit = [], format_bytes(self.limits.memory_bytes or 0)
        if self.too_big:
            backbone = min(self.too_big)[1]
            need = estimate_training(smallest_step(backbone, self.limits), self.classes)
            lines.append(
                f"no backbone fits --gpu-mem {limit}: the smallest need is {format_bytes(need)} "
                f"({backbone} at {self.limits.image_sizes[0]} px, batch 2, CUDA context included)"
            )
        if self.out_of_memory:
            lines.append(f"out of memory within {limit} when tried: {shorten(self.out_of_memory, _SHOWN)}")
        if self.too_slow:
            seconds, backbone = min(self.too_slow)
            lines.append(
                f"no backbone is fast enough: the shortest trial takes {format_seconds(seconds)} ({backbone}), and one "
                f"trial may take {format_seconds(self.limits.trial_seconds or 0)}; give a longer --timeout"
            )
        return "\n".join(lines + self.broken[:_SHOWN]) or "no backbone is left"
