import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.training.validation_schedule import EIGHTHS, evaluation_steps

RUNS = {
    "total": st.integers(1, 100_000),
    "epochs": st.floats(0.01, 1000),
    "train": st.integers(2, 10**7),
    "validation": st.integers(2, 10**7),
}


@given(**RUNS)
def test_the_end_is_always_evaluated_and_time_runs_forward(total, epochs, train, validation):
    steps = evaluation_steps(total, epochs, train, validation)
    assert steps[total] == EIGHTHS
    assert list(steps) == sorted(steps)
    assert list(steps.values()) == sorted(set(steps.values()))
    assert all(1 <= step <= total and 1 <= eighth <= EIGHTHS for step, eighth in steps.items())
    assert all(abs(step - total * eighth / EIGHTHS) <= 1 for step, eighth in steps.items())


@given(**RUNS, factor=st.floats(1, 50))
def test_more_training_never_means_fewer_evaluations(total, epochs, train, validation, factor):
    fewer = evaluation_steps(total, epochs, train, validation)
    assert len(evaluation_steps(total, epochs * factor, train, validation)) >= len(fewer)
    assert len(evaluation_steps(total, epochs, train, validation * 2)) <= len(fewer)


@given(**RUNS)
def test_fewer_evaluations_are_a_part_of_more(total, epochs, train, validation):
    """Or there would be nothing to compare a run with."""
    eighths = set(evaluation_steps(800, epochs, train, validation).values())
    more = set(evaluation_steps(800, epochs * 2, train, validation).values())
    assert eighths <= more
    assert eighths == {EIGHTHS} or EIGHTHS // 2 in eighths


def test_a_long_run_is_reported_in_eighths_and_a_short_one_at_its_end():
    assert evaluation_steps(80, 10, 1000, 100) == {10 * k: k for k in range(1, 9)}
    assert evaluation_steps(80, 0.1, 100, 1000) == {80: 8}


@pytest.mark.parametrize("total", [1, 2, 3, 5, 7])
def test_very_short_runs(total):
    assert max(evaluation_steps(total, 100, 1000, 10)) == total
