import threading

import pytest
from optuna.trial import TrialState

from automl.errors import StudyError
from automl.study.claims import Snapshot, WorkerRow, open_claims
from automl.study.setup import create_study
from automl.study.storage import open_study
from tests.fixtures.studies import folder_of, setup_without_files, spec_without_files


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def shared(request, tmp_path):
    """Opens one study as often as it is called, as other processes would."""
    storage = {"sqlite": None, "journal": str(tmp_path / "study.log")}.get(request.param)
    if request.param == "postgresql":
        storage = request.getfixturevalue("postgres")
    folder = folder_of(tmp_path)
    create_study(folder, spec_without_files(storage=storage), setup_without_files())
    return lambda: open_study(folder)


def in_threads(count, function):
    """Calls a function in threads that begin together; returns what it returned, in order of the threads."""
    barrier, results = threading.Barrier(count), [None] * count

    def call(k):
        barrier.wait()
        results[k] = function(k)

    threads = [threading.Thread(target=call, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_never_one_trial_too_many_and_each_is_claimed(shared):
    studies = [shared() for _ in range(4)]

    def begin(k):
        claims, begun = open_claims(studies[k]), []
        while (trial_id := claims.begin(f"worker {k}", 25)) is not None:
            begun.append(trial_id)
        return begun

    begun = in_threads(4, begin)
    trials = shared().trials
    assert [trial.number for trial in trials] == list(range(25))
    assert {trial.state for trial in trials} == {TrialState.RUNNING}
    owners = {trial_id: f"worker {k}" for k, ids in enumerate(begun) for trial_id in ids}
    assert open_claims(shared()).read().claims == owners
    assert len(owners) == 25
    assert open_claims(shared()).begin("late", 26) is not None  # the budget was raised
    assert open_claims(shared()).begin("late", 26) is None


def test_one_of_many_takes_a_trial_from_its_owner(shared):
    claims = open_claims(shared())
    trial_id = claims.begin("dead", 9)
    others = [open_claims(shared()) for _ in range(4)]
    taken = in_threads(4, lambda k: others[k].take(trial_id, f"worker {k}", "dead"))
    assert sum(taken) == 1
    winner = f"worker {taken.index(True)}"
    assert claims.read().claims == {trial_id: winner}
    assert others[0].take(trial_id, winner, "dead")  # only the answer was lost, and it asks again
    assert not claims.take(trial_id, "dead", "dead")
    claims.drop(trial_id, "dead")  # no longer its own
    assert claims.read().claims == {trial_id: winner}
    claims.drop(trial_id, winner)
    taken = in_threads(4, lambda k: others[k].take(trial_id, f"worker {k}", None))
    assert sum(taken) == 1
    assert others[0].take(trial_id, f"worker {taken.index(True)}", None)


def test_a_worker_shows_itself_until_it_leaves(shared):
    claims, row = open_claims(shared()), WorkerRow("a", 0, "host", "cuda:0")
    claims.join(row)
    claims.join(row)  # the answer to the first call was lost
    claims.beat(WorkerRow("a", 1, "host", "cuda:0", {"trial": 3, "epoch": 1.5, "value": None}))
    trial_id = claims.begin("a", 9)
    snapshot = open_claims(shared()).read()
    assert snapshot.workers == {"a": WorkerRow("a", 1, "host", "cuda:0", {"trial": 3, "epoch": 1.5, "value": None})}
    assert snapshot.claims == {trial_id: "a"}
    claims.leave("a")  # another one took it for dead
    assert claims.read() == Snapshot({}, {})
    claims.beat(row)
    assert claims.read() == Snapshot({"a": row}, {})


def test_another_study_of_the_same_database_has_claims_of_its_own(tmp_path):
    storage = f"sqlite:///{tmp_path}/shared.db"
    studies = []
    for name in ("one", "two"):
        folder = folder_of(tmp_path, name)
        studies.append(create_study(folder, spec_without_files(storage=storage), setup_without_files()))
    first, second = map(open_claims, studies)
    first.join(WorkerRow("a", 0, "host", "cpu"))
    first.begin("a", 5)
    assert second.read().workers == second.read().claims == {}
    assert second.begin("b", 1) is not None


def test_a_study_that_only_this_process_sees_has_no_claims():
    import optuna

    with pytest.raises(StudyError, match="cannot share a InMemoryStorage"):
        open_claims(optuna.create_study())
