import itertools
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from automl.recipe.learning import Cosine, OneCycle, StepLR, Wsd
from automl.training.schedule import EIGHTHS, RESTART_SCALE, evaluation_steps, lr_factor, set_learning_rates

SCHEDULES = st.one_of(st.builds(kind, warmup=st.floats(0, 1)) for kind in (StepLR, Cosine, OneCycle)) | st.builds(
    Wsd, warmup=st.floats(0, 1), decay=st.floats(0.01, 1)
)


def factors(schedule, total):
    return [lr_factor(schedule, step, total) for step in range(total)]


def optimizer(rate=1.0):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)


@settings(deadline=None)
@given(schedule=SCHEDULES, total=st.integers(1, 300))
def test_factors_are_positive_and_at_most_one(schedule, total):
    assert all(0 < factor <= 1 for factor in factors(schedule, total))


@settings(deadline=None)
@given(schedule=SCHEDULES, total=st.integers(1, 300))
def test_warmup_rises_and_then_nothing_does(schedule, total):
    assume(not (schedule.name == "step" and schedule.warmup >= schedule.every))
    values = factors(schedule, total)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert abs(peak + 1 - max(1, schedule.warmup * total)) <= 1


@settings(deadline=None)
@given(schedule=SCHEDULES, total=st.integers(200, 1000))
def test_ends_near_zero_unless_it_is_stepwise(schedule, total):
    assume(schedule.name != "step" and schedule.warmup <= 0.8 and getattr(schedule, "decay", 1) > 0.15)
    assert lr_factor(schedule, total - 1, total) < 0.05


@settings(deadline=None)
@given(schedule=SCHEDULES)
def test_a_run_of_one_step_trains_at_the_full_rate(schedule):
    assert lr_factor(schedule, 0, 1) >= 0.5


@settings(deadline=None)
@given(schedule=SCHEDULES, total=st.integers(1, 100), beyond=st.integers(0, 100))
def test_beyond_the_end_the_last_factor_holds(schedule, total, beyond):
    assert lr_factor(schedule, total + beyond, total) == lr_factor(schedule, total - 1, total)


@pytest.mark.parametrize(("step", "total"), [(-1, 10), (0, 0), (3, -1)])
def test_impossible_steps_are_refused(step, total):
    with pytest.raises(ValueError, match=f"step={step}, total_steps={total}"):
        lr_factor(Cosine(), step, total)


@pytest.mark.parametrize(("total", "warmup"), [(10, 0.3), (100, 0.3), (101, 0.1), (1000, 0.05)])
def test_one_cycle_is_torchs(total, warmup):
    target = optimizer()
    reference = torch.optim.lr_scheduler.OneCycleLR(
        target, max_lr=1.0, total_steps=total, pct_start=warmup, cycle_momentum=False
    )
    for step in range(total):
        factor = lr_factor(OneCycle(warmup=warmup), step, total)
        assert factor == pytest.approx(target.param_groups[0]["lr"], abs=1e-9)
        target.step()
        if step < total - 1:
            reference.step()


@pytest.mark.parametrize("total", [20, 100])
def test_cosine_and_step_are_timms_after_the_warmup(total):
    from timm.scheduler.cosine_lr import CosineLRScheduler
    from timm.scheduler.step_lr import StepLRScheduler

    target, warm = optimizer(), total // 10
    cosine = CosineLRScheduler(target, t_initial=total - warm, warmup_t=warm, warmup_prefix=True, t_in_epochs=False)
    pairs = [(Cosine(warmup=0.1), cosine)]
    pairs.append((StepLR(warmup=0, every=0.25), StepLRScheduler(target, total // 4, 0.1, t_in_epochs=False)))
    for schedule, reference in pairs:
        for step in range(warm, total):
            reference.step_update(step)
            assert lr_factor(schedule, step, total) == pytest.approx(target.param_groups[0]["lr"])


def test_step_falls_after_every_tenth_despite_rounding():
    values = factors(StepLR(warmup=0, every=0.1, gamma=0.5), 30)
    assert values == [0.5 ** (step // 3) for step in range(30)]


def test_wsd_is_constant_between_warmup_and_decay():
    values = factors(Wsd(warmup=0.1, decay=0.2), 100)
    assert values[0] == pytest.approx(0.1)
    assert values[9:80] == [1.0] * 71
    falls = [a - b for a, b in itertools.pairwise(values[79:])]
    assert falls == pytest.approx([1 / 21] * 20)


def test_every_group_keeps_its_own_scale():
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    groups = [{"params": [w], "lr": r, "initial_lr": r} for w, r in zip(weights, (0.1, 1.0), strict=True)]
    target = torch.optim.SGD(groups, lr=1.0)
    for factor in (0.5, 0.25):  # of the initial rate, not of the last one
        set_learning_rates(target, factor)
        assert [group["lr"] for group in target.param_groups] == [0.1 * factor, factor]


# --- when a run is validated ------------------------------------------------------------------------------------

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


@given(schedule=SCHEDULES, steps=st.integers(1, 500), percents=st.lists(st.integers(1, 99), unique=True, max_size=3))
def test_after_a_restart_the_schedule_begins_anew_for_what_is_left(schedule, steps, percents):
    restarts = tuple(percent / 100 for percent in sorted(percents))
    bounds = [0, *(round(share * steps) for share in restarts), steps]
    for number, (first, after) in enumerate(pairwise(bounds)):
        for step in {first, (first + after) // 2, after - 1}:
            if first <= step < after:
                scale = RESTART_SCALE if number else 1
                expected = scale * lr_factor(schedule, step - first, after - first)
                assert lr_factor(schedule, step, steps, restarts) == expected
