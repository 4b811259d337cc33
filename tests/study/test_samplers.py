import random

import optuna
import pytest
from optuna.trial import TrialState

from automl.errors import SpecError
from automl.spec import StudySpec
from automl.study.samplers import Halving, Hyperband, make_pruner
from automl.training.schedule import EIGHTHS, evaluation_steps

KINDS = {2: (4, 8), 3: (1, 4, 8), 5: (1, 2, 4, 8), 8: (1, 2, 3, 4, 5, 6, 7, 8)}
"""At which eighths a recipe of so many epochs reports, where validating costs as much as it often does."""


def study_of(pruner, direction="maximize"):
    return optuna.create_study(study_name="tones", direction=direction, pruner=pruner)


def grown(study, *values, state=TrialState.COMPLETE):
    """Adds trials with these values by eighth."""
    for reported in values:
        value = reported.get(EIGHTHS, 0.0) if state == TrialState.COMPLETE else None
        study.add_trial(optuna.create_trial(state=state, value=value, intermediate_values=reported))


def behind(study, reported):
    """Whether a trial that reported this is pruned at the last of it."""
    trial = study.ask()
    for eighth, value in reported.items():
        trial.report(value, eighth)
    return trial.should_prune()


def test_the_kinds_report_as_they_are_said_to():
    for epochs, eighths in KINDS.items():
        assert tuple(evaluation_steps(800, epochs, 700, 270, early_share=0.5).values()) == eighths


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_value_is_compared_with_values_at_the_same_eighth_alone(direction):
    sign = 1 if direction == "maximize" else -1
    study = study_of(Halving(), direction)
    grown(study, *({1: sign * 0.5, 4: sign * 0.9, 8: sign * 0.9} for _ in range(3)))
    assert not behind(study, {1: sign * 0.6})  # better than every 1/8, worse than every 4/8
    assert behind(study, {1: sign * 0.4})
    assert not behind(study, {4: sign * 0.91})
    assert behind(study, {1: sign * 0.6, 4: sign * 0.8})
    assert not behind(study, {2: sign * 0.1})  # nothing to compare it with
    assert not behind(study, {1: sign * 0.6, 3: sign * 0.1})  # no rung
    assert not behind(study, {8: sign * 0.1})  # the end


def test_a_rung_keeps_its_share_of_all_trials_that_came_to_it_or_were_lost_before():
    study = study_of(Halving())
    grown(study, *({1: 0.1} for _ in range(9)), state=TrialState.PRUNED)
    grown(study, *({1: 0.5, 4: 0.5 + k / 100, 8: 0.9} for k in range(6)))
    # 16 trials with the one that is judged: two may go on from 4/8.
    assert not behind(study, {4: 0.545})
    assert behind(study, {4: 0.535})


def test_half_of_the_trials_go_on_at_the_first_rung_and_the_first_trial_does():
    study = study_of(Halving())
    assert not behind(study, {1: 0.1})
    draw = random.Random(0)
    gone_on = sum(not behind(study, {1: draw.random()}) for _ in range(200))
    assert 85 <= gone_on <= 115


def test_trials_that_reported_nothing_or_something_broken_do_not_count():
    study = study_of(Halving())
    grown(study, {8: 0.9}, {1: float("nan"), 8: 0.9})
    grown(study, *({} for _ in range(5)), state=TrialState.PRUNED)  # no memory for it
    grown(study, *({1: 0.9} for _ in range(5)), state=TrialState.FAIL)
    assert not behind(study, {1: 0.1})
    assert behind(study, {1: float("nan")})


def completed(pruner, kinds, trials=150, seed=0):
    """The share of trials that complete, by kind, of qualities drawn alike; values grow with the eighth."""
    draw, study, ended = random.Random(seed), study_of(pruner), {kind: [] for kind in kinds}
    for _ in range(trials):
        trial, kind, quality = study.ask(), draw.choice(list(kinds)), draw.gauss(0, 1)
        for eighth in kinds[kind]:
            value = quality + eighth / 2 + draw.gauss(0, 0.3)
            trial.report(value, eighth)
            pruned = trial.should_prune() and eighth < EIGHTHS
            if pruned:
                break
        ended[kind].append(not pruned)
        study.tell(trial, None if pruned else value, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)
    return ended


