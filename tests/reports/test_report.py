import re
from dataclasses import replace

import pytest
from PIL import Image

import automl
from automl.errors import StudyError
from automl.reports import report
from automl.reports.report import render_report
from automl.reports.study_summary import summarise_study
from tests.fixtures.reports import make_result, store_confirmed


def page_of(tmp_path, **how):
    return render_report(summarise_study(make_result(tmp_path, **how)))


def titles(page):
    return re.findall(r"<h[23][^>]*>(.*?)</h[23]>", page)


def sentences(page):
    return re.findall(r"<figcaption>(.*?)</figcaption>", page)


def test_a_whole_study_has_every_part(tmp_path):
    page = page_of(tmp_path, trials=60)
    for title in (
        *("Best so far over trials", "Best so far over time", "Learning curves", "Score against memory"),
        *("Score against speed", "Leaderboard score against the score reached here", "Which parameters matter"),
        *("All parameters at once", "ROC curve", "Calibration", "Most confident mistakes", "Data"),
        *("What ended early and why", "Settings and versions"),
    ):
        assert title in titles(page), title
    assert page.count("<figure") == len(sentences(page)) == page.count('type="application/json"')
    assert all(len(sentence) > 20 for sentence in sentences(page))
    assert "With 50 negative samples, a false-positive rate of 0.001 means none at all." in page
    assert "automl confirm photos" in page
    assert len(page.encode()) < 3e6


def test_names_from_outside_are_escaped(tmp_path):
    page = page_of(tmp_path, trials=60)
    assert "<script>alert" not in page
    assert "RuntimeError: &lt;script&gt;" in page
    assert "<b>fake" not in page
    assert "a class is &lt;rare&gt;" in page


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"trials": 0}, "No trial has begun yet"),
        ({"trials": 5, "complete": 0}, "No trial is complete yet"),
        ({"trials": 3}, "cannot be said from 3 trials with a score: 8 are the least"),
    ],
)
def test_little_is_said_as_such(tmp_path, how, text):
    page = page_of(tmp_path, **how)
    assert text in page
    assert "Settings and versions" in titles(page)


def test_many_classes_have_a_table_in_place_of_a_matrix(tmp_path):
    page = page_of(tmp_path, trials=9, classes=50)
    assert "Most confused classes" in titles(page)
    assert not any("Confusion matrix" in title for title in titles(page))
    assert "<summary>50 classes</summary>" in page
    few = page_of(tmp_path, trials=9, classes=3, name="few")
    assert any("Confusion matrix" in title for title in titles(few))


def test_a_confirmed_winner_has_its_holdout(tmp_path):
    result = make_result(tmp_path, trials=9)
    best = store_confirmed(result)
    page = render_report(summarise_study(result))
    assert f"Confirmed: trial {best.row.number}" in page
    assert "0.7900 (0.700 – 0.850)" in page
    assert "mean of 3 fresh seeds, 100 samples" in page
    assert "automl confirm photos" not in page
    assert "draws (a method)" in page


def test_mistakes_are_shown_with_a_heat_map_where_there_is_one(tmp_path, monkeypatch):
    result = make_result(tmp_path, trials=9)
    samples = result.setup.dataset.samples
    for path in samples["path"]:
        (tmp_path / path.strip("/")).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), "red").save(tmp_path / path.strip("/"))
    moved = samples.assign(path=[str(tmp_path / path.strip("/")) for path in samples["path"]])
    dataset = replace(result.setup.dataset, samples=moved)
    summary = summarise_study(replace(result, setup=replace(result.setup, dataset=dataset)))
    page = render_report(summary)
    shown = re.findall(r'<img alt="A (.*?) sample that is taken for (.*?)" src="data:image/jpeg', page)
    assert 1 <= len(shown) <= 12
    maps = dict.fromkeys(moved["path"], "data:image/png;base64,AA")
    monkeypatch.setattr(report, "draw_mistake_maps", lambda *_: maps)
    assert render_report(summary).count('src="data:image/png;base64,AA"') == len(shown)


def test_a_study_of_clips_and_of_sounds(tmp_path):
    sound = page_of(tmp_path, trials=6, media="sound", name="sounds")
    assert "Of sounds only the names are shown." in sound
    clips = page_of(tmp_path, trials=6, media="video", name="clips")
    assert "video files" in clips


@pytest.mark.slow
def test_thousands_of_trials_fit_a_page(tmp_path):
    page = page_of(tmp_path, trials=1200)
    assert len(page.encode()) < 4e6
    assert "trials 600 are drawn" in page
    assert "spread over all 1,160" in page


def test_the_function_writes_into_the_study(new_study, tmp_path, monkeypatch):
    _, folder = new_study()
    path = automl.report("tones", runs=tmp_path / "runs")
    assert path == folder.report
    assert "No trial has begun yet" in path.read_text()
    assert automl.report(runs=tmp_path / "runs", out=tmp_path / "x" / "page.html").is_file()
    with pytest.raises(StudyError, match="is a folder"):
        automl.report("tones", runs=tmp_path / "runs", out=tmp_path)
    with pytest.raises(StudyError, match="nonesuch"):
        automl.report("nonesuch", runs=tmp_path / "runs")


@pytest.mark.slow
def test_a_browser_draws_the_report(tmp_path, browser):
    path = tmp_path / "report.html"
    path.write_text(page_of(tmp_path, trials=40))
    with browser(path, width=390) as opened:
        opened.wait_for_figures()
        figures = opened.page.locator("figure")
        assert opened.page.locator("figure:has(.main-svg)").count() == figures.count() >= 15
        assert opened.errors == []
        assert opened.requests == []
        assert opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        focused = opened.list_focused()
        assert focused[:3] == ["Winner", "Search", "Costs and backbones"]
        assert focused[-3:] == ["The winning recipe", "The study's settings", "The search space"]
    for dark in (False, True):
        with browser(path, dark=dark) as opened:
            assert opened.find_faint_texts() == []
