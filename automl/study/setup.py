"""What is found out before a study begins and stays the same until it ends: samples, space, pool, limits.

It is stored with the study, so that every worker, and the same command on another day, works with the same.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from automl.data.cache import Cache
from automl.data.dataset import Dataset
from automl.errors import PoolError, StudyError
from automl.files import write_atomically
from automl.gpu.budget import MemoryBudget
from automl.media.kinds import Medium
from automl.space.space import Space, parse_space
from automl.spec import StudySpec
from automl.study.folder import StudyFolder
from automl.study.need import Limits
from automl.study.pool import Pool, build_pool
from automl.training.metrics import default_metric

_CPU_TRIAL_SECONDS = 3600.0
"""Longest trial on a CPU when no timeout says more: a large backbone would take days unnoticed."""

_ALL = 1_000_000
"""Backbones: where the search space names them, no rule but the budgets leaves one out."""


@dataclass(frozen=True)
class Facts:
    """The fixed ground of a study."""

    dataset: Dataset
    space: Space
    pool: Pool
    metric: str
    cache_size: int
    memory_bytes: int | None
    trial_seconds: float | None
    samples_digest: str


Say = Callable[[str], None]


def find_facts(
    spec: StudySpec,
    dataset: Dataset,
    cache: Cache,
    space: Space,
    devices: tuple[str, ...],
    memory: MemoryBudget,
    print_line: Say = lambda _: None,
) -> Facts:
    """Chooses the pool and settles the limits.

    Args:
        spec: The study's spec.
        dataset: The data, understood and split.
        cache: Its images, decoded; of several views, those of one of them.
        space: What may vary.
        devices: What the study trains on; backbones are timed on the first.
        memory: How much of the GPU's memory it may take; kept when the study is continued, whatever is free then.
        print_line: Receives what is being done, one line each.

    Raises:
        PoolError: If no backbone fits.
    """
    image_sizes = space.image_sizes()
    usable = (dataset.samples["split"] == "train").to_numpy() & cache.readable
    trial_seconds = _trial_seconds(spec, devices)
    limits = Limits(
        memory_bytes=memory.bytes,
        trial_seconds=trial_seconds,
        min_epochs=min(1.0, space.bounds("epochs")[0]),
        image_sizes=image_sizes,
        reference_image_size=image_sizes[len(image_sizes) // 2],
        max_batch_size=int(space.bounds("batch_size")[1]),
        train_images=int(usable.sum()),
    )
    for line in memory.said:
        print_line(line)
    print_line("choosing the backbones: predicting their memory, timing their steps")
    named = space.backbones()
    if named:
        pool_spec = spec.pool.model_copy(update={"names": named, "size": _ALL, "per_family": _ALL})
        spec = spec.model_copy(update={"pool": pool_spec})
    pool = build_pool(spec, limits, len(dataset.classes), devices[0], lambda name: print_line(f"looking at {name}"))
    for name in named:
        if pool.named(name) is None:
            raise PoolError("\n".join((f"the search space names {name}, which cannot be in the pool", *pool.notes)))
    metric = default_metric(len(dataset.classes)) if spec.metric == "auto" else spec.metric
    samples_digest = digest(dataset)
    # A backbone that runs at a larger size alone wants larger images; whoever opens the cache decodes them.
    cache_size = max([cache.size, *(size for entry in pool.entries for size in entry.image_sizes)])
    return Facts(dataset, space, pool, metric, cache_size, limits.memory_bytes, trial_seconds, samples_digest)


def store_facts(facts: Facts, folder: StudyFolder) -> dict[str, Any]:
    """Writes the samples to the folder; returns the rest as plain data for the study."""
    dataset = facts.dataset
    with write_atomically(folder.samples) as temporary:
        dataset.samples.to_csv(temporary, index=False)
    return {
        "space": facts.space.text,
        "pool": json.dumps(facts.pool.to_json()),
        "samples": facts.samples_digest,
        "dataset": json.dumps(asdict(_Described.of(dataset))),
        "metric": facts.metric,
        "cache_size": facts.cache_size,
        "memory_bytes": facts.memory_bytes,
        "trial_seconds": facts.trial_seconds,
    }


def load_facts(study: optuna.Study, folder: StudyFolder) -> Facts:
    """Reads what `store_facts` left.

    Raises:
        StudyError: If the samples file is missing or was changed.
    """
    attrs = study.user_attrs
    described = _Described(**json.loads(attrs["dataset"]))
    try:
        samples = pd.read_csv(folder.samples, dtype={"group": str, "name": str, "path": str}, keep_default_na=False)
    except (OSError, ValueError) as exc:
        raise StudyError(f"cannot read {folder.samples}, which holds the samples of the study: {exc}") from exc
    dataset = described.dataset(samples)
    if digest(dataset) != attrs["samples"]:
        raise StudyError(f"{folder.samples} was changed since the study began; restore it or start a new study")
    return Facts(
        dataset=dataset,
        space=parse_space(attrs["space"], "the study's search space"),
        pool=Pool.from_json(json.loads(attrs["pool"])),
        metric=attrs["metric"],
        cache_size=attrs["cache_size"],
        memory_bytes=attrs["memory_bytes"],
        trial_seconds=attrs["trial_seconds"],
        samples_digest=attrs["samples"],
    )


@dataclass(frozen=True)
class _Described:
    """A data set without its samples."""

    root: str
    format: str
    classes: list[str]
    real_class: int | None
    positive: int
    problems: list[str]
    name: str
    media: Medium = "image"

    @classmethod
    def of(cls, d: Dataset) -> "_Described":
        plain = str(d.root), d.format, list(d.classes), d.real_class, d.positive, list(d.problems), d.name
        return cls(*plain, media=d.media)

    def dataset(self, samples: pd.DataFrame) -> Dataset:
        return Dataset(
            root=Path(self.root),
            format=self.format,
            samples=samples,
            classes=tuple(self.classes),
            real_class=self.real_class,
            positive=self.positive,
            problems=tuple(self.problems),
            name=self.name,
            media=self.media,
        )


def digest(dataset: Dataset) -> str:
    """Of names, labels and splits: what makes two data sets the same for a study."""
    rows = dataset.samples[["name", "label", "split"]].astype(str).agg("\t".join, axis=1)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _trial_seconds(spec: StudySpec, devices: tuple[str, ...]) -> float | None:
    budget = spec.budget
    if budget.trial_time:
        return budget.trial_time
    if budget.timeout:
        return budget.timeout / 4
    return _CPU_TRIAL_SECONDS if devices[0] == "cpu" else None
