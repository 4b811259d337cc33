import os
import sys
import time

import optuna
import pytest

from automl.devices import LEAKED, POISONED
from automl.errors import StudyError
from automl.study import supervisor as supervisor_module
from automl.study import worker_process
from automl.study.claims import Snapshot, WorkerRow, open_claims
from automl.study.folder import StudyFolder
from automl.study.membership import Membership, Watch
from automl.study.storage import open_storage
from automl.study.supervisor import Supervisor
from automl.study.worker_process import LocalProcess, WorkerJob


@pytest.fixture
def supervised(tmp_path, monkeypatch):
    """A supervisor whose workers are shell scripts, each start taking the next one."""

    def make(*scripts, **values):
        folder = StudyFolder(tmp_path / "runs" / "tones")
        folder.make_folders()
        left = list(scripts)

        started = []

        def start(job):
            started.append(job.label)
            script = left.pop(0) if len(left) > 1 else left[0]
            monkeypatch.setattr(WorkerJob, "command", ["sh", "-c", script])
            return LocalProcess(job)

        supervisor = Supervisor(folder, ("cpu",), start_worker=start, **values)
        supervisor.started = started
        return supervisor

    return make


def watch(supervisor, at_tick=lambda _: None):
    ticks = []

    def tick():
        ticks.append(None)
        at_tick(len(ticks))
        assert len(ticks) < 2000, "the study does not end"

    url = supervisor.folder.storage_url
    study = optuna.create_study(study_name="tones", storage=open_storage(url), load_if_exists=True)
    supervisor.watch_workers(study, supervisor.folder.storage_url, tick, period_seconds=0.01)
    return len(ticks)


def test_a_study_ends_when_its_worker_has_nothing_left(supervised):
    supervisor = supervised("exit 0")
    assert watch(supervisor) >= 1
    assert supervisor.workers == []
    assert supervisor.replaced == 0


@pytest.mark.parametrize("death", ["kill -9 $$", "exit 1", "kill -SEGV $$"])
def test_a_worker_that_dies_is_replaced(supervised, death):
    supervisor = supervised(death, death, "exit 0")
    watch(supervisor)
    assert supervisor.replaced == 2


def test_a_worker_that_always_dies_at_once_ends_the_study_with_its_last_words(supervised):
    supervisor = supervised("echo no such library; kill -9 $$")
    with pytest.raises(StudyError, match=r"killed by signal 9 5 times in a row(.|\n)*no such library"):
        watch(supervisor)
    assert supervisor.workers == []


@pytest.mark.parametrize("code", [LEAKED, POISONED])
def test_a_worker_that_asks_for_a_fresh_one_has_not_died(supervised, code):
    supervisor = supervised(*[f"exit {code}"] * 8, "exit 0")
    watch(supervisor)
    assert supervisor.replaced == 8


def test_progress_forgives_earlier_deaths(supervised, monkeypatch):
    monkeypatch.setattr(supervisor_module, "_LOOK_SECONDS", 0)
    row = WorkerRow("one", 1, "host", "cpu", {"trial": 0, "epoch": 0.5})
    monkeypatch.setattr(Watch, "look", lambda _: Snapshot({"one": row}, {}))
    supervisor = supervised(*["sleep 0.1; kill -9 $$"] * 8, "exit 0")
    watch(supervisor)
    assert supervisor.replaced == 8


def test_an_error_that_was_told_is_raised_once(supervised):
    supervisor = supervised("echo trial 0: fail; echo Error: the data is gone; exit 2")
    with pytest.raises(StudyError) as caught:
        watch(supervisor)
    assert str(caught.value) == "the data is gone"
    assert supervisor.replaced == 0


def test_a_wish_to_stop_reaches_the_worker_and_none_is_started_after_it(supervised):
    supervisor = supervised("read url; read line; exit 0", "touch restarted")
    watch(supervisor, lambda n: supervisor.stop() if n == 3 else None)
    supervisor = supervised("read url; read line; kill -9 $$", "sleep 60")
    watch(supervisor, lambda n: supervisor.stop() if n == 3 else None)
    assert supervisor.replaced == 0


def test_a_wish_to_stop_before_the_first_worker_starts_none(supervised):
    supervisor = supervised("exit 2")
    supervisor.stop()
    assert watch(supervisor) == 0


