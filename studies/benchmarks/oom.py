"""What a study loses when memory runs out again and again: nothing.

    python studies/benchmarks/oom.py [--trials 20] [--seed 0]

Trains the same random study twice on the demo: undisturbed, and with memory running out once or twice in each trial at
a random operator, in the forward pass, the backward pass, the optimizer's step (which leaves weights half changed) or
evaluation. `automl.study.worker.run_worker` runs as ever; the errors come from outside, by a `TorchDispatchMode` and
torch's global hooks. The network sees each image alone (no BatchNorm, no dropout), so that the micro-batches, which
become smaller, must not change what a trial finds: the metrics of both studies are compared, trial by trial. The
optimizer is SGD, whose steps are as exact as its gradients; AdamW divides the rounding errors of a gradient of next to
nothing by next to nothing.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["Fault", "OutOfMemory", "compare", "draw_faults", "main"]

PLACES = {"forward": 60, "backward": 60, "optimizer": 6, "evaluation": 40}
"""Where memory runs out, and at which of its first operators at the latest."""

SPACE = """
backbone: {pool: {}}
image_size: 32
batch_size: {ordered: [16, 24, 32]}
epochs: 2
optimizer: {choice: {sgd: {momentum: {float: [0.8, 0.95]}}}}
learning_rate: {float: [3e-3, 3e-2], log: true}
weight_decay: {float: [1e-4, 1e-1], log: true}
ema_decay: {ordered: [0.0, 0.9]}
clip_norm: {ordered: [0.0, 1.0]}
mixing: {choice: {none: {}, mixup: {}}}
schedule: {choice: {cosine: {}, one_cycle: {}}}
"""


@dataclass
class Fault:
    """Memory that runs out once."""

    place: str
    """A key of `PLACES`."""
    visit: int
    """At the earliest, when the trial is there for so many times; from 1."""
    operator: int
    """At this operator of the visit; from 1."""
    raised: bool = False


def draw_faults(seed: int, trial: int) -> list[Fault]:
    """One or two faults for a trial, by (seed, trial): the third would end it."""
    chance = random.Random(f"{seed} {trial}")
    faults = []
    for _ in range(chance.randint(1, 2)):
        place = chance.choice(list(PLACES))
        visit = chance.randint(1, 3 if place == "evaluation" else 20)
        faults.append(Fault(place, visit, chance.randint(1, PLACES[place])))
    return faults


class OutOfMemory(TorchDispatchMode):
    """Lets operators of a training fail for want of memory."""

    def __init__(self, seed: int, trial: Callable[[], int]) -> None:
        """`trial` says the number of the trial that is training."""
        super().__init__()
        self.faults: dict[int, list[Fault]] = {}
        self._seed, self._trial = seed, trial
        self._number: int | None = None
        self._trials: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        """Of the networks that were seen: the storage is not asked at every step."""
        self._network: Any = None
        self._watching = False
        self._leave()

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Watches every network and every optimizer of this process, inside."""
        hooks = [
            register_module_forward_pre_hook(self._before_module),
            register_module_forward_hook(self._after_module),
            register_optimizer_step_pre_hook(lambda *_: self._enter("optimizer")),
            register_optimizer_step_post_hook(lambda *_: self._leave()),
        ]
        try:
            yield
        finally:
            self._leave()
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the operator, or fails."""
        self._operator += 1
        for fault in self._due:
            if not fault.raised and fault.operator == self._operator:
                fault.raised = True
                self._network = None
                raise torch.cuda.OutOfMemoryError(f"injected in {fault.place}")
        return func(*args, **(kwargs or {}))

    def _before_module(self, module: Any, _: Any) -> None:
        if self._network is None and hasattr(module, "get_classifier"):  # timm's: not its layers, no augmentation
            self._network = module
            if module not in self._trials:
                self._trials[module] = self._trial()
                self._begin(self._trials[module])
            self._enter("forward" if module.training else "evaluation")

    def _after_module(self, module: Any, _inputs: Any, _outputs: Any) -> None:
        if module is self._network:
            self._network = None
            if module.training:
                self._enter("backward")
            else:
                self._leave()

    def _begin(self, number: int) -> None:
        """Draws the faults of a trial that begins; it has more than one network, if it goes back or averages."""
        if number != self._number:
            self._number, self._visits = number, dict.fromkeys(PLACES, 0)
            self._drawn = self.faults.setdefault(number, draw_faults(self._seed, number))

    def _enter(self, place: str) -> None:
        """Watches the operators of a visit, if one of them is to fail."""
        self._leave()
        self._visits[place] += 1
        here = [fault for fault in self._drawn if fault.place == place and not fault.raised]
        self._due = [fault for fault in here if fault.visit <= self._visits[place]]
        if self._due:
            self.__enter__()
            self._watching = True

    def _leave(self) -> None:
        self._due: list[Fault] = []
        self._operator = 0
        if self._watching:
            self.__exit__(None, None, None)
            self._watching = False


def train_study(runs: Path, name: str, trials: int, seed: int, faults: bool) -> "tuple[optuna.Study, OutOfMemory]":
    """Trains a study of one backbone on the demo, in this process."""
    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.space.space import parse_space
    from automl.spec import StudySpec
    from automl.study.folder import StudyFolder
    from automl.study.pool import MemoryNeed, Pool, PoolEntry
    from automl.study.setup import StudySetup, create_study
    from automl.study.trial import Stop
    from automl.study.worker import run_worker
    from automl.training.precision import Timing

    values = {"data": {}, "budget": {"trials": trials}, "sampler": "random", "pruner": "none", "seed": seed}
    spec = StudySpec.from_mapping(values)
    dataset = open_dataset(spec.data, spec.seed)
    timing = Timing("fp32", "contiguous", 0.001, 0.0003, 32)
    entry = PoolEntry("test_vit.r160_in1k", "test", 0.0, 0.4, None, None, MemoryNeed(0, fits_all=True), timing)
    setup = StudySetup(
        dataset=dataset,
        space=parse_space(SPACE),
        pool=Pool((entry,)),
        metric="auc",
        cache_size=build_cache(dataset, 32).size,
    )
    folder = StudyFolder(runs / name)
    study = create_study(folder, spec, setup)

    def running() -> int:
        return max(trial.number for trial in study.get_trials(deepcopy=False))

    injector = OutOfMemory(seed, running)
    if faults:
        with injector.hooked():
            run_worker(study, folder, "cpu", Stop())
    else:
        run_worker(study, folder, "cpu", Stop())
    return study, injector


def compare(undisturbed: "list[FrozenTrial]", disturbed: "list[FrozenTrial]") -> Iterator[str]:
    """A line for each trial, then the totals.

    Args:
        undisturbed: Trials that always had memory.
        disturbed: The same trials, that had not.
    """
    lost, events, largest = 0, [], 0.0
    for one, other in zip(undisturbed, disturbed, strict=True):
        assert one.params == other.params, "the two studies drew different recipes"
        found = other.user_attrs.get("out_of_memory", [])
        events += found
        said = ", ".join(f"{e['where']} at step {e['step']}: {e['micro_batch_size']} → {e['next']}" for e in found)
        line = f"trial {one.number:2}: {other.state.name.lower()}"
        if other.state.name != "COMPLETE" or one.state.name != "COMPLETE":
            lost += other.state.name != "COMPLETE"
            yield f"{line} ({other.user_attrs.get('error') or other.user_attrs.get('reason')}); {said}"
            continue
        metrics = one.user_attrs["metrics"], other.user_attrs["metrics"]
        difference = max(abs(metrics[0][name] - metrics[1][name]) for name in metrics[0])
        largest = max(largest, difference)
        loss = abs(metrics[0]["log_loss"] - metrics[1]["log_loss"])
        yield (
            f"{line}, auc {one.value:.4f} and {other.value:.4f}; the log loss differs by {loss:.1e}, "
            f"any metric by {difference:.1e} at most; {said}"
        )
    where = {name: sum(event["where"] == name for event in events) for name in ("training", "optimizer", "evaluation")}
    told = ", ".join(f"{count} in {name}" for name, count in where.items())
    yield f"\n{len(disturbed)} trials, {lost} lost; out of memory {len(events)} times ({told})"
    yield f"largest difference of a metric between the two studies: {largest:.1e}"


def main(arguments: list[str] | None = None) -> None:
    """Trains both studies, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="automl-oom-") as runs:
        began = time.perf_counter()
        quiet, _ = train_study(Path(runs), "undisturbed", given.trials, given.seed, faults=False)
        between = time.perf_counter()
        study, injector = train_study(Path(runs), "disturbed", given.trials, given.seed, faults=True)
        seconds = between - began, time.perf_counter() - between
        print()
        print("\n".join(compare(quiet.get_trials(deepcopy=False), study.get_trials(deepcopy=False))))
        faults = [fault for drawn in injector.faults.values() for fault in drawn]
        counts = ", ".join(f"{sum(f.place == p and f.raised for f in faults)} {p}" for p in PLACES)
        print(f"injected: {sum(fault.raised for fault in faults)} of {len(faults)} drawn ({counts})")
        print(f"{seconds[0]:.0f} s undisturbed, {seconds[1]:.0f} s with memory running out")
        complete = all(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False))
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
