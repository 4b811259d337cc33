import io
import sys

import pytest

from automl.cli.output import (
    count_endings,
    make_console,
    print_line,
    print_next_commands,
    print_table,
    progress_bar,
    sort_best_first,
)
from automl.cli.study_progress import StudyProgress, describe_totals, describe_trial
from automl.study.trial_record import TrialRow
from tests.fixtures.terminal import Terminal


def row(number, state="complete", value=None, reason="", **values):
    given = {"backbone": f"net{number}", "image_size": 224, "epochs": 3.0, "epochs_done": 3.0, "best_value": value}
    given |= {"seconds": 75.0, "known_good": ""} | values
    return TrialRow(number=number, state=state, value=value, reason=reason, **given)


ROWS = [
    row(0, value=0.8, known_good="quick"),
    row(1, "pruned", 0.5, "auc 0.5000 after 0.4 of 3 epochs is behind"),
    row(2, "pruned", 0.6, "auc 0.6000 after 0.4 of 3 epochs is behind"),
    row(3, value=0.9),
    row(4, "failed", reason="no such file"),
    row(5, "failed", reason="", image_size=None, epochs=None, seconds=None, backbone=""),
    row(6, "pruned", reason="diverged: the loss is not finite after 10 steps"),
    row(7, value=0.9),
    row(8, "running", 0.7, epochs_done=1.0, seconds=None),
]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_is_never_cut_and_its_texts_are_no_markup(monkeypatch, terminal):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys, "stdout", stream := Terminal() if terminal else io.StringIO())
    print_table(["data", "n"], [["[red]mine", "1"], ["a" * 60, "20"]], left=("data",))
    printed = stream.getvalue()
    assert "[red]mine" in printed
    if terminal:
        assert printed.count("a") == 62  # "data", and a name that is folded
    else:
        assert printed.splitlines() == [f"{'data':62} n", f"{'[red]mine':62} 1", f"{'a' * 60}  20"]


def test_a_line_is_never_wrapped_and_is_no_markup(capsys):
    print_line(": [red]" + "a b " * 100, title="best", style="yellow")
    assert capsys.readouterr().out == "best: [red]" + "a b " * 100 + "\n"


@pytest.mark.parametrize(
    ("terminal", "columns", "printed"),
    [
        (True, 23, ["  automl a  the purpose", "  automl    other"]),
        (True, 22, ["  automl a", "      the purpose", "  automl", "      other"]),
        (False, 22, ["  automl a  the purpose", "  automl    other"]),
    ],
)
def test_next_commands_stand_beside_their_purposes_where_they_fit(monkeypatch, terminal, columns, printed):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", stream := Terminal() if terminal else io.StringIO())
    print_next_commands([("automl a", "the purpose"), ("automl", "other")])
    assert stream.getvalue().splitlines()[2:] == printed


def test_the_best_is_first_and_the_earlier_of_two_equals():
    assert [r.number for r in sort_best_first(ROWS, True)] == [3, 7, 0]
    assert [r.number for r in sort_best_first(ROWS, False)] == [0, 3, 7]
    assert [r.number for r in sort_best_first([row(0, value=0.0), row(1, value=0.2)], False)] == [0, 1]


def test_totals_in_one_line():
    line = describe_totals(StudyProgress("auc", True, ROWS, [], 20, 90.0, stopping=True))
    assert line.startswith("8 of 20 trials · best auc 0.9000 (trial 3, net3)")
    assert "left" in line
    assert "Ctrl-C again stops now" in line
    assert describe_totals(StudyProgress("auc", True, [], [], 20, None)) == "0 of 20 trials"
    assert "-" not in describe_totals(StudyProgress("auc", True, [], [], 20, -90.0))


def test_a_trial_in_one_line():
    assert describe_trial(ROWS[3], "auc") == "trial 3 complete: auc 0.9000 net3 224 px 3 epochs in 1m15s"
    assert describe_trial(ROWS[4], "auc").endswith("(no such file)")
    assert describe_trial(ROWS[5], "auc").startswith("trial 5 failed:")


def test_ends_are_counted_with_their_reasons():
    lines = count_endings(ROWS)
    assert lines[0] == "3 complete, 3 pruned, 2 failed, 1 running"
    assert "2 × pruned: behind the others at the same point of the run" in lines
    assert "1 × pruned: diverged: the loss is not finite after 10 steps" in lines
    assert "1 × failed: no such file" in lines
    assert "1 × failed: no reason given" in lines


def test_a_pipe_gets_no_control_codes_even_if_colours_are_forced(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as ipykernel does
    print_table(("backbone", "auc"), [("resnet18", "0.9")], left=("backbone",))
    with progress_bar("decoding") as progress:
        progress(1, 2)
    captured = capsys.readouterr()
    assert "resnet18" in captured.out
    assert "\x1b" not in captured.out + captured.err


@pytest.mark.parametrize(("kind", "drawn"), [("dumb", False), ("xterm", True)])
def test_nothing_is_drawn_on_a_dumb_terminal(monkeypatch, kind, drawn):
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr("sys.stdout", Terminal())
    assert make_console().is_terminal is drawn
