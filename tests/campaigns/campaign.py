"""What the campaigns on workers share: a study of tiny trials, workers that note each step, and the account.

Workers are forked from a process that has imported what they need (`fresh=True`: started from nothing), because
importing takes five seconds of a core, a trial half a second. Nobody looks after them but the campaign: it
is the supervisor that starts another one.
"""

import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState
from PIL import Image

from automl.data.cache import build_cache
from automl.data.dataset import open_dataset
from automl.space.space import parse_space
from automl.study.folder import StudyFolder
from automl.study.pool import Pool
from automl.study.setup import StudySetup, create_study
from automl.study.storage import open_study
from tests.campaigns.watched_worker import MOMENTS, moment_file, work
from tests.fixtures.studies import SPACE, entry, spec_of

ROOT = Path(__file__).parents[2]
EPOCHS = 8
_PRELOAD = ["torch", "timm", "automl.cli.worker", "automl.study.worker", "psycopg", "automl.cli.main"]


def draw_images(root):
    """Two kinds of noise, one brighter: (32, 32) pictures in a folder for each."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for k in range(24):
            pixels = random.integers(0, 120, (32, 32, 3)) + 60 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{k:02}.png")
    return root


@dataclass
class Worker:
    """One process; `process` is of multiprocessing or of subprocess."""

    process: multiprocessing.process.BaseProcess | subprocess.Popen
    notes: Path
    log: Path

    @property
    def code(self):
        """The exit code; None while it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    @property
    def moment(self):
        return MOMENTS.get(moment_file(self.notes).read_text() if moment_file(self.notes).exists() else "s")

    def kill(self):
        self.process.kill()
        self.wait()

    def wait(self, timeout=None):
        getattr(self.process, "wait", None) and self.process.wait(timeout)
        getattr(self.process, "join", None) and self.process.join(timeout)
        return self.code


