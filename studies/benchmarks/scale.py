"""What a study of many trials and many workers costs: statements and seconds a trial, and workers that are busy.

    python studies/benchmarks/scale.py --trials 100 1000 10000
    python studies/benchmarks/scale.py --simulate 5000 --workers 64

A database holds finished trials of a shipped search space. Then a worker takes, draws, reports and ends some more, as
in a search, but trains nothing; what it asks of the storage is counted, by step: SQL statements, and seconds. `look` is
what a supervisor does each time it shows the study. `--storage URL` is the database (by default SQLite); for
PostgreSQL give `postgresql+psycopg://…/name`, an empty database.

`--simulate` lets so many workers run a study in simulated time: each trial takes as long as a real one (log-normal, the
median by `--seconds`, nine in ten within a factor of four), while taking, drawing, reporting and ending are really
done, one worker after the other, and their seconds count as the worker's time. Each worker has its own connection and
its own cache, as a process has. A worker is busy while its trial trains. With SQLite the seconds are the processor's,
so that other programs do no harm; with a server they are the clock's. What is not simulated: that workers wait for
each other in the database, which `--contend` measures with real processes, and the workers' signs of life.
"""

import argparse
import heapq
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from automl.space.space import Space, load_space
from automl.spec import StudySpec
from automl.study import membership, worker
from automl.study.artifacts import Artifacts, open_artifacts
from automl.study.folder import StudyFolder
from automl.study.membership import Membership
from automl.study.samplers import make_pruner
from automl.study.storage import open_storage, open_study, read_trials_once
from automl.study.trial import TrialResult
from automl.study.trial_record import write_study_record, write_trial_record
from automl.training.schedule import EIGHTHS

_BACKBONES = 8


class Meter:
    """Counts statements and seconds by step."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.statements: dict[str, list[int]] = defaultdict(list)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._count = 0

    def watch(self, study: optuna.Study) -> None:
        """Counts the statements of a study's connection."""
        event.listen(study._storage.engine, "before_cursor_execute", self._note)

    def _note(self, *_: Any) -> None:
        self._count += 1

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Counts what is done within as a step."""
        count, started = self._count, self.clock()
        yield
        self.seconds[name].append(self.clock() - started)
        self.statements[name].append(self._count - count)


def new_study(folder: StudyFolder, storage: str, sampler: str, trials: int) -> optuna.Study:
    """Creates a study without data or pool, of which a worker's steps are real."""
    spec = StudySpec.from_mapping(
        {"name": folder.name, "sampler": sampler, "budget": {"trials": trials}, "storage": storage}, "benchmark"
    )
    folder.make_folders()
    folder.storage_note.write_text(storage + "\n", encoding="utf-8")
    study = optuna.create_study(study_name=folder.name, storage=open_storage(storage), direction="maximize")
    write_study_record(study, spec=spec.model_dump_json())
    study.pruner = make_pruner(spec)
    return study


def make_finished(space: Space, count: int, seed: int = 0) -> list[optuna.trial.FrozenTrial]:
    """Makes finished trials of a space, drawn at random, with the attributes that real ones have."""
    scratch = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed), direction="maximize")
    draws = random.Random(seed)
    for _ in range(count):
        trial = scratch.ask()
        values = draw(space, trial)
        score = score_of(values, draws)
        for eighth in (1, 2, 4, 8):
            trial.report(score * (0.8 + 0.025 * eighth), eighth)
        scratch.tell(trial, score)
    attributes = {"backbone": "resnet18.a1_in1k", "host": "node", "view": "image", "image_size": 224, "epochs": 8.0}
    attributes |= {"metrics": {"auc": 0.9, "log_loss": 0.4}, "spent": {"epochs_done": 8.0, "fit_seconds": 200.0}}
    attributes |= {"recipe": "{" + " " * 2000 + "}"}
    return [
        create_trial(
            value=one.value,
            params=one.params,
            distributions=one.distributions,
            intermediate_values=one.intermediate_values,
            user_attrs=attributes,
        )
        for one in scratch.trials
    ]


def draw(space: Space, trial: optuna.Trial) -> dict[str, Any]:
    """Draws a recipe."""
    return space.suggest_recipe(trial, backbones=_BACKBONES, self_blend=False)


def score_of(values: dict[str, Any], draws: random.Random) -> float:
    """Returns a made-up metric, better with a learning rate near 1e-3."""
    return 0.9 - abs(values["learning_rate"] - 1e-3) * 20 + draws.gauss(0, 0.02)


