import numpy as np
import pytest

from automl.pages.figures import make_figure
from automl.reports import search_charts
from automl.reports.study_summary import summarise_study, value_of
from tests.fixtures.reports import make_result


@pytest.fixture
def summary(tmp_path):
    return summarise_study(make_result(tmp_path, trials=30))


def test_a_study_without_complete_trials_has_curves_alone(tmp_path):
    summary = summarise_study(make_result(tmp_path, trials=5, complete=0))
    assert search_charts.draw_best(summary, over_time=False) is None
    assert search_charts.draw_memory(summary) is None
    assert search_charts.draw_speed(summary) is None
    assert search_charts.draw_leaderboard(summary) is None
    assert "ended early" in search_charts.draw_curves(summary).sentence


def test_the_best_so_far_and_its_sentence(summary):
    chart = search_charts.draw_best(summary, over_time=False)
    best, first = summary.best, summary.trials[0]
    assert chart.sentence.startswith(
        f"The best auc went from {value_of(first):.4f} (trial 0) to {value_of(best):.4f} (trial {best.row.number}) in "
    )
    line = chart.figure.data[-1]
    assert line.x[-1] == 30
    assert list(line.y) == sorted(line.y)
    over_time = search_charts.draw_best(summary, over_time=True)
    assert "of 29m10s" not in over_time.sentence  # pauses of 10 s after each of 50 s
    assert "Pauses of 4m50s between trials are left out." in over_time.sentence


def test_pruned_curves_end_where_they_were_pruned(summary):
    chart = search_charts.draw_curves(summary)
    pruned = next(trace for trace in chart.figure.data if trace.name == "pruned")
    ends = [x for x, after in zip(pruned.x, pruned.x[1:], strict=False) if after is None]
    wanted = [trial.curve[-1][0] for trial in summary.trials if trial.row.state == "pruned"]
    assert ends == pytest.approx(wanted, rel=1e-4)


def test_of_many_curves_the_best_and_a_spread_are_drawn(summary, monkeypatch):
    monkeypatch.setattr(search_charts, "_CURVES", 12)
    monkeypatch.setattr(search_charts, "_BEST_CURVES", 4)
    chart = search_charts.draw_curves(summary)
    assert "drawn are 12: the 4 best, and others from all over the study" in chart.sentence


def test_no_trial_beats_those_of_the_front(summary):
    front = search_charts.find_front(summary.complete, lambda trial: trial.peak_bytes)
    assert front[0] is summary.best
    for trial in summary.complete:
        assert any(value_of(one) >= value_of(trial) and one.peak_bytes <= trial.peak_bytes for one in front)
    assert "Memory is predicted for a GPU." in search_charts.draw_memory(summary).sentence


def test_the_rank_correlation_of_leaderboard_and_score(tmp_path):
    chart = search_charts.draw_leaderboard(summarise_study(make_result(tmp_path, trials=300)))
    # in the fixture a backbone of a lower rank is worse
    assert "Over 7 backbones the rank correlation is +" in chart.sentence
    assert "the leaderboard predicts the order here; p " in chart.sentence


def test_values_far_away_are_outside_and_counted():
    figure = make_figure("x", "y")
    values = [*np.linspace(0.8, 0.9, 20), -50.0, float("nan")]
    assert search_charts.fit_axis(figure, values) == " 2 values far from the others lie outside of the figure."
    low, high = figure.layout.yaxis.range
    assert low > 0.7
    assert high < 1
    assert search_charts.fit_axis(make_figure("x", "y"), [0.1, 0.9]) == ""


def test_backbones_beyond_five_share_a_colour(tmp_path):
    summary = summarise_study(make_result(tmp_path, trials=300))
    groups = search_charts.group_backbones(summary.complete)
    assert len(groups) == 6
    assert list(groups)[-1] == "2 others"
    assert sum(map(len, groups.values())) == len(summary.complete)
