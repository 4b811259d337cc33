from automl.reports.importance import measure_importance
from automl.reports.study_summary import summarise_study
from tests.fixtures.reports import make_result


def importance_of(tmp_path, **how):
    return measure_importance(summarise_study(make_result(tmp_path, **how)))


def test_what_decides_the_values_is_above_chance(tmp_path):
    # the fixture's values depend on the backbone and the learning rate
    found = importance_of(tmp_path, trials=150)
    assert next(iter(found.shares)) == "backbone"
    assert "backbone" in found.above_chance
    assert found.trials == 145  # five failed
    assert found.pruned == 95
    assert abs(sum(found.shares.values()) - 1) < 1e-9


def test_a_branch_has_its_own_parameters(tmp_path):
    assert any(name.startswith("optimizer.") for name in importance_of(tmp_path, trials=150).shares)
    assert importance_of(tmp_path, trials=20).left_out > 0  # what hardly any trial drew


def test_few_trials_say_nothing(tmp_path):
    assert importance_of(tmp_path, trials=6) is None
    assert importance_of(tmp_path, trials=0) is None


def test_of_thousands_a_sample_is_used_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("automl.reports.importance._MOST_TRIALS", 20)
    found = importance_of(tmp_path, trials=40)
    assert (found.trials, found.sampled_of) == (20, 39)
