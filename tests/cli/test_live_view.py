"""The live view of a search: lines that fit, whatever the terminal."""

import itertools

import pytest
from rich.cells import cell_len
from rich.console import ConsoleDimensions

from automl.cli.live_view import draw_sparkline, draw_study
from automl.cli.study_progress import StudyProgress, WorkerState
from automl.study.trial_record import TrialRow

LONG = "vit_large_patch14_reg4_dinov2_with_a_very_long_tag.lvd142m_ft_in1k"


def trial(number, state="complete", value=0.5, backbone="resnet10t.c3_in1k", **values):
    given = {"image_size": 64, "epochs": 8.0, "epochs_done": 2.0, "best_value": value, "seconds": 24.0}
    given |= {"reason": "auc 0.5 after 1 of 8 epochs is behind" if state == "pruned" else "", "known_good": ""}
    return TrialRow(number=number, state=state, value=value, backbone=backbone, **(given | values))


def study(rows, workers=(), maximize=True, **values):
    given = {"trials": 50, "seconds_left": 300.0, "timeout_seconds": 570.0}
    return StudyProgress("auc", maximize, list(rows), list(workers), **(given | values))


def draw(progress, columns=80, rows=24, news=None, stop="", elapsed=10.0):
    news = progress.ended if news is None else news
    return [line.plain for line in draw_study(progress, news, stop, elapsed, ConsoleDimensions(columns, rows))]


STATES = ("complete", "pruned", "failed")
BUSY = study(
    [*(trial(k, STATES[k % 3], 0.5 + k / 100, LONG) for k in range(30)), trial(30, "running")],
    [WorkerState(f"cuda-{k}", 30, 1.5 * k, "" if k % 2 else "decoding faces, 12 of 300") for k in range(8)],
)


@pytest.mark.parametrize(("columns", "rows"), [*itertools.product((20, 40, 60, 80, 200), (4, 10, 24, 60))])
@pytest.mark.parametrize("progress", [BUSY, study([])], ids=["busy", "empty"])
def test_nothing_is_wider_or_higher_than_the_terminal(progress, columns, rows):
    lines = draw(progress, columns, rows, stop="stopping after this epoch; Ctrl-C again stops now")
    assert max(map(cell_len, lines)) < columns
    assert len(lines) < rows


def test_names_that_show_as_two_columns_fit_too():
    progress = study([trial(0, "running", backbone="网络" * 40)], [WorkerState("cpu", 0, 1.0, "")])
    assert max(map(cell_len, draw(progress))) < 80


def test_what_a_view_shows():
    rows = [trial(0, value=0.6), trial(1, "pruned", 0.55), trial(2, value=0.9), trial(3, "running", None)]
    lines = draw(study(rows, [WorkerState("cpu", 3, 3.2, "")]))
    assert lines[0].startswith("trials  ━─")
    assert lines[0].endswith("3 of 50 trials: 2 complete, 1 pruned")
    assert lines[1].endswith("4m30s of 9m30s, 5m00s left")
    assert lines[3] == "best    auc 0.9000  trial 2, resnet10t.c3_in1k 64 px"
    assert lines[4] == "        0.6000 ▁█ 0.9000"
    assert lines[6].startswith("cpu     ━━━━━━━━─")
    assert lines[6].endswith("─  trial 3 resnet10t.c3_in1k 64 px, epoch 3.20 of 8")
    assert [line.partition(":")[0] for line in lines[8:11]] == [
        "trial 0 complete",
        "trial 1 pruned",
        "trial 2 complete",
    ]
    assert lines[-1] == "Ctrl-C stops after this epoch; the same command then continues"


def test_a_long_name_is_cut_and_not_the_epoch():
    progress = study([trial(0, "running", backbone=LONG)], [WorkerState("cuda-0", 0, 3.2, "")])
    line = next(line for line in draw(progress, 60) if line.startswith("cuda-0"))
    assert "vit_large_p" in line
    assert line.endswith("… 64 px, epoch 3.20 of 8")


def test_what_a_worker_does_beside_training_has_a_bar():
    progress = study([trial(0, "running")], [WorkerState("cpu", 0, 0.0, "decoding view faces, 150 of 300")])
    (line,) = (line for line in draw(progress, 120) if line.startswith("cpu"))
    assert abs(line.count("━") - line.count("─")) <= 1
    assert line.endswith("64 px, decoding view faces, 150 of 300")


def test_workers_without_room_are_counted():
    workers = [WorkerState(f"cuda-{k}", 0, 1.0, "") for k in range(12)]
    assert "… and 7 more workers" in draw(study([trial(0, "running")], workers), rows=10)


def test_without_a_timeout_the_time_is_what_went_by():
    assert draw(study([], seconds_left=None, timeout_seconds=None), elapsed=75.0)[1] == "time    1m15s"


def test_the_answer_to_ctrl_c_stands_in_the_last_line():
    answer = "stopping after this epoch; Ctrl-C again stops now; the same command continues"
    assert draw(study([]), stop=answer)[-1] == answer
    assert draw(study([]), 50, stop=answer)[-2:] == answer.rsplit("; ", 1)


@pytest.mark.parametrize(
    ("values", "maximize", "drawn"),
    [
        ([0.0, 0.5, 1.0], True, "▁▅█"),
        ([1.0, 0.5, 0.0], False, "▁▅█"),
        ([0.7], True, "█"),
        ([0.7, 0.7], True, "██"),
        ([float(k) for k in range(100)], True, "▁▂▄▅▇█"),
    ],
)
def test_a_sparkline(values, maximize, drawn):
    assert draw_sparkline(values, 6, maximize) == drawn
