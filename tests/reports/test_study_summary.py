import pytest

from automl.reports.study_summary import Clock, summarise_study
from automl.study.folder import StudyFolder
from tests.fixtures.reports import NAMES, make_result


def test_pauses_and_trials_at_the_same_time_count_once():
    clock = Clock.of_spans([(100, 110), (105, 120), (200, 205)])
    assert clock.total == 25
    assert [clock.spent(moment) for moment in (90, 100, 112, 150, 202, 999)] == [0, 0, 12, 20, 22, 25]
    assert Clock.of_spans([]).total == 0


@pytest.fixture
def summary(tmp_path):
    return summarise_study(make_result(tmp_path, trials=12))


def test_trials_as_people_read_them(summary):
    assert len(summary.trials) == 12
    assert [trial.row.state for trial in summary.trials[:3]] == ["complete", "pruned", "pruned"]
    values = [trial.row.value for trial in summary.complete]
    assert values == sorted(values, reverse=True)
    assert summary.best is summary.winner is summary.complete[0]
    assert all(trial.params["backbone"] in NAMES for trial in summary.trials)
    pruned = summary.trials[1]
    assert pruned.curve[-1][0] == pytest.approx(2 / 8 * pruned.row.epochs)
    assert len(pruned.curve) == 2


def test_speed_is_images_by_seconds_of_training(summary):
    # five seconds for each epoch of 300 images
    assert {trial.images_per_second for trial in summary.complete} == {60.0}


def test_the_best_so_far_only_gets_better(summary):
    steps = summary.trace_best()
    assert [value for *_, value, _ in steps] == sorted({value for *_, value, _ in steps})
    assert steps[0][:2] == (1, 50.0)
    assert steps[-1][3] is summary.best


def test_a_metric_that_is_better_when_smaller(tmp_path):
    summary = summarise_study(make_result(tmp_path, trials=12, metric="log_loss"))
    values = [value for *_, value, _ in summary.trace_best()]
    assert values == sorted(values, reverse=True)
    assert summary.best.row.value == min(trial.row.value for trial in summary.complete)


def test_trials_of_two_workers_are_in_the_order_of_their_ends(tmp_path):
    summary = summarise_study(make_result(tmp_path, trials=10, workers=2))
    assert {trial.host for trial in summary.trials} == {"machine0", "machine1"}
    assert summary.clock.total == pytest.approx(5 * 57)  # each pair trains at the same time
    ends = [trial.ended for trial in summary.ended]
    assert ends == sorted(ends)


def test_a_damaged_confirmation_is_a_problem_and_no_error(tmp_path):
    result = make_result(tmp_path, trials=3)
    result.folder.confirmation.write_text("{")
    summary = summarise_study(result)
    assert summary.confirmation is None
    assert "confirm.json" in summary.problems[0]


def test_a_recipe_that_cannot_be_read_leaves_its_trial(tmp_path):
    result = make_result(tmp_path, trials=3)
    for trial in result.study.get_trials(deepcopy=False)[:1]:
        trial.user_attrs["recipe"] = '{"backbone": 1}'
    summary = summarise_study(result)
    assert summary.trials[0].peak_bytes is None
    assert summary.trials[1].peak_bytes > 1e9
    assert summary.problems == ("the recipes of 1 trial cannot be read: no memory is shown for them",)


def test_no_trial_at_all(tmp_path):
    summary = summarise_study(make_result(tmp_path, trials=0))
    assert summary.best is None
    assert summary.winner_recipe is None
    assert summary.clock.total == 0
    assert isinstance(summary.folder, StudyFolder)
