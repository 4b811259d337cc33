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


def test_no_file_but_a_page_is_replaced(runs):
    database = runs / "one" / "precious.db"
    database.write_bytes(b"precious")
    for command in (["report", "one"], ["compare", "one", "two"]):
        for out in (str(database), "--json"):
            found = CliRunner().invoke(app, [*command, "--runs", str(runs), "--out", out])
            assert "a page is an HTML file" in str(found.exception)
    assert database.read_bytes() == b"precious"


def test_a_study_given_by_its_path_or_with_a_mistake_is_named(runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    found = CliRunner().invoke(app, ["report", "runs/one"])
    assert str(found.exception) == "runs/one is a path; give the study by its name: one --runs runs"
    found = CliRunner().invoke(app, ["report", "onee", "--runs", str(runs)])
    assert "did you mean 'one'?" in str(found.exception)
