"""`automl search` as a person starts it: a real process, its worker, and what becomes of them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from automl.cli.main import app, run
from automl.errors import AutomlError
from automl.recipe import Recipe
from automl.study.claims import Snapshot, open_claims
from automl.study.folder import StudyFolder
from automl.study.storage import open_study
from automl.study.trial import Objective, TrialResult
from tests.fixtures.json_objects import check_lines
from tests.fixtures.studies import SPACE

PATIENCE = 300
"""Seconds for what takes ten on an idle machine."""


@pytest.fixture
def command(tmp_path, images):
    """A search of a tiny network on tiny pictures; longer with `epochs`."""

    def build(*more, epochs=2):
        space = tmp_path / "space.yaml"
        space.write_text(SPACE.replace("epochs: 2", f"epochs: {epochs}"))
        line = [
            sys.executable,
            "-m",
            "automl",
            "search",
            "--data",
            images,
            "--runs",
            tmp_path / "runs",
            "--space",
            space,
        ]
        line += ["--backbones", "test_byobnet*", "--pool-size", 1, "--pretrained", "never", "--pruner", "none"]
        line += ["--confirm", 0, *more]
        return [str(word) for word in line]

    return build


@pytest.fixture
def surroundings(tmp_path_factory):
    # one cache for all: backbones are timed and traced once
    cache = tmp_path_factory.getbasetemp() / "searches"
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "AUTOML_CACHE": str(cache)}
    return {**os.environ, **quiet}


def start(line, surroundings):
    return subprocess.Popen(line, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(found, process, what):
    """Waits until `found()` gives something, while the process lives."""
    deadline = time.monotonic() + PATIENCE
    while not (result := found()):
        assert process.poll() is None, f"it ended before {what}: {process.communicate()[0]}"
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)
    return result


def worker_of(runs):
    """The process id of the worker that trains in this folder."""
    return next(iter(workers_of(runs)), None)


def workers_of(runs):
    """The process ids of the workers that train in this folder, by their command lines."""
    workers = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "worker" in words and str(runs) in words:
            workers.append(int(path.parent.name))
    return workers


def wait_for_next_worker(process, runs, killed):
    """Waits until two workers train again, and a trial was taken up: the other worker may have been the first to."""
    wait_for(
        lambda: (
            len({*workers_of(runs)} - {killed}) == 2
            and any(trial.user_attrs.get("taken_up") for trial in trials_of(runs))
        ),
        process,
        "the next worker, and one that takes the trial up",
    )


def checkpoint(runs):
    return next(iter(runs.glob("*/trials/*/checkpoint.pt")), None)


def trials_of(runs):
    return optuna.load_study(study_name="tones", storage=f"sqlite:///{runs / 'tones' / 'study.db'}").trials


@pytest.mark.slow
def test_a_search_whose_worker_is_killed_and_that_is_stopped_goes_on_to_the_best_recipe(
    command, surroundings, tmp_path
):
    """One story, since each start of a process costs five seconds: every part goes on with what the last one left."""
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "tones"
    line = command("--trials", 2, epochs=60)
    process = start(line, surroundings)
    try:
        wait_for(lambda: checkpoint(runs), process, "a checkpoint")
        killed = worker_of(runs)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: trials_of(runs)[0].user_attrs.get("taken_up"), process, "the trial to be taken up")
        worker = worker_of(runs)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, printed
    assert "run the same command again to continue" in printed
    assert worker != killed
    assert not Path(f"/proc/{worker}").exists()
    (parked,) = [trial for trial in trials_of(runs) if trial.state == TrialState.RUNNING]
    assert (parked.number, parked.user_attrs["taken_up"]) == (0, 1)
    done = subprocess.run(line, env=surroundings, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = trials_of(runs)
    assert [(trial.number, trial.state) for trial in trials] == [(k, TrialState.COMPLETE) for k in range(2)]
    assert trials[0].params == parked.params
    assert [trial.user_attrs.get("taken_up", 0) for trial in trials] == [2, 0]
    assert all(trial.user_attrs["spent"]["epochs_done"] == 60 for trial in trials)
    best, table = Recipe.load(folder / "best.yaml"), pd.read_csv(folder / "trials.csv")
    assert best.backbone == "test_byobnet.r160_in1k"
    assert list(table["number"]) == [0, 1]
    assert set(table["state"]) == {"complete"}
    for part in ("continuing study tones: 0 of 2 trials done", "best recipe: trial", "top", "2 complete"):
        assert part in done.stdout
    assert "automl best tones" in done.stdout
    assert str(folder / "best.yaml") in done.stdout
    assert f"automl confirm tones --runs {runs}" in done.stdout
    assert "training on the CPU" in printed
    assert "Traceback" not in printed + done.stdout + done.stderr


def check_continued(line, surroundings, runs, trials, epochs, taken_up):
    """Runs the same command to its end: each trial is complete, was ended once and has no worker any more."""
    done = subprocess.run(line, env=surroundings, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    ended, folder = trials_of(runs), runs / "tones"
    assert [(trial.number, trial.state) for trial in ended] == [(k, TrialState.COMPLETE) for k in range(trials)]
    assert all(trial.user_attrs["spent"]["epochs_done"] == epochs for trial in ended)
    assert sum(trial.user_attrs.get("taken_up", 0) for trial in ended) == taken_up
    logs = "".join(path.read_text() for path in (folder / "workers").glob("*.log"))
    assert sorted(re.findall(r"trial (\d): complete", logs)) == [str(k) for k in range(trials)]
    assert open_claims(open_study(StudyFolder(folder))).read() == Snapshot({}, {})


@pytest.mark.slow
def test_two_workers_of_which_one_and_the_supervisor_are_killed(command, surroundings, tmp_path):
    """One story again: four trials in all, none twice, none lost, and no worker outlives its supervisor."""
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "tones"
    line = command("--trials", 4, "--device", "cpu,cpu", epochs=40)
    process = start(line, surroundings)
    try:
        wait_for(lambda: len([*runs.glob("*/trials/*/checkpoint.pt")]) == 2, process, "two checkpoints")
        first = workers_of(runs)
        os.kill(first[0], signal.SIGKILL)
        wait_for_next_worker(process, runs, first[0])
        second = workers_of(runs)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + PATIENCE
        while workers_of(runs):
            assert time.monotonic() < deadline, "a worker outlives its supervisor"
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    parked = sum(trial.state == TrialState.RUNNING for trial in trials_of(runs))
    taken_up = sum(trial.user_attrs.get("taken_up", 0) for trial in trials_of(runs))
    assert taken_up >= 1
    assert parked >= 1
    assert len(first) == len(second) == 2
    assert len({*first, *second}) == 3
    assert (folder / "workers" / "cpu-0.log").exists()
    check_continued(line, surroundings, runs, trials=4, epochs=40, taken_up=taken_up + parked)


def descendants_of(process):
    """The process ids of what a process has started, and so on."""
    found = [process.pid]
    for parent in found:
        found += children_of(parent)
    return found[1:]


def children_of(pid):
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_two_workers_on_ray_of_which_one_is_killed_with_its_actor(command, surroundings, tmp_path):
    """One story again: nothing outlives the search, which goes on without Ray."""
    pytest.importorskip("ray", reason="Ray is not installed")
    runs = tmp_path / "runs"
    surroundings["RAY_ADDRESS"] = "local"  # whatever runs on this machine
    line = command("--trials", 3, epochs=30)
    process = start([*line, "--on", "ray", "--worker-cpus", "1", "--workers", "2"], surroundings)
    try:
        wait_for(lambda: len([*runs.glob("*/trials/*/checkpoint.pt")]) == 2, process, "two checkpoints")
        first = workers_of(runs)
        (actor,) = (pid for pid in descendants_of(process) if first[0] in children_of(pid))
        os.kill(actor, signal.SIGKILL)
        wait_for_next_worker(process, runs, first[0])
        second, started = workers_of(runs), descendants_of(process)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, printed
    assert "(raylet)" not in printed
    assert len(first) == len(second) == 2
    assert len({*first, *second}) == 3
    assert {*second} < {*started}
    assert not [pid for pid in started if is_alive(pid)]
    parked = sum(trial.state == TrialState.RUNNING for trial in trials_of(runs))
    taken_up = sum(trial.user_attrs.get("taken_up", 0) for trial in trials_of(runs))
    check_continued(line, surroundings, runs, trials=3, epochs=30, taken_up=taken_up + parked)


@pytest.mark.slow
def test_json_of_a_search_that_is_stopped_and_continued(command, surroundings, tmp_path):
    """Standard output is JSON alone; the events are those of this call."""
    runs = tmp_path / "runs"
    line = [*command("--trials", 2, epochs=30), "--json"]
    process = subprocess.Popen(line, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: checkpoint(runs), process, "a checkpoint")
        process.send_signal(signal.SIGINT)
        printed, shown = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    stopped = check_lines(printed, "search")
    names = [one["event"] for one in stopped]
    assert process.returncode == 130, shown
    assert names[0] == "started"
    assert names.index("study") < names.index("pool") < names.index("progress") < names.index("stopping")
    assert names[-1] == "finished"
    assert stopped[-1]["interrupted"]
    assert "stopping after this epoch; Ctrl-C again stops now; the same command continues" in shown.splitlines()
    done = subprocess.run(line, env=surroundings, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    events = check_lines(done.stdout, "search")
    opened = next(one for one in events if one["event"] == "study")
    ended = [one["number"] for one in events if one["event"] == "trial"]
    assert (opened["trials_wanted"], opened["trials_ended"] + len(ended)) == (2, 2)
    assert events[-1]["trials_by_state"] == {"complete": 2}
    assert [one["value"] for one in events if one["event"] == "best"][-1] == events[-1]["value"]
    assert Recipe.from_mapping(events[-1]["recipe"]) == Recipe.load(Path(events[-1]["recipe_path"]))
    assert f"trial {ended[-1]} complete" in done.stderr


@pytest.mark.slow
def test_the_script_of_the_page_drives_a_search_to_a_model(command, surroundings, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.S | re.M)
    (tmp_path / "drive.py").write_text(script)
    words = command("--trials", 2)
    line = [sys.executable, str(tmp_path / "drive.py"), *words[words.index("search") + 1 :]]
    how = {"env": surroundings, "capture_output": True, "text": True, "timeout": PATIENCE, "cwd": tmp_path}
    done = subprocess.run(line, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    *trials, best, model = done.stdout.splitlines()
    assert len(trials) == 2
    assert re.fullmatch(r"best auc \d\.\d{4} by trial [01]: .*/best\.yaml", best)
    assert (tmp_path / model.removeprefix("model: ") / "model.safetensors").is_file()
    failed = subprocess.run([*line, "--metric", "nonesuch"], **how)
    assert failed.returncode == 1
    assert "no result: " in failed.stderr


@pytest.mark.slow
def test_a_timeout_ends_the_search(command, surroundings, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOML_CACHE", surroundings["AUTOML_CACHE"])
    began = time.monotonic()
    line = command("--trials", 9999, "--timeout", "8s", epochs=30)
    done = CliRunner().invoke(app, line[3:])
    assert time.monotonic() - began < 60  # 8 and, at worst, the grace for a checkpoint
    if (tmp_path / "runs" / "tones" / "trials.csv").exists():
        assert done.exit_code == (0 if (tmp_path / "runs" / "tones" / "best.yaml").exists() else 1), done.output
    else:
        assert "no backbone" in str(done.exception)  # where 8 seconds are too short to time one


@pytest.mark.parametrize(("given", "wanted"), [([], 3), (["--confirm", "5"], 5), (["--confirm", "0"], 0)])
def test_how_many_recipes_are_confirmed(monkeypatch, given, wanted):
    asked = {}

    def search(**how):
        asked.update(how)
        raise AutomlError("enough")

    monkeypatch.setattr("automl.study.search.search", search)
    CliRunner().invoke(app, ["search", *given])
    assert asked["confirm"] == wanted


@pytest.mark.usefixtures("one_process")
def test_a_search_without_a_complete_trial_has_exit_code_1_and_says_why(command, surroundings, monkeypatch, capfd):
    monkeypatch.setenv("AUTOML_CACHE", surroundings["AUTOML_CACHE"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ended = TrialResult(TrialState.PRUNED, reason="behind")
    monkeypatch.setattr(Objective, "__call__", lambda *_: ended)
    with pytest.raises(SystemExit) as caught:
        run([*command("--trials", 2)[3:], "--json"])
    assert caught.value.code == 1
    printed = capfd.readouterr()
    last = check_lines(printed.out, "search")[-1]
    assert (last["event"], last["best"], last["trials_by_state"]) == ("finished", None, {"pruned": 2})
    assert (
        "no trial is complete, and all 2 have ended; 2 pruned: behind; mend that, and give more --trials" in printed.err
    )


# --- mistakes -----------------------------------------------------------------------------------------------------

MISTAKES = {
    "data": (["--data", "/no/such/data"], "/no/such/data"),
    "size": (["--gpu-mem", "sixteen"], "--gpu-mem: not a size"),
    "duration": (["--timeout", "soon"], "--timeout: not a duration"),
    "metric": (["--metric", "acc"], "metric"),
    "sampler": (["--sampler", "tp"], "sampler"),
    "pruner": (["--pruner", "axe"], "pruner"),
    "name": (["--name", "../up"], "name"),
    "storage": (["--storage", "study.db"], "not a storage: 'study.db'"),
    "space": (["--space", "/no/such/space.yaml"], "/no/such/space.yaml"),
    "spec": (["--spec", "nonesuch"], "nonesuch"),
    "board": (["--board", "imagenet-x"], "imagenet-x"),
    "backbones": (["--backbones", "nonesuch*"], "nonesuch*"),
    "weights": (["--weights-dir", "/no/such/weights"], "/no/such/weights"),
    "device": (["--device", "cuda:97"], "cuda:97"),
    "real class": (["--real-class", "genuine"], "genuine"),
    "seed": (["--seed", "-1"], "seed"),
}


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_before_anything_is_trained(images, tmp_path, monkeypatch, mistake):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    given, message = MISTAKES[mistake]
    found = CliRunner().invoke(app, ["search", "--data", str(images), "--pretrained", "never", *given])
    assert isinstance(found.exception, AutomlError), found.output
    assert message in str(found.exception)
    assert len(str(found.exception).splitlines()) <= 2
    assert not list(tmp_path.glob("runs/*"))


def test_a_mistake_in_the_space_file_is_told_with_its_line(images, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("epochs: 2\nlearning_rat: 1e-3\n")
    found = CliRunner().invoke(app, ["search", "--data", str(images), "--space", str(path)])
    assert isinstance(found.exception, AutomlError)
    assert "space.yaml line 2" in str(found.exception)
    assert "learning_rate" in str(found.exception)


def test_a_mistake_is_one_line_and_code_2(tmp_path, capfd):
    with pytest.raises(SystemExit) as caught:
        run(["search", "--data", str(tmp_path / "nowhere")])
    assert caught.value.code == 2
    printed = capfd.readouterr().err
    assert printed.startswith("Error: ")
    assert len(printed.splitlines()) == 1


def test_a_worker_of_an_unknown_study_is_told(tmp_path):
    storage = f"sqlite:///{tmp_path / 'x.db'}"
    found = CliRunner().invoke(app, ["worker", "--storage", storage, "--study", "bees", "--runs", str(tmp_path)])
    assert isinstance(found.exception, AutomlError)
    assert "no study 'bees'" in str(found.exception)
