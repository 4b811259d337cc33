"""The script that predicts the memory of every backbone."""

from dataclasses import replace

import pytest

from automl.memory.step import Step
from automl.memory.table import BATCHES, ENCODER_KINDS, KINDS, MIB, PredictedMemory, load_predictions
from automl.memory.trace import trace_envelope
from automl.recipe.tuning import TuneNorms
from tests.fixtures.scripts import STUDIES, load_script

memory = load_script("leaderboard/memory.py")

FIGURES = tuple(100 + 10 * batch for batch in BATCHES)
ROW = PredictedMemory("a_net", 64, dict.fromkeys(KINDS, FIGURES), 2, "recurrent layers")
BROKEN = PredictedMemory("b_net", 32, {}, problem='it said "no", twice')


@pytest.fixture
def predicted(monkeypatch):
    """Rows without tracing, and which were asked for."""
    asked = []

    def predict_row(task):
        asked.append((task.arch, task.image_size))
        return replace(ROW, arch=task.arch, image_size=task.image_size, mib=dict.fromkeys(task.kinds, FIGURES))

    monkeypatch.setattr(memory, "predict_row", predict_row)
    return asked


def test_a_row_is_what_is_traced():
    row = memory.predict_row(memory.Task("test_byobnet", 64, ENCODER_KINDS))
    for kind, step in {
        "fp16": Step("test_byobnet", 64, memory.CLASSES, precision="fp16"),
        "fp32": Step("test_byobnet", 64, memory.CLASSES),
        "inference": Step("test_byobnet", 64, memory.CLASSES, precision="fp16", training=False),
        "frozen": Step("test_byobnet", 64, memory.CLASSES, precision="fp16", frozen=True),
        "norms": Step("test_byobnet", 64, memory.CLASSES, precision="fp16", tune=TuneNorms()),
    }.items():
        envelope = trace_envelope(step)
        assert row.mib[kind] == tuple(-(-envelope.needed_bytes(batch) // MIB) for batch in BATCHES)
    assert (row.smallest_batch, row.weak, row.problem) == (2, "", "")


def test_what_cannot_be_built_is_a_row_that_says_why():
    row = memory.predict_row(memory.Task("mixer_s32_224", 16, KINDS))
    assert "32 x 32" in row.problem
    assert row.needed_bytes("fp16", 8) is None


def test_rows_come_back_from_the_file_as_they_were(tmp_path):
    path = tmp_path / "table.csv"
    memory.write_predictions([BROKEN, ROW], path)
    assert load_predictions(path) == {("a_net", 64): ROW, ("b_net", 32): BROKEN}


def test_only_missing_rows_are_computed(tmp_path, predicted):
    path = tmp_path / "table.csv"
    memory.predict_rows([("a", 1), ("b", 2)], path)
    progress = []
    rows = memory.predict_rows([("b", 2), ("c", 3), ("b", 2)], path, progress=lambda *done: progress.append(done))
    assert predicted == [("a", 1), ("b", 2), ("c", 3)]
    assert [row.arch for row in rows] == ["b", "c"]
    assert progress == [(1, 2), (2, 2)]
    assert set(load_predictions(path)) == {("b", 2), ("c", 3)}


def test_what_takes_too_long_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setattr(memory, "ROW_SECONDS", 0.05)
    row = memory.predict_row(memory.Task("vit_large_patch16_224", 224, KINDS))
    assert "tracing takes longer than 0.05 s" in row.problem
    assert not row.mib


def test_a_kind_that_was_added_is_computed_alone(tmp_path, predicted, monkeypatch):
    path = tmp_path / "table.csv"
    memory.predict_rows([("a", 1)], path)
    kinds, predict_row = [], memory.predict_row
    monkeypatch.setattr(memory, "predict_row", lambda task: kinds.append(task.kinds) or predict_row(task))
    rows = memory.predict_rows([("a", 1)], path, kinds=ENCODER_KINDS)
    assert kinds == [("frozen", "norms")]
    assert len(predicted) == 2
    assert tuple(rows[0].mib) == ENCODER_KINDS
    assert load_predictions(path)["a", 1] == rows[0]


def test_other_versions_are_computed_again(tmp_path, predicted):
    path = tmp_path / "table.csv"
    memory.predict_rows([("a", 1)], path)
    path.write_text(path.read_text().replace("# timm: ", "# timm: 9"))
    memory.predict_rows([("a", 1)], path)
    assert len(predicted) == 2


def test_an_interruption_keeps_what_was_done(tmp_path, predicted):
    path = tmp_path / "table.csv"

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.predict_rows([(name, 1) for name in "abcde"], path, progress=interrupt)
    assert len(load_predictions(path)) == 3
    memory.predict_rows([(name, 1) for name in "abcde"], path)
    assert len(predicted) == 5


@pytest.mark.slow
def test_several_processes_give_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(STUDIES / "leaderboard")  # as for the script itself; other processes import it
    keys = [("test_vit", 64), ("test_byobnet", 64), ("mixer_s32_224", 16)]
    one, two = (memory.predict_rows(keys, tmp_path / f"{jobs}.csv", jobs) for jobs in (1, 2))
    assert one == two


def test_a_table_that_cannot_be_written_ends_the_command(tmp_path, predicted, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        memory.main(["--out", str(tmp_path / "file" / "table.csv"), "--jobs", "1"])
    assert ended.value.code == 2
    assert "--out" in capsys.readouterr().err