def test_what_interrupts_the_watch_ends_the_workers(supervised):
    supervisor = supervised("exec sleep 60")
    processes = []

    def interrupt(n):
        processes[:] = [worker.process for worker in supervisor.workers]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(supervisor, interrupt)
    assert processes[0].poll() == -9


def test_after_the_deadline_a_worker_has_a_moment_and_no_successor(supervised, monkeypatch):
    monkeypatch.setattr(supervisor_module, "_GRACE_SECONDS", 0.1)
    began = time.time()
    supervisor = supervised("exec sleep 60", deadline=began + 0.2)
    watch(supervisor)
    assert time.time() - began < 30
    assert supervisor.replaced == 0


def test_the_worker_is_this_program_in_a_session_of_its_own(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(worker_process.subprocess, "Popen", lambda command, **how: seen.update(how, command=command))
    folder = StudyFolder(tmp_path / "runs" / "tones")
    folder.make_folders()
    LocalProcess(WorkerJob(folder, "cuda:1", "cuda:1-0", 2, 5.0))
    assert seen["command"][:4] == [sys.executable, "-m", "automl", "worker"]
    assert seen["command"][seen["command"].index("--supervised") + 1] == "cuda:1-0"
    assert seen["command"][seen["command"].index("--deadline") + 1] == "5.0"
    assert seen["start_new_session"]
    assert seen["env"]["AUTOML_WORKERS"] == "2"
    assert seen["env"]["PATH"] == os.environ["PATH"]
    assert folder.log_file("cuda:1-0").exists()


# --- workers elsewhere --------------------------------------------------------------------------------------------


@pytest.fixture
def trial_elsewhere(supervised, monkeypatch):
    """A supervisor without work for its own worker, and a trial that another machine's trains."""
    monkeypatch.setattr(supervisor_module, "_LOOK_SECONDS", 0)
    supervisor = supervised("exit 0")
    study = optuna.create_study(study_name="tones", storage=open_storage(supervisor.folder.storage_url))
    return supervisor, study, study.ask()


def test_trials_of_other_machines_are_waited_for(trial_elsewhere):
    supervisor, study, trial = trial_elsewhere
    with Membership(study, "far") as member, member.hold(trial._trial_id):
        assert member.take_trial(trial._trial_id)
        ticks = watch(supervisor, lambda n: study.tell(trial, 0.5) if n == 60 else None)
    assert ticks >= 60
    assert len(supervisor.started) == 1


def test_the_trial_of_a_machine_that_died_gets_one_worker_here(trial_elsewhere):
    supervisor, study, trial = trial_elsewhere
    open_claims(study).take(trial._trial_id, "gone", None)
    assert watch(supervisor) < 1000
    assert len(supervisor.started) == 2  # its own, and one for the trial; no third one where that could not take it


def test_who_is_asked_to_stop_does_not_wait_for_others(trial_elsewhere):
    supervisor, study, trial = trial_elsewhere
    with Membership(study, "far") as member, member.hold(trial._trial_id):
        member.take_trial(trial._trial_id)
        assert watch(supervisor, lambda n: supervisor.stop() if n == 20 else None) < 100


# --- what a person sees -------------------------------------------------------------------------------------------


def test_what_a_worker_warns_of_is_shown_and_its_trials_are_counted(supervised):
    shown = []
    script = "echo trial 3: complete 0.5; echo warning: the disk is full; echo trial 4: fail no luck; exit 0"
    supervisor = supervised(script, print_line=shown.append)
    supervisor.folder.log_file("cpu").write_text("trial 1: complete 0.4\nwarning: of an earlier call\n")
    supervisor.start_workers()
    watch(supervisor)
    assert shown == ["warning: the disk is full"]
    assert supervisor.ended == {3, 4}


def test_a_worker_that_was_killed_is_named(supervised):
    shown = []
    watch(supervised("kill -9 $$", "exit 0", print_line=shown.append))
    assert shown == ["note: the worker on cpu was killed by signal 9; another one goes on"]


def test_a_storage_that_was_deleted_ends_the_search(supervised, monkeypatch):
    monkeypatch.setattr(supervisor_module, "_LOOK_SECONDS", 0)
    supervisor = supervised("exec sleep 60")
    with pytest.raises(StudyError, match=r"study\.db was deleted while its study was running"):
        watch(supervisor, lambda n: supervisor.folder.database.unlink() if n == 3 else None)
    assert supervisor.workers == []
