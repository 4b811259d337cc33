import subprocess
import sys
import textwrap
import time

import pytest
from optuna.trial import TrialState

from automl.study import membership
from automl.study.claims import Claims, Snapshot, WorkerRow, open_claims
from automl.study.membership import SILENT_SECONDS, Membership, Watch
from automl.study.setup import create_study
from tests.fixtures.studies import folder_of, setup_without_files, spec_without_files, take_trial


@pytest.fixture(params=["sqlite", "postgresql"])
def study(request, tmp_path):
    storage = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    spec = spec_without_files(sampler="random", budget={"trials": 5}, storage=storage)
    return create_study(folder_of(tmp_path), spec, setup_without_files())


@pytest.fixture
def clock(monkeypatch):
    """The seconds of this process, which a test moves on; none passes by itself."""
    now = [1000.0]
    monkeypatch.setattr(membership.time, "monotonic", lambda: now[0])
    return now


class Elsewhere(Claims):
    """Claims in which a worker of another machine shows itself."""

    def __init__(self):
        self.beats, self.claims = {"far": 0}, {}

    def read(self):
        return Snapshot({name: WorkerRow(name, beat, "far", "cpu") for name, beat in self.beats.items()}, self.claims)

    join = leave = beat = take = drop = begin = None


def look_for(watch, clock, seconds, claims=None, every=5):
    for _ in range(int(seconds / every)):
        clock[0] += every
        if claims is not None:
            claims.beats["far"] += 1
        watch.look()


def test_a_worker_of_another_machine_is_dead_after_a_minute_without_a_beat(clock):
    claims = Elsewhere()
    watch = Watch(claims)
    watch.look()
    assert not watch.is_alive("far")  # not known yet
    look_for(watch, clock, 10, claims)
    assert watch.is_alive("far")
    look_for(watch, clock, SILENT_SECONDS - 5)
    assert not watch.is_dead("far")
    look_for(watch, clock, 5)
    assert watch.is_dead("far")
    assert not watch.is_alive("far")
    look_for(watch, clock, 5, claims)  # it was cut off only
    assert watch.is_alive("far")
    del claims.beats["far"]
    watch.look()
    assert watch.is_dead("far")  # it has left


def test_while_nobody_could_look_nobody_was_silent(clock):
    claims = Elsewhere()
    watch = Watch(claims)
    watch.look()
    look_for(watch, clock, 40)
    clock[0] += 300  # the storage was away
    watch.look()
    look_for(watch, clock, SILENT_SECONDS - 5)
    assert not watch.is_dead("far")
    look_for(watch, clock, 5)
    assert watch.is_dead("far")


def test_a_stepped_clock_kills_nobody(clock, monkeypatch):
    claims = Elsewhere()
    watch = Watch(claims)
    watch.look()
    for step in (3600, -7200):
        monkeypatch.setattr(membership.time, "time", lambda step=step: 2e9 + step)
        look_for(watch, clock, 30, claims)
        assert watch.is_alive("far")


def test_a_worker_of_this_machine_is_dead_as_soon_as_its_process_is(study, tmp_path):
    program = f"""
        import time
        from pathlib import Path
        from automl.study.folder import StudyFolder
        from automl.study.membership import Membership
        from automl.study.storage import open_study
        study = open_study(StudyFolder(Path({str(tmp_path / "runs" / "tones")!r})))
        with Membership(study, "cpu") as member, member.hold(member.begin_trial(5)):
            print(member.worker, flush=True)
            time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        name = process.stdout.readline().strip()
        with Membership(study, "other") as member:
            (trial,) = study.trials
            member.look()
            assert member.watch.is_alive(name)
            assert not member.take_trial(trial._trial_id)
            process.kill()
            process.wait()
            assert member.watch.is_dead(name)
            assert member.take_trial(trial._trial_id)
            snapshot = member.look()
            assert snapshot.claims == {trial._trial_id: member.worker}
            assert [*snapshot.workers] == [member.worker]


@pytest.mark.slow
def test_a_worker_learns_that_its_trial_was_taken_from_it(study, monkeypatch):
    monkeypatch.setattr(membership, "_LOCAL_SECONDS", 0.05)
    with Membership(study, "cpu") as member:
        trial_id = member.begin_trial(5)
        with member.hold(trial_id):
            assert member.still_has(trial_id)
            assert not member.has_lost
            assert open_claims(study).take(trial_id, "another", member.worker)
            until = time.monotonic() + 20
            while not member.has_lost and time.monotonic() < until:
                time.sleep(0.05)
            assert member.has_lost
            assert not member.still_has(trial_id)
        assert not member.has_lost
        assert open_claims(study).read().claims == {trial_id: "another"}


def test_what_a_worker_does_is_shown_with_its_beats_and_at_once_where_it_trains(study, monkeypatch):
    monkeypatch.setattr(membership, "_LOCAL_SECONDS", 600)
    with Membership(study, "cpu") as member:

        def shown():
            return open_claims(study).read().workers[member.worker].doing

        member.note_progress({"trial": 0, "epoch": 0.0, "doing": "decoding"})
        time.sleep(0.2)
        assert shown() == {}
        member.note_progress({"trial": 0, "epoch": 0.1})
        until = time.monotonic() + 20
        while not shown() and time.monotonic() < until:
            time.sleep(0.02)
        assert shown() == {"trial": 0, "epoch": 0.1}
        member._wake.set()
        member.note_progress({"trial": 0, "epoch": 0.2})
    assert open_claims(study).read() == Snapshot({}, {})


def test_trials_numbered_below_the_budget_are_the_studys(study, tmp_path):
    folder = folder_of(tmp_path)
    for _ in range(7):
        study.enqueue_trial({})
    numbers = []
    for _ in range(7):
        with take_trial(study, folder) as taken:
            if taken is None:
                break
            trial, _ = taken
            numbers.append(trial.number)
            study.tell(trial, 0.5)
    assert numbers == [0, 1, 2, 3, 4]
    assert [trial.state for trial in study.trials[5:]] == [TrialState.WAITING] * 2


def test_a_waiting_trial_whose_worker_died_while_taking_it_is_not_lost(study, tmp_path):
    folder = folder_of(tmp_path)
    study.enqueue_trial({})
    (trial,) = study.trials
    assert open_claims(study).take(trial._trial_id, "killed at this moment", None)
    with take_trial(study, folder) as (taken, _):
        assert taken.number == 0
