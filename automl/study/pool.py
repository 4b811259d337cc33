"""The pool: the backbones that fit the budgets, best leaderboard score first, frozen into the study.

A backbone that does not fit leaves before sampling: with half of 20 backbones too big, 35 of 50 trials were wasted
when such trials failed, and 17.5 when they were pruned. On a GPU, memory is predicted first, and what is predicted to
fit is measured, each backbone in a fresh process; this process never uses CUDA itself.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automl.backbones.capabilities import Capabilities, find_capabilities
from automl.backbones.ranking import rank_at
from automl.backbones.selection import select, unmatched
from automl.backbones.table import load_table
from automl.backbones.weights import Weights, find_weights, hub_reachable
from automl.devices import give_freed_memory_back, keep_freed_memory
from automl.errors import PoolError, RecipeError, WeightsError
from automl.gpu.probe import CannotProbe
from automl.memory.estimate import CONTEXT_BYTES, estimate, limit_for_prediction
from automl.recipe import Recipe
from automl.space.restriction import Restriction
from automl.spec import StudySpec
from automl.study.need import Limits, Need, largest_step, measure_need, smallest_step
from automl.training.precision import Timing, best_numerics
from automl.units import format_bytes, format_seconds

_SHOWN = 3
"""Names in a message."""

_SCRATCH_MAX_PARAMS = 12.0
"""Without weights the leaderboard says little, and millions of parameters more overfit more: small ones only."""

_CPU_GMACS_PER_CORE = 100.0
"""No CPU core does more fp32 GMAC/s; a backbone that would be too slow even so is not built to be timed."""

_LEAST_BYTES_PER_PARAM = 12.0
"""fp32 weights, gradients and one state of the optimizer: no training step needs less."""


@dataclass(frozen=True)
class PoolEntry:
    """A backbone in the pool, and what was found out about it."""

    backbone: str
    family: str
    score: float
    params_m: float
    weights: str | None
    """`file`, `cache` or `hub`; None: from scratch."""
    weights_path: str | None
    peak_bytes: int
    """For the space's largest image size and batch or, if that does not fit, for the smallest step; measured, or
    predicted."""
    fits_all: bool
    """Whether the largest fits the memory budget without accumulation."""
    timing: Timing
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
    image_sizes: tuple[int, ...] = ()
    """The only image sizes that it runs at, with its weights if it has them; none: all of the space's."""
    drop_path: bool = True
    """Whether it has stochastic depth."""

    @property
    def restriction(self) -> Restriction:
        """What the search space may not draw for it."""
        return Restriction(self.image_sizes, self.drop_path)

    def find(self) -> Weights | None:
        """Where the weights are."""
        if self.weights is None:
            return None
        return Weights(self.weights, Path(self.weights_path) if self.weights_path else None)  # type: ignore[arg-type]

    def limit_for(self, memory_bytes: int) -> int:
        """The limit for `automl.memory.largest_micro_batch` under which the prediction says what was measured.

        Args:
            memory_bytes: The study's budget, the CUDA context included.
        """
        return limit_for_prediction(memory_bytes, self.context_bytes, self.memory_factor)

    def describe_limits(self) -> str:
        """What it cannot do of what the space can draw, in a few words for a person; mostly nothing."""
        sizes = f"only at {', '.join(map(str, self.image_sizes))} px" if self.image_sizes else ""
        return "; ".join(filter(None, (sizes, "" if self.drop_path else "no drop path")))

    def describe_memory(self, memory_bytes: int | None) -> str:
        """What it needs, in a few words for a person.

        Args:
            memory_bytes: The study's budget, the CUDA context included; None: no limit.
        """
        need = f"needs at {'most' if self.fits_all else 'least'} {format_bytes(self.peak_bytes)}"
        if not self.measured:
            return need
        said = [
            "measured" if self.predicted_bytes is None else f"measured; {format_bytes(self.predicted_bytes)} predicted"
        ]
        if memory_bytes is not None:
            said.append(f"{format_bytes(memory_bytes - self.peak_bytes)} of {format_bytes(memory_bytes)} left")
        if self.micro_batch:
            said.append(f"its largest step {self.micro_batch} × {self.accumulation} images")
        return f"{need} ({'; '.join(said)})"


