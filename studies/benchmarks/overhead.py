"""How much of a study's wall clock is neither training nor validation.

    python studies/benchmarks/overhead.py --data DIR --weights-dir DIR --trials 20

Runs a study with `automl.search`, in a folder that is thrown away afterwards, and shares its wall clock out:

- start-up: reading and decoding the data, choosing the pool, starting the worker, until the first trial begins;
- in trials: `fit` (training steps, validation, and the rest of it: building the network, loading batches,
  checkpoints), and what the trial does around it (drawing the recipe, predicting its memory, reporting);
- between trials: telling the storage and asking for the next trial;
- the end: from the last trial's end until `search` returns.

The figure is the share outside of `fit`; at most 10 % is the aim. The stricter one, outside of training steps and
validations alone, stands below it: it counts waiting for batches, too. Measured is one worker (one device).

Then `--count` more trials of the same study are trained in this process, with the pruner asked but not obeyed, and what
they ask of the storage is counted: SQL statements, transactions that wrote something (each may wait for the disk), and
the seconds inside storage calls; of a trial in all, and inside of `fit`, where the shares above call it training.

Memory predictions, timings and decoded images are kept in automl's cache. `--fresh-cache` pays for them anew, as the
very first study on a machine does.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from automl.study.search import SearchResult

__all__ = ["Asked", "Meter", "Moments", "Shares", "main", "share_out"]


@dataclass
class Moments:
    """A reporter that looks at the clock; all times are seconds since 1970."""

    began: float = field(default_factory=time.time)
    decoded: float | None = None
    """When the data were read and decoded."""
    chosen: float | None = None
    """When the pool was chosen."""
    ended: float = 0.0

    def print_line(self, line: str) -> None:
        """Prints the line, and remembers when a stage was reached."""
        print(line, flush=True)
        if line.startswith(("timing ", "measuring ", "pool 0:")) and not self.decoded:
            self.decoded = time.time()
        if line.startswith("pool 0:"):
            self.chosen = time.time()

    def show_progress(self, label: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Draws nothing."""
        self.print_line(label)
        return nullcontext(lambda _done, _total: None)

    def show_stop(self, line: str) -> None:
        """Draws nothing."""
        self.print_line(line)

    def show_study(self, result: Any, deadline: float | None, stopping: bool, last: bool = False) -> None:
        """Shows nothing."""


@dataclass(frozen=True)
class Shares:
    """Seconds of a study, by what they were spent on; they add up to `wall`."""

    wall: float
    data: float
    pool: float
    worker_start: float
    steps: float
    validation: float
    rest_of_fit: float
    around_fit: float
    between_trials: float
    end: float

    @property
    def outside_fit(self) -> float:
        """Share of the wall clock outside of `fit`."""
        return 1 - (self.steps + self.validation + self.rest_of_fit) / self.wall

    @property
    def outside_steps(self) -> float:
        """Share outside of training steps and validations."""
        return 1 - (self.steps + self.validation) / self.wall

    def lines(self) -> Iterator[str]:
        """One a part, then the figures."""
        parts = vars(self)
        for name, seconds in parts.items():
            yield f"{name.replace('_', ' '):15} {seconds:8.1f} s {seconds / self.wall:7.1%}"
        yield f"outside fit (training, validation): {self.outside_fit:.1%} of the wall clock; aim: at most 10 %"
        yield f"outside training steps and validations alone: {self.outside_steps:.1%}"


def share_out(trials: "list[FrozenTrial]", moments: Moments) -> Shares:
    """Shares a study's wall clock out.

    Args:
        trials: All that ran, with the user attributes `train_seconds`, `validation_seconds` and `fit_seconds`
            or, of them, `spent` (a trial that ended before its first validation has none, and counts as around fit).
        moments: When the search reached what.
    """
    trials = sorted((t for t in trials if t.datetime_start and t.datetime_complete), key=lambda t: t.datetime_start)
    if not trials:
        raise SystemExit("no trial ended: nothing to share out")
    starts = [t.datetime_start.timestamp() for t in trials]
    ends = [t.datetime_complete.timestamp() for t in trials]

    def total(name: str) -> float:
        return sum(_spent(t, name) for t in trials)

    steps, validation, fit = total("train_seconds"), total("validation_seconds"), total("fit_seconds")
    inside = sum(end - start for start, end in zip(starts, ends, strict=True))
    decoded = moments.decoded or moments.began
    chosen = moments.chosen or decoded
    return Shares(
        wall=moments.ended - moments.began,
        data=decoded - moments.began,
        pool=chosen - decoded,
        worker_start=starts[0] - chosen,
        steps=steps,
        validation=validation,
        rest_of_fit=fit - steps - validation,
        around_fit=inside - fit,
        between_trials=ends[-1] - starts[0] - inside,
        end=moments.ended - ends[-1],
    )


def _spent(trial: "FrozenTrial", name: str) -> float:
    """Read here and not by automl, so that the versions before `spent` can be measured."""
    return float((trial.user_attrs | trial.user_attrs.get("spent", {})).get(name, 0.0))


