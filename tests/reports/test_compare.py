import pytest

import automl
from automl.errors import SpecError, StudyError
from automl.reports.compare import render_comparison
from automl.reports.study_summary import check_same_metric, summarise_study
from tests.fixtures.reports import make_result
from tests.fixtures.studies import spec_without_files


@pytest.fixture
def two(tmp_path):
    other = spec_without_files(sampler="gp")
    return [
        summarise_study(make_result(tmp_path, trials=40, name="one")),
        summarise_study(make_result(tmp_path, trials=20, name="two", seed=1, spec=other)),
    ]


def test_two_studies_on_one_page(two):
    page = render_comparison(two)
    for text in ("Winners", "Best so far over time", "Scores of complete trials", "Score against memory"):
        assert text in page
    assert "Sampler: one tpe; two gp." in page
    assert "After " in page
    assert page.count("<figure") == 5
    best = max(two, key=lambda summary: summary.best.row.value)
    assert f"{best.name} reaches {best.best.row.value:.4f} in " in page


def test_a_study_without_a_complete_trial_stands_beside_another(tmp_path, two):
    empty = summarise_study(make_result(tmp_path, trials=0, name="empty"))
    page = render_comparison([two[0], empty])
    assert "no complete trial" in page
    assert page.count("<figure") == 5
    assert "no figures" not in render_comparison([empty, empty])
    assert render_comparison([empty, empty]).count("<figure") == 0


def test_studies_of_different_metrics_do_not_share_an_axis(tmp_path, two):
    other = summarise_study(make_result(tmp_path, trials=3, classes=4, name="four"))
    with pytest.raises(StudyError, match="one has auc, four has accuracy"):
        check_same_metric([two[0], other])


def test_the_function_checks_and_writes(new_study, tmp_path):
    for name in ("one", "two"):
        new_study(name)
    runs = tmp_path / "runs"
    path = automl.compare(["one", "two"], runs=runs)
    assert path == runs / "compare-one-two.html"
    assert path.is_file()
    for names, message in ((["one"], "2 to 6 studies"), (["one", "one"], "given twice")):
        with pytest.raises(SpecError, match=message):
            automl.compare(names, runs=runs)
    with pytest.raises(StudyError, match="nonesuch"):
        automl.compare(["one", "nonesuch"], runs=runs)


@pytest.mark.slow
def test_a_browser_draws_the_comparison(tmp_path, two, browser):
    path = tmp_path / "compare.html"
    path.write_text(render_comparison(two))
    with browser(path, width=390) as opened:
        opened.wait_for_figures()
        assert opened.page.locator("figure:has(.main-svg)").count() == 5
        assert opened.errors == []
        assert opened.requests == []
        assert opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