@dataclass(frozen=True)
class Pool:
    """Backbones by rank: 0 is the leaderboard's best."""

    entries: tuple[PoolEntry, ...]
    notes: tuple[str, ...] = ()
    """What a person should know, one line each."""

    def fastest(self) -> int:
        """Rank of the backbone with the shortest training step."""
        return min(range(len(self.entries)), key=lambda i: self.entries[i].timing.train_seconds)

    def affordable(self, image_size: int, images: float, limit_seconds: float | None) -> int:
        """Rank of the best backbone that trains on so many images in time; without a limit, of the middle one.

        Args:
            image_size: Pixels per side.
            images: Epochs times training images.
            limit_seconds: For one trial. A seventh of it is left for validation and for what was timed too fast.
        """
        seconds = [
            entry.timing.at(entry.restriction.nearest(image_size)).train_seconds * images / 0.85
            for entry in self.entries
        ]
        if limit_seconds is None:
            return sorted(range(len(seconds)), key=seconds.__getitem__)[len(seconds) // 2]
        return next((rank for rank, needed in enumerate(seconds) if needed <= limit_seconds), self.fastest())

    def named(self, name: str) -> PoolEntry | None:
        """The entry of a backbone, with or without its weights tag."""
        return next((e for e in self.entries if name in (e.backbone, e.backbone.split(".")[0])), None)

    def chosen(self, chosen: int | str) -> PoolEntry:
        """The entry that a search space draws: by its rank, or by the name that the space gives it.

        Raises:
            RecipeError: If there is none of that name.
        """
        entry = self.entries[chosen] if isinstance(chosen, int) else self.named(chosen)
        if entry is None:
            raise RecipeError(f"the search space names {chosen}, which is not in the pool")
        return entry

    def to_json(self) -> list[dict[str, Any]]:
        """As plain data, to be stored with the study."""
        return [asdict(entry) for entry in self.entries]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> "Pool":
        """Reads what `to_json` wrote."""
        return cls(tuple(map(_entry_of, rows)))


def _entry_of(row: dict[str, Any]) -> PoolEntry:
    sizes = tuple(row.get("image_sizes", ()))
    return PoolEntry(**(row | {"timing": Timing(**row["timing"]), "image_sizes": sizes}))


def build_pool(
    spec: StudySpec, limits: Limits, classes: int, device: str, progress: Callable[[str], None] = lambda _: None
) -> Pool:
    """Chooses the backbones a study may use.

    Args:
        spec: Gives names, boards, licence, size, weights.
        limits: What a backbone must fit.
        classes: Outputs of the classifier.
        device: Where backbones are timed and, on a GPU, measured; `cpu` or `cuda:0`.
        progress: Told each backbone that is looked at.

    Raises:
        PoolError: If nothing fits: names the smallest need.
    """
    ranked = rank_at(load_table(), limits.reference_image_size, spec.pool.boards)
    table = select(ranked, names=spec.pool.names, max_params=spec.pool.max_params, licence=spec.pool.licence)
    table = table[table["score"].notna()]
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    if not rows:
        raise PoolError(f"no backbone of the leaderboard matches {', '.join(spec.pool.names)}")
    candidates, notes = _with_weights(rows, spec)
    notes = [f"no backbone of the leaderboard matches {name}" for name in unmatched(ranked, spec.pool.names)] + notes
    if device == "cpu":
        keep_freed_memory()  # as the workers do: they would be timed too slow
    chooser = _Chooser(spec, limits, classes, device)
    entries = _choose(chooser, candidates, progress)
    if not entries and chooser.larger:  # nothing but what runs at a larger size alone: then that is what is wanted
        chooser.takes_larger = True
        entries = _choose(chooser, [(row, weights) for row, weights, _ in chooser.larger], progress)
    if device == "cpu":
        give_freed_memory_back()  # for the worker; this process trains no more
    if not entries:
        raise PoolError(chooser.why_empty())
    return Pool(tuple(entries), tuple(notes + chooser.left_out()))


Candidate = tuple[dict[str, Any], Weights | None]


def _choose(chooser: "_Chooser", candidates: list[Candidate], progress: Callable[[str], None]) -> list[PoolEntry]:
    """Fills the pool with the best candidates that fit, a few of each family."""
    size, per_family = chooser.spec.pool.size, chooser.spec.pool.per_family
    entries: list[PoolEntry] = []
    for row, weights in candidates:
        if len(entries) == size:
            break
        # Variety matters only where there is a choice to make.
        relatives = sum(entry.family == row["family"] for entry in entries)
        if relatives >= per_family and len(candidates) > size:
            continue
        progress(row["model"])
        entry = chooser.look_at(row, weights)
        if entry is not None:
            entries.append(entry)
    return entries


def _with_weights(rows: list[dict[str, Any]], spec: StudySpec) -> tuple[list[Candidate], list[str]]:
    """Keeps the backbones whose weights are within reach, or all the small ones when none is.

    Raises:
        PoolError: If there is no such folder of weights, or none is within reach where they are required, or where what
            was named is too large to be trained from scratch unasked.
    """
    if spec.weights_dir is not None and not spec.weights_dir.is_dir():
        raise PoolError(f"--weights-dir {spec.weights_dir} is not a folder; give one that holds safetensors files")
    named = tuple(spec.pool.names) != ("*",)
    if spec.pretrained == "never":
        return _small(rows, spec, every=named), []
    reach = hub_reachable()
    found = [(row, find_weights(row["model"], spec.weights_dir, hub=reach)) for row in rows]
    with_weights: list[Candidate] = [(row, weights) for row, weights in found if weights is not None]
    missing = [row["model"] for row, weights in found if weights is None]
    hints = [_where_to_put(name) for name in missing[:_SHOWN]] if named else []
    if with_weights:
        note = f"{len(missing)} backbones left out: their weights are out of reach"
        return with_weights, [note, *hints] if missing else []
    places = f"{spec.weights_dir}, the hub's cache or the hub" if spec.weights_dir else "the hub's cache or the hub"
    if spec.pretrained == "require":
        advice = "give --weights-dir, or --pretrained never"
        raise PoolError("\n".join([f"no backbone has weights in {places}; {advice}", *hints]))
    small = _small(rows, spec)
    if named and not small:
        advice = "give --weights-dir, or --pretrained never to train from scratch"
        raise PoolError("\n".join([f"{', '.join(spec.pool.names)}: no weights in {places}; {advice}", *hints]))
    notes = [
        f"NO PRETRAINED WEIGHTS in {places}: TRAINING FROM SCRATCH, which needs far more data and time; "
        "give --weights-dir DIR with safetensors files named by timm architecture"
    ]
    return small, notes + hints


def _small(rows: list[dict[str, Any]], spec: StudySpec, *, every: bool = False) -> list[Candidate]:
    """What is trained from scratch: small backbones, or those that somebody chose."""
    every = every or spec.pool.max_params is not None
    return [(row, None) for row in rows if every or row["params_m"] <= _SCRATCH_MAX_PARAMS]


def _where_to_put(backbone: str) -> str:
    """Says where weights that are out of reach would be found, and what they must be called."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(backbone, allow_unregistered=False)
    source = f" (on the hub: model.safetensors of {cfg.hf_hub_id})" if cfg is not None and cfg.hf_hub_id else ""
    return f"put the weights of {backbone} into --weights-dir as {backbone}.safetensors{source}"


class _Chooser:
    """Looks at one backbone after the other, and remembers why the others were left out."""

    def __init__(self, spec: StudySpec, limits: Limits, classes: int, device: str) -> None:
        self.spec, self.limits, self.classes, self.device = spec, limits, classes, device
        self.too_big: list[tuple[int, str]] = []
        self.too_slow: list[tuple[float, str]] = []
        self.broken: list[str] = []
        self.did_not_fit: list[str] = []
        """Predicted to fit, tried, and out of memory."""
        self.larger: list[tuple[dict[str, Any], Weights | None, int]] = []
        """What runs at one image size alone, and that is larger than any of the space's."""
        self.takes_larger = False
        self.why_predicted: str | None = None
        """Why nothing can be measured on this GPU."""

    def look_at(self, row: dict[str, Any], weights: Weights | None) -> PoolEntry | None:
        """An entry, or None when the backbone does not fit."""
        backbone = row["model"]
        # Before anything is built; at the space's smallest size, which may be smaller than any of the backbone's.
        if self._too_slow(self._least_seconds(row), self.limits, backbone):
            return None
        limits = self.limits
        least_bytes = CONTEXT_BYTES + int(_LEAST_BYTES_PER_PARAM * 1e6 * row["params_m"])
        if limits.memory_bytes is not None and least_bytes > limits.memory_bytes:
            self.too_big.append((least_bytes, backbone))
            return None
        try:
            return self._entry(row, weights)
        except (RecipeError, WeightsError) as exc:
            self.broken.append(str(exc))
            return None

    def _entry(self, row: dict[str, Any], weights: Weights | None) -> PoolEntry | None:
        backbone = row["model"]
        capabilities = find_capabilities(backbone, self.limits.image_sizes)
        sizes = self._usable_sizes(row, weights, capabilities)
        if not sizes:
            return None
        limits = self.limits.at_sizes(sizes)
        need = self._predicted(backbone, limits)
        if need is not None:
            need = self._measured(backbone, limits, need)
        if need is None:
            return None
        timing = need.timing
        if timing is None:
            timed = Recipe(backbone=backbone, image_size=limits.reference_image_size)
            timing = best_numerics(timed, self.classes, self.device)
        if self._too_slow(timing.at(limits.min_image_size).train_seconds, limits, backbone):
            return None
        return PoolEntry(
            backbone=row["model"],
            family=row["family"],
            score=float(row["score"]),
            params_m=float(row["params_m"]),
            weights=weights.source if weights else None,
            weights_path=str(weights.path.absolute()) if weights and weights.path else None,
            image_sizes=() if sizes == self.limits.image_sizes else sizes,
            drop_path=capabilities.drop_path,
            **(vars(need) | {"timing": timing}),
        )

    def _usable_sizes(
        self, row: dict[str, Any], weights: Weights | None, capabilities: Capabilities
    ) -> tuple[int, ...]:
        """Gives the space's image sizes that a backbone runs at or, if it runs at none of them, its own.

        Returns:
            None, and that is noted, where it runs at a larger size alone.

        Raises:
            RecipeError: If it runs at no size.
        """
        runs, wanted = capabilities.sizes(pretrained=weights is not None), self.limits.image_sizes
        if usable := tuple(size for size in wanted if size in runs):
            return usable
        if not runs:
            raise RecipeError(f"{row['model']}: {capabilities.trouble or capabilities.why_not}")
        own = Restriction(runs).nearest(self.limits.reference_image_size)
        if own > wanted[-1] and not self.takes_larger:
            self.larger.append((row, weights, own))
            return ()
        return (own,)

    def _predicted(self, backbone: str, limits: Limits) -> Need | None:
        """The predicted need; None, and noted, where even the smallest step needs too much."""
        limit = limits.memory_bytes
        peak = estimate(largest_step(backbone, limits), self.classes)
        fits_all = limit is None or peak <= limit
        if not fits_all:
            peak = estimate(smallest_step(backbone, limits), self.classes)
        if peak > (limit or peak):
            self.too_big.append((peak, backbone))
            return None
        return Need(peak, fits_all)

    def _measured(self, backbone: str, limits: Limits, predicted: Need) -> Need | None:
        """The need by a probe; None, and noted, where not even the smallest step fits.

        Where no probe is possible that is noted once, and the prediction stays.

        Raises:
            RecipeError: If a step fails for another reason than memory.
        """
        if self.device == "cpu" or self.why_predicted is not None:
            return predicted
        if limits.memory_bytes is None:
            self.why_predicted = "nothing tells how much memory the GPU has; give --gpu-mem"
            return predicted
        try:
            need = measure_need(backbone, limits, limits.memory_bytes, self.classes, self.device)
        except CannotProbe as exc:
            self.why_predicted = str(exc)
            return predicted
        if need is None:
            self.did_not_fit.append(backbone)
        return need

    def _least_seconds(self, row: dict[str, Any]) -> float:
        """A lower bound of the seconds per training image at the smallest image size."""
        gmacs = row["gmacs"]
        if self.device != "cpu" or not gmacs > 0:  # also NaN
            return 0.0
        pixels = (self.limits.min_image_size / row["image_size"]) ** 2
        return float(3 * gmacs * pixels / (_CPU_GMACS_PER_CORE * (os.cpu_count() or 1)))

    def _too_slow(self, seconds_per_image: float, limits: Limits, backbone: str) -> bool:
        seconds = seconds_per_image * limits.train_images * limits.min_epochs
        if limits.trial_seconds is None or seconds <= limits.trial_seconds:
            return False
        self.too_slow.append((seconds, backbone))
        return True

    def left_out(self) -> list[str]:
        """Who was left out, one line a reason."""
        big = [f"{name} ({format_bytes(need)})" for need, name in sorted(self.too_big)]
        slow = [f"{name} ({format_seconds(seconds)})" for seconds, name in sorted(self.too_slow)]
        larger = [] if self.takes_larger else [f"{row['model']} ({size} px)" for row, _, size in self.larger]
        lines = []
        for reason, names in (
            ("need more GPU memory", big),
            ("out of GPU memory when tried", self.did_not_fit),
            ("too slow: shortest trial", slow),
            (f"need a larger image size than the space's {self.limits.max_image_size} px", larger),
            ("broken", self.broken),
        ):
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"left out, {reason}: {', '.join(names[:_SHOWN])}{more}")
        if self.why_predicted is not None:
            lines.append(f"memory is predicted, not measured: {self.why_predicted}")
        return lines

    def why_empty(self) -> str:
        """One message for an empty pool."""
        lines = []
        if self.too_big:
            backbone = min(self.too_big)[1]
            need = estimate(smallest_step(backbone, self.limits), self.classes)
            limit = format_bytes(self.limits.memory_bytes or 0)
            lines.append(
                f"no backbone fits --gpu-mem {limit}: the smallest need is {format_bytes(need)} "
                f"({backbone} at {self.limits.min_image_size} px, batch 2, CUDA context included)"
            )
        if self.did_not_fit:
            limit = format_bytes(self.limits.memory_bytes or 0)
            lines.append(f"out of memory within {limit} when tried: {', '.join(self.did_not_fit[:3])}")
        if self.too_slow:
            seconds, backbone = min(self.too_slow)
            lines.append(
                f"no backbone is fast enough: the shortest trial takes {format_seconds(seconds)} ({backbone}), and one "
                f"trial may take {format_seconds(self.limits.trial_seconds or 0)}; give a longer --timeout"
            )
        return "\n".join(lines + self.broken[:3]) or "no backbone is left"
