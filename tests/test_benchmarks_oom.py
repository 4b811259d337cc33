"""The benchmark of running out of memory injects what it says, and counts what it finds."""

import pytest
from optuna.trial import TrialState, create_trial

from automl.training.fit import fit
from tests.fixtures.scripts import load_script
from tests.fixtures.trainings import DATA, recipe_of

oom = load_script("benchmarks/oom.py")
TOLD = {"forward": "training", "backward": "training", "optimizer": "optimizer", "evaluation": "evaluation"}


@pytest.mark.parametrize("place", oom.PLACES)
def test_memory_runs_out_once_and_where_it_was_drawn(place):
    assert oom.PLACES.keys() == TOLD.keys()
    injector, told = oom.OutOfMemory(0, lambda: 7), []
    injector.faults[7] = [oom.Fault(place, visit=2, operator=3)]
    with injector.hooked():
        fit(recipe_of(epochs=2), DATA, on_out_of_memory=told.append)
    assert injector.faults[7][0].raised
    assert [event.where for event in told] == [TOLD[place]]
    if place != "evaluation":
        assert told[0].step == 1
    fit(recipe_of(epochs=0.25), DATA)  # nothing of it is left


def test_faults_are_the_same_each_time_and_never_the_three_that_end_a_trial():
    drawn = [oom.draw_faults(0, trial) for trial in range(40)]
    assert drawn == [oom.draw_faults(0, trial) for trial in range(40)]
    assert {len(faults) for faults in drawn} == {1, 2}
    assert {fault.place for faults in drawn for fault in faults} == oom.PLACES.keys()


def trial(value, **attrs):
    if value is None:
        return create_trial(state=TrialState.PRUNED, user_attrs={"reason": "out of memory", **attrs})
    return create_trial(value=value, user_attrs={"metrics": {"auc": value, "log_loss": 0.5}, **attrs})


def test_what_was_lost_and_by_how_much_the_others_differ():
    event = {"step": 3, "where": "optimizer", "micro_batch_size": 8, "next": 4}
    lines = "\n".join(
        oom.compare([trial(0.9), trial(0.8), trial(0.7)], [trial(0.9), trial(0.75, out_of_memory=[event]), trial(None)])
    )
    assert "3 trials, 1 lost; out of memory 1 times (0 in training, 1 in optimizer, 0 in evaluation)" in lines
    assert "optimizer at step 3: 8 → 4" in lines
    assert "largest difference of a metric between the two studies: 5.0e-02" in lines
