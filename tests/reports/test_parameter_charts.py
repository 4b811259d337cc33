import pytest

from automl.reports.importance import Importance, measure_importance
from automl.reports.parameter_charts import draw_importance, draw_parallel, draw_slices
from automl.reports.study_summary import summarise_study
from tests.fixtures.reports import make_result


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return summarise_study(make_result(tmp_path_factory.mktemp("parameters"), trials=120))


def test_only_what_is_above_chance_is_named():
    importance = Importance({"a": 0.6, "b.c": 0.3, "d": 0.1}, 0.25, 40, 12, 2)
    chart = draw_importance(importance, "auc")
    assert chart.sentence.startswith(
        "a and b.c matter more than chance would show (dashed line). It rests on 40 trials, 12"
    )
    assert chart.sentence.endswith(" 2 parameters that fewer than 6 trials drew are left out.")
    none = draw_importance(Importance({"a": 0.6}, 0.7, 40, 0, 0), "auc")
    assert none.sentence.startswith("No parameter matters more for auc than chance would show")


def test_a_line_of_another_branch_passes_by_the_axis(summary):
    importance = Importance({"optimizer.sgd.momentum": 1.0}, 0.0, 100, 0, 0)
    chart = draw_parallel(summary, importance)
    names = [note.text for note in chart.figure.layout.annotations if note.text.startswith("<b>")]
    assert names == ["<b>backbone</b>", "<b>optimizer</b>", "<b>optimizer.sgd.momentum</b>", "<b>auc</b>"]
    row = -names.index("<b>optimizer.sgd.momentum</b>")
    lines = [trace for trace in chart.figure.data if trace.mode == "lines"]
    places = [x for line in lines for x, y in zip(line.x, line.y, strict=True) if y == row]
    drawn = sum("optimizer.sgd.momentum" in trial.params for trial in summary.scored)
    assert sum(x < -0.1 for x in places) == len(summary.scored) - drawn
    assert sum(x > -0.05 for x in places) == drawn
    assert "is of a trial that took another branch" in chart.sentence


def test_slices_say_where_the_best_lie(summary):
    importance = measure_importance(summary)
    charts = draw_slices(summary, importance)
    assert [chart.title for chart in charts] == list(importance.shares)[:4]
    backbone = next(chart for chart in charts if chart.title == "backbone")
    assert (
        backbone.sentence == "6 of the best 12 of 116 trials that drew it have convnext_tiny.fb_in22k, which 22 tried."
    )


def test_too_little_for_a_figure(tmp_path):
    assert draw_parallel(summarise_study(make_result(tmp_path, trials=1)), None) is None
