import pytest
from typer.testing import CliRunner

from automl.cli.main import app
from automl.cli.search import _write_report
from automl.errors import StudyError


@pytest.fixture
def runs(new_study, tmp_path):
    for name in ("one", "two"):
        new_study(name)
    return tmp_path / "runs"


def test_it_prints_where_the_page_is(runs):
    found = CliRunner().invoke(app, ["report", "one", "--runs", str(runs)])
    assert found.exit_code == 0, found.output
    assert found.stdout == f"written: {runs / 'one' / 'report.html'}\n"
    out = runs / "two.html"
    found = CliRunner().invoke(app, ["report", "two", "--runs", str(runs), "--out", str(out)])
    assert out.is_file()


def test_a_study_that_does_not_exist(runs):
    found = CliRunner().invoke(app, ["report", "three", "--runs", str(runs)])
    assert isinstance(found.exception, StudyError)
    assert "studies there: " in str(found.exception)


def test_studies_side_by_side(runs):
    found = CliRunner().invoke(app, ["compare", "one", "two", "--runs", str(runs)])
    assert found.stdout == f"written: {runs / 'compare-one-two.html'}\n"


def test_a_search_ends_with_a_page_and_never_fails_for_it(runs, capsys, monkeypatch):
    _write_report("one", runs)
    assert capsys.readouterr().out == f"report: {runs / 'one' / 'report.html'}\n"

    def fail(*_, **__):
        raise RuntimeError("no room\nfor it")

    monkeypatch.setattr("automl.reports.report.report", fail)
    _write_report("one", runs)
    assert capsys.readouterr().out == "warning: no report: no room\n"