@dataclass
class Campaign:
    """A study, its workers, and what they did."""

    folder: Path
    """Holds everything."""
    trials: int
    storage: str | None = None
    """None: the embedded one."""
    pause: float = 0.02
    """Seconds that each step takes in addition."""
    artifacts: str | None = None
    runs: Path = None
    logs: Path = None
    """Where what workers print is written."""
    injected: int = 0
    deaths: Counter = field(default_factory=Counter)
    """Of workers that nobody killed, by their exit code."""
    moments: Counter = field(default_factory=Counter)
    """What those were doing that were killed."""
    workers: list[Worker] = field(default_factory=list)
    study: optuna.Study = None
    _started: int = 0
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self):
        os.environ["AUTOML_CACHE"] = str(self.folder / "cache")
        os.environ["HF_HUB_OFFLINE"] = "1"
        self.runs = self.runs or self.folder / "runs"
        self.images = draw_images(self.folder / "tones")
        (self.folder / "notes").mkdir()
        self.logs = self.logs or self.folder / "notes"
        self.study_folder = StudyFolder(self.runs / "tones")
        self.create_study()
        self.forks = multiprocessing.get_context("forkserver")
        self.forks.set_forkserver_preload(_PRELOAD)

    def create_study(self):
        budget = {"trials": self.trials}
        spec = spec_of(self.images, budget=budget, storage=self.storage, seed=1, artifacts=self.artifacts)
        dataset = open_dataset(spec.data, spec.seed)
        build_cache(dataset, 32)
        space = parse_space(SPACE.replace("epochs: 2", f"epochs: {EPOCHS}"))
        setup = StudySetup(dataset, space, Pool((entry(),)), metric="auc", cache_size=32)
        self.study = create_study(self.study_folder, spec, setup)
        self.storage = self.storage or self.study_folder.storage_url

    # --- workers

    def start_worker(self, storage=None, runs=None, fresh=False, env=None, wrapper=(), words=()):
        """Starts a worker; `wrapper` are words before the interpreter, which needs `fresh`."""
        self._started += 1
        notes, log = self.folder / "notes" / f"{self._started:04}", self.logs / f"{self._started:04}.log"
        command = ["worker", "--study", "tones", "--storage", storage or self.storage]
        command += ["--runs", str(runs or self.runs), *words]
        if fresh or env or wrapper:
            program = [*wrapper, sys.executable, "-m", "tests.campaigns.watched_worker", notes, str(self.pause)]
            with log.open("ab") as sink:
                process = subprocess.Popen(
                    [*program, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
                    start_new_session=True,
                )
        else:
            process = self.forks.Process(target=work, args=(notes, self.pause, command, log), daemon=True)
            process.start()
        worker = Worker(process, notes, log)
        self.workers.append(worker)
        return worker

    def replace_dead(self, **how):
        """Starts another worker for each that has died; returns whether some still work."""
        for worker in list(self.workers):
            if worker.code is None:
                continue
            self.workers.remove(worker)
            if worker.code != 0:
                self.deaths[worker.code] += 1
                print(f"worker ended with {worker.code}: {worker.log.read_text()[-1500:]}")
                assert sum(self.deaths.values()) < 20, "workers die by themselves"
                self.start_worker(**how)
        return bool(self.workers)

    def wait_for_end(self, seconds, **how):
        """Waits until the workers have left by themselves."""
        until = time.monotonic() + seconds
        while self.replace_dead(**how):
            assert time.monotonic() < until, f"not ended: {self.describe_states()}"
            time.sleep(0.1)

    def kill_all(self):
        for worker in self.workers:
            worker.kill()

    # --- the account

    def read_trials(self):
        return open_study(self.study_folder, self.storage).get_trials(deepcopy=False)

    def describe_states(self):
        return dict(Counter(trial.state.name for trial in self.read_trials()))

    @staticmethod
    def notes_of(worker):
        """What a worker noted: (moment, process, trial, words)."""
        rows = [line.split() for line in worker.notes.read_text().splitlines()] if worker.notes.exists() else []
        return [(float(moment), int(process), int(trial), words) for moment, process, trial, *words in rows]

    def read_notes(self):
        """What all noted, in the order of time."""
        paths = [path for path in sorted((self.folder / "notes").iterdir()) if not path.suffix]
        return sorted(note for path in paths for note in self.notes_of(Worker(None, path, path)))

    def read_logs(self):
        return "".join(path.read_text() for path in sorted(self.logs.glob("*.log")))

    def account(self, reference=None, overlaps_allowed=False):
        """Counts, prints a table, and asserts that nothing was lost or doubled; `reference`: trials of a calm run."""
        trials, notes = self.read_trials(), self.read_notes()
        numbers = Counter(trial.number for trial in trials)
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        lost = self.trials - len({trial.number for trial in complete})
        reports = [t.number for t in complete if sorted(t.intermediate_values) != list(range(1, 9))]
        trained, ends, overlaps = defaultdict(int), Counter(), set()
        processes = defaultdict(list)
        total = 0
        for _, process, trial, words in notes:
            if words[0] == "step":
                trained[trial] += 1
                total = int(words[2])
                if not processes[trial] or processes[trial][-1] != process:
                    processes[trial].append(process)
            elif words[0] == "end":
                ends[trial] += 1
        for trial, order in processes.items():
            if len(order) != len(set(order)):
                overlaps.add(trial)  # a process trained on after another one had
        doubled = {trial for trial, count in (numbers + Counter()).items() if count > 1 or trial >= self.trials}
        doubled |= {trial for trial, count in ends.items() if count > 1}
        repeated = sum(steps - total for steps in trained.values()) * EPOCHS / total if total else 0.0
        same = list(zip(complete, reference or [], strict=False))
        # Killed between two draws, the next worker draws the rest anew: another recipe, as good as the first.
        redrawn = [one.number for one, other in same if one.params != other.params]
        different = [
            (one.number, one.value, other.value, one.intermediate_values, other.intermediate_values)
            for one, other in same
            if one.params == other.params
            and (one.value, one.intermediate_values) != (other.value, other.intermediate_values)
        ]
        rows = {
            "injected": self.injected,
            "survived": self.injected - sum(self.deaths.values()),
            "trials": f"{len(complete)} of {self.trials}",
            "trials lost": lost,
            "trials doubled": len(doubled),
            "trained by two at once": len(overlaps),
            "reports missing": len(reports),
            "epochs repeated": f"{repeated:.1f} of {len(trials) * EPOCHS}",
            "minutes": f"{(time.monotonic() - self._began) / 60:.1f}",
        }
        if reference:
            rows["other results than in a calm run"] = f"{len(different)} of {len(same) - len(redrawn)}"
            rows["of another recipe, drawn anew"] = len(redrawn)
        if self.moments:
            rows["while"] = ", ".join(f"{what} {count}" for what, count in sorted(self.moments.items()))
        if self.deaths:
            rows["died by themselves"] = dict(self.deaths)
        print("\n" + "\n".join(f"{name:>34}  {value}" for name, value in rows.items()))
        for trial in trials:
            if trial.state != TrialState.COMPLETE:
                told = {name: trial.user_attrs.get(name) for name in ("error", "reason", "taken_up")}
                error = self.study_folder.trial_folder(trial.number) / "error.txt"
                text = error.read_text()[-3000:] if error.exists() else ""
                print(
                    f"trial {trial.number}: {trial.state.name} {told} {len(trial.intermediate_values)} reports\n{text}"
                )
        tracebacks = re.findall(r"^[\w.]*(?:Error|Exception|Warning)\b.*", self.read_logs(), re.MULTILINE)
        assert not tracebacks, tracebacks[:5]
        assert (lost, len(trials), sorted(doubled), reports, different) == (0, self.trials, [], [], [])
        assert overlaps_allowed or not overlaps
        return rows