@dataclass
class Asked:
    """What a storage was asked."""

    statements: int = 0
    commits: int = 0
    """Transactions that wrote something."""
    seconds: float = 0.0

    def line(self, trials: int) -> str:
        """The figures a trial."""
        counts = f"{self.statements / trials:.0f} statements, {self.commits / trials:.0f} commits"
        return f"{counts}, {self.seconds / trials:.2f} s"


class Meter:
    """Counts what a storage is asked from now on.

    Attributes:
        all: In all.
        in_fit: Inside of `fit`.
    """

    def __init__(self, storage: "BaseStorage") -> None:
        """`storage` is one study's own; a storage without SQL has seconds alone."""
        from optuna.storages import BaseStorage
        from sqlalchemy import event

        self.all, self.in_fit = Asked(), Asked()
        self._calls, self._fits, self._wrote = 0, 0, False
        for name in dir(BaseStorage):
            if not name.startswith("_"):
                setattr(storage, name, self._timed(getattr(storage, name)))
        engine = getattr(getattr(storage, "_backend", storage), "engine", None)
        if engine is not None:
            event.listen(engine, "before_cursor_execute", self._on_statement)
            event.listen(engine, "commit", self._on_commit)

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """What is asked meanwhile is asked inside of `fit`."""
        self._fits += 1
        try:
            yield
        finally:
            self._fits -= 1

    def _add(self, **more: float) -> None:
        for asked in [self.all, self.in_fit] if self._fits else [self.all]:
            for name, value in more.items():
                setattr(asked, name, getattr(asked, name) + value)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls += 1
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._calls -= 1
                if self._calls == 0:  # methods call each other
                    self._add(seconds=time.perf_counter() - began)

        return call

    def _on_statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self._add(statements=1)
        self._wrote |= statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE"))

    def _on_commit(self, _connection: Any) -> None:
        self._add(commits=self._wrote)
        self._wrote = False


def _count(result: "SearchResult", trials: int, device: str) -> Iterator[str]:
    """Trains more trials of a study here, and says what each asked of the storage."""
    from optuna.trial import Trial

    from automl.study.storage import open_study
    from automl.study.trial import Stop
    from automl.study.trial_record import read_spec
    from automl.study.worker import run_worker
    from automl.training.fit import fit

    spec = read_spec(result.study).model_dump(mode="json")
    begun = len(result.study.get_trials(deepcopy=False))
    spec["budget"]["trials"] = begun + trials
    result.study.set_user_attr("spec", json.dumps(spec))
    study = open_study(result.folder)
    meter, should_prune = Meter(study._storage), Trial.should_prune

    def metered(*args: Any, **kwargs: Any) -> Any:
        with meter.fitting():
            return fit(*args, **kwargs)

    with (
        mock.patch("automl.study.trial.fit", metered),
        mock.patch.object(Trial, "should_prune", lambda trial: should_prune(trial) and False),
    ):
        run_worker(study, result.folder, device, Stop())
    counted = study.get_trials(deepcopy=False)[begun:]
    reports = sum(len(trial.intermediate_values) for trial in counted) / trials
    yield f"storage, a full trial of {reports:.1f} validations (mean of {trials}): {meter.all.line(trials)}"
    yield f"  of these inside fit: {meter.in_fit.line(trials)}"


def _parser() -> argparse.ArgumentParser:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder or label file (default: the demo)")
    parser.add_argument("--weights-dir", type=Path, help="folder of safetensors files")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--gpu-mem", default="16GB")
    parser.add_argument("--timeout", help="such as 40m (default: none)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="one device: cpu or cuda:0")
    parser.add_argument("--count", type=int, default=5, help="trials to count storage calls of (default: 5; 0: none)")
    parser.add_argument("--fresh-cache", action="store_true", help="pay for what the cache keeps")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Runs the study and prints the shares."""
    args = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="automl-overhead-") as folder:
        if args.fresh_cache:
            os.environ["AUTOML_CACHE"] = f"{folder}/cache"
        moments = Moments()
        from automl.study.search import search  # late: its import is a part of the start-up

        given = {"weights_dir": args.weights_dir} if args.weights_dir else {}
        result = search(
            args.data,
            gpu_mem=args.gpu_mem,
            trials=args.trials,
            timeout=args.timeout,
            confirm=0,
            runs=f"{folder}/runs",
            reporter=moments,
            seed=args.seed,
            device=args.device,
            **given,
        )
        moments.ended = time.time()
        trials = result.study.get_trials(deepcopy=False)
        lacking = [t.number for t in trials if _spent(t, "train_seconds") and not _spent(t, "fit_seconds")]
        if lacking:
            sys.exit(f"trials {lacking} do not tell their fit_seconds: this automl is too old for this benchmark")
        print(f"\n{len(trials)} trials, best {result.metric} {result.best_value}")
        print("\n".join(share_out(trials, moments).lines()))
        if args.count:
            print("\n".join(_count(result, args.count, args.device)))


if __name__ == "__main__":
    main()