def run_trial(study: optuna.Study, artifacts: Artifacts, member: Membership, space: Space, meter: Meter) -> bool:
    """Takes, draws, reports and ends a trial as a worker does; False if there is none."""
    draws = random.Random()
    with meter.step("take"):
        context = worker._take_trial(study, artifacts, member)
        taken = context.__enter__()
    if taken is None:
        context.__exit__(None, None, None)
        return False
    trial, _ = taken
    with meter.step("draw"), read_trials_once(study):
        values = draw(space, trial)
    with meter.step("report"):
        write_trial_record(trial, backbone="resnet18.a1_in1k", host="node")
        write_trial_record(trial, recipe="{" + " " * 2000 + "}", image_size=224, epochs=8.0, view="image")
        score = score_of(values, draws)
        for eighth in range(1, EIGHTHS + 1):
            trial.report(score * (0.8 + 0.025 * eighth), eighth)
            write_trial_record(trial, spent={"epochs_done": eighth})
            trial.should_prune()
        write_trial_record(trial, metrics={"auc": score})
    with meter.step("end"):
        assert member.still_has(trial._trial_id)
        worker._end_trial(study, artifacts, trial, TrialResult(TrialState.COMPLETE, score))
        context.__exit__(None, None, None)
        worker._check_failures(study)
    return True


def fill(study: optuna.Study, trials: list[optuna.trial.FrozenTrial]) -> None:
    """Adds finished trials."""
    for done, trial in enumerate(trials, 1):
        study.add_trial(trial)
        if done % 1000 == 0:
            print(f"  added {done} of {len(trials)} trials", flush=True)


@contextmanager
def silence() -> Iterator[None]:
    """Keeps what a worker prints out of the table."""
    kept = sys.stdout
    with open(os.devnull, "w") as sys.stdout:  # noqa: PTH123 - no path
        try:
            yield
        finally:
            sys.stdout = kept


def measure(folder: StudyFolder, storage: str, sizes: list[int], sampler: str, count: int) -> None:
    """Prints statements and seconds a trial at each size of a study."""
    space = load_space("image")
    study = new_study(folder, storage, sampler, max(sizes) + 10_000)
    finished = make_finished(space, max(sizes))
    print(f"{study._storage.engine.dialect.name}, sampler {sampler}, {count} trials of one worker at each size")
    print("| trials | step | statements | milliseconds, median | most |")
    print("|---|---|---|---|---|")
    added = 0
    for size in sorted(sizes):
        fill(study, finished[added:size])
        added = size
        fresh = open_study(folder)
        fresh.pruner = study.pruner
        with Membership(fresh, "cpu") as member:
            store = open_artifacts(fresh, folder)
            run_trial_quietly(fresh, store, member, space, Meter())  # reads all trials once, as a new worker does
            meter = Meter()
            meter.watch(fresh)
            looker = Meter()
            looking = open_study(folder)
            looking.get_trials(deepcopy=False)
            looker.watch(looking)
            for _ in range(count):
                run_trial_quietly(fresh, store, member, space, meter)
                with looker.step("look"):
                    looking.get_trials(deepcopy=False)
        for name, seconds in (meter.seconds | looker.seconds).items():
            statements = (meter.statements | looker.statements)[name]
            print(
                f"| {size:,} | {name} | {statistics.median(statements):.0f} | "
                f"{1e3 * statistics.median(seconds):.1f} | {1e3 * max(seconds):.1f} |",
                flush=True,
            )


def run_trial_quietly(*arguments: Any) -> bool:
    """Runs a trial without a line."""
    with silence():
        return run_trial(*arguments)