def rates(make):
    seeds = [completed(make(), KINDS, seed=seed) for seed in range(6)]
    found = {kind: [one for ended in seeds for one in ended[kind]] for kind in KINDS}
    return {kind: sum(ended) / len(ended) for kind, ended in found.items()}


def test_halving_favours_no_recipe_for_reporting_less_often():
    """With Optuna's halving .17, .15, .09 and .12 of the kinds complete; with reports at (2, 8), .22, .09, .06, .12."""
    found = rates(Halving)
    assert all(1 / 8 - 0.05 < rate < 1 / 8 + 0.05 for rate in found.values()), found
    assert max(found.values()) - min(found.values()) < 0.05, found


def test_hyperband_compares_equal_eighths_in_each_of_its_brackets():
    study = study_of(Hyperband())
    grown(study, *({1: 0.5, 2: 0.6, 4: 0.9, 8: 0.9} for _ in range(40)))
    first = {eighth: sum(behind(study, {eighth: 0.45}) for _ in range(40)) for eighth in (1, 2, 4, 8)}
    assert 0 < first[1] < first[2] <= first[4] < 40  # brackets begin at 1, 2, 4 and 8
    assert first[8] == 0
    assert not any(behind(study, {1: 0.55}) for _ in range(20))  # as 4/8 it would be the last


# --- trials that are taken up again, or tried again ---------------------------------------------------------------


def test_a_trial_taken_up_again_is_judged_afresh_and_counted_once():
    study = study_of(Halving())
    grown(study, *({1: 0.5} for _ in range(2)), state=TrialState.PRUNED)
    trial = study.ask()
    trial.report(0.4, 1)
    assert trial.should_prune()
    again = optuna.trial.Trial(study, trial._trial_id)  # as a worker takes it up
    assert again.should_prune()
    assert not any(key.startswith("completed_rung") for t in study.trials for key in t.system_attrs)
    again.report(0.9, 2)
    assert not again.should_prune()
    other = study.ask()  # with (1, 2, 3) of them there would be three or four at the first rung, of which two go on
    other.report(0.45, 1)
    assert other.should_prune()
    assert len(study.trials) == 4


def test_a_failed_trial_tried_again_as_a_new_one_counts_once():
    study = study_of(Halving())
    grown(study, {1: 0.6}, {1: 0.5, 8: 0.9})
    failed = optuna.create_trial(
        state=TrialState.FAIL, intermediate_values={1: 0.1}, system_attrs={"completed_rung_0": 0.1}
    )
    for _ in range(4):
        study.add_trial(failed)
    # As Optuna's own callback does it: a new trial with all that the failed one had.
    study.add_trial(
        optuna.create_trial(state=TrialState.WAITING, system_attrs=failed.system_attrs | {"failed_trial": 2})
    )
    trial = study.ask()
    trial.report(0.1, 1)
    assert trial.should_prune()
    assert behind(study, {1: 0.45})  # of four trials, not of eight
    assert not behind(study, {1: 0.55})


# --- the other pruners --------------------------------------------------------------------------------------------


def pruner_of(name):
    return make_pruner(StudySpec.from_mapping({"pruner": name}))


def test_median_spares_the_first_report_and_compares_equal_eighths():
    study = study_of(pruner_of("median"))
    grown(study, *({1: 0.5, 2: 0.6, 4: 0.9, 8: 0.9} for _ in range(4)))
    assert not behind(study, {1: 0.1})
    assert behind(study, {1: 0.1, 2: 0.2})
    assert not behind(study, {1: 0.1, 2: 0.65})


def test_wilcoxon_of_an_earlier_version_is_refused_with_what_to_give():
    with pytest.raises(SpecError, match=r"wilcoxon no longer exists.*give halving"):
        pruner_of("wilcoxon")