def simulate(
    folder: StudyFolder,
    storage: str,
    trials: int,
    workers: int,
    sampler: str,
    median: float,
    budget: float,
    filled: int,
) -> None:
    """Prints how busy simulated workers are, and what a trial costs them."""
    space, draws = load_space("image"), random.Random(0)
    fill(new_study(folder, storage, sampler, trials), make_finished(space, filled))
    membership._LOCAL_SECONDS = membership._REMOTE_SECONDS = 1e6  # one process would give the signs of life of all
    meter = Meter(time.process_time if storage.startswith("sqlite") else time.perf_counter)
    studies = [open_study(folder) for _ in range(workers)]
    stores = [open_artifacts(study, folder) for study in studies]
    members = [Membership(study, f"cpu-{k}") for k, study in enumerate(studies)]
    for study, member in zip(studies, members, strict=True):
        study.pruner = make_pruner(StudySpec.from_mapping({"name": "x"}, "benchmark"))
        study.get_trials(deepcopy=False)  # what a worker has read that was there from the begin
        meter.watch(study)
        member.__enter__()
    queue = [(draws.random() * median, k) for k in range(workers)]
    heapq.heapify(queue)
    busy, clock, ended, began = 0.0, 0.0, 0, time.monotonic()
    rows: list[tuple[int, float]] = []
    while queue:
        now, k = heapq.heappop(queue)
        started = meter.clock()
        if not run_trial_quietly(studies[k], stores[k], members[k], space, meter):
            continue
        cost = meter.clock() - started
        seconds = median * draws.lognormvariate(0, 0.84)
        busy += seconds
        clock = max(clock, now + cost + seconds)
        heapq.heappush(queue, (now + cost + seconds, k))
        ended += 1
        rows.append((ended, cost))
        if ended % 500 == 0:
            print(f"  {ended} trials, {time.monotonic() - began:.0f} s", flush=True)
        if time.monotonic() - began > budget:
            print(f"  stopped after {ended} of {trials} trials: the time for this benchmark is over")
            break
    for member in members:
        member.__exit__(None, None, None)
    costs = [cost for _, cost in rows]
    print(f"{studies[0]._storage.engine.dialect.name}, sampler {sampler}: {workers} workers, {ended} trials")
    print(f"trials of a median of {median:.0f} s; busy {100 * busy / (busy + sum(costs)):.1f} % of the time")
    for name, seconds_of in meter.seconds.items():
        taken = sorted(seconds_of)
        p50, p99 = taken[len(taken) // 2], taken[int(0.99 * len(taken))]
        calls = statistics.mean(meter.statements[name])
        print(f"  {name}: {calls:.1f} statements, p50 {1e3 * p50:.0f} ms, p99 {1e3 * p99:.0f} ms")
    for share in (0.1, 0.5, 1.0):
        last = costs[max(0, int(share * len(costs)) - 50) : int(share * len(costs))]
        print(f"  around trial {int(share * len(costs))}: {statistics.mean(last):.2f} s of a worker's time a trial")


_CONTENDER = """
import sys, time
from pathlib import Path
from studies.benchmarks.scale import Meter, run_trial
from automl.space.space import load_space
from automl.study.folder import StudyFolder
from automl.study.membership import Membership
from automl.study.samplers import make_pruner
from automl.study.artifacts import open_artifacts
from automl.study.storage import open_study
from automl.study.trial_record import read_spec
folder = StudyFolder(Path(sys.argv[1]))
study, space, meter = open_study(folder), load_space("image"), Meter()
study.pruner = make_pruner(read_spec(study))
kept, sys.stdout = sys.stdout, sys.stderr
with Membership(study, "cpu") as member:
    print("ready", file=kept, flush=True)
    sys.stdin.readline()
    while run_trial(study, open_artifacts(study, folder), member, space, meter):
        time.sleep(float(sys.argv[2]))
print(*meter.seconds["take"], file=kept)
"""


def contend(folder: StudyFolder, storage: str, trials: int, workers: int, pause: float) -> None:
    """Prints how long real processes take for a trial when all want one at the same time."""
    study = new_study(folder, storage, "random", trials)
    command = [sys.executable, "-c", _CONTENDER, str(folder.path), str(pause)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, text=True, env=environment, **pipes) for _ in range(workers)]
    for process in processes:
        process.stdout.readline()
    started = time.perf_counter()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    taken = sorted(float(word) for process in processes for word in process.communicate()[0].split())
    seconds = time.perf_counter() - started
    numbers = [trial.number for trial in study.trials]
    assert numbers == list(range(trials)), "a trial is missing or there is one too many"
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    p50, p99 = taken[len(taken) // 2], taken[int(0.99 * len(taken))]
    print(
        f"{study._storage.engine.dialect.name}: {workers} processes that pause {pause:g} s between {trials} trials: "
        f"{seconds:.0f} s, {trials / seconds:.0f} trials a second; taking one p50 {1e3 * p50:.0f} ms, "
        f"p99 {1e3 * p99:.0f} ms"
    )


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--count", type=int, default=10, help="trials that are measured at each size")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--storage", help="an empty database; by default SQLite in a temporary folder")
    parser.add_argument("--simulate", type=int, metavar="TRIALS")
    parser.add_argument("--contend", type=int, metavar="TRIALS")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two trials, for --contend")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0, help="the median of a trial")
    parser.add_argument("--filled", type=int, default=0, help="trials that had ended before the simulation begins")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which the simulation ends")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = StudyFolder(Path(temporary) / f"scale-{os.getpid()}")
        storage = given.storage or f"sqlite:///{temporary}/study.db"
        if given.simulate:
            args = (given.simulate, given.workers, given.sampler, given.seconds, given.budget, given.filled)
            simulate(folder, storage, *args)
        elif given.contend:
            contend(folder, storage, given.contend, given.workers, given.pause)
        else:
            measure(folder, storage, given.trials, given.sampler, given.count)


if __name__ == "__main__":
    main()
