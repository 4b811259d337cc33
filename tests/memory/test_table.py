import csv
import io

import pytest

from automl.backbones.encoders import load_encoders
from automl.backbones.table import load_table
from automl.errors import SpecError
from automl.memory.step import Step
from automl.memory.table import (
    BATCHES,
    ENCODERS,
    KINDS,
    MIB,
    SHIPPED,
    PredictedMemory,
    load_predictions,
    predict_table,
)
from automl.memory.trace import trace_envelope

FIGURES = tuple(100 + 10 * batch for batch in BATCHES)
ROW = PredictedMemory("a_net", 64, dict.fromkeys(KINDS, FIGURES), 2, "recurrent layers")


@pytest.mark.parametrize("content", ["model,size\na,1\n", "arch,image_size\na,1\n", b"\xff\xfe"])
def test_another_file_is_refused_with_the_command_that_makes_the_table(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SpecError, match=r"table of predicted memory .*studies/leaderboard/memory\.py"):
        load_predictions(path)


def test_a_row_without_all_of_its_figures_is_refused(tmp_path):
    text = io.StringIO()
    columns = ("arch", "image_size", *KINDS, "smallest_batch", "weak", "trouble")
    csv.writer(text).writerows([columns, ("a_net", 64, "1 2", "", "", 1, "", "")])
    (tmp_path / "table.csv").write_text(text.getvalue())
    with pytest.raises(SpecError, match="a_net has not 10 figures"):
        load_predictions(tmp_path / "table.csv")


def test_between_the_batches_of_the_table_it_is_interpolated_and_beyond_them_it_grows_on():
    assert ROW.needed_bytes("fp16", 1) == 110 * MIB
    assert ROW.needed_bytes("fp16", 48) == 580 * MIB
    assert ROW.needed_bytes("fp16", 1024) == (100 + 10 * 1024) * MIB
    assert PredictedMemory("b_net", 32, {}, problem="no").needed_bytes("fp16", 8) is None


def test_the_shipped_table_has_every_row_of_the_leaderboard():
    table = load_table()
    training, weak = predict_table(table, "fp16", 32)
    full, _ = predict_table(table, "fp32", 32)
    inference, _ = predict_table(table, "inference", 32)
    known = training.notna()
    assert known.mean() > 0.98
    assert (inference[known] < training[known]).all()
    # Autocast computes GroupNorm in float32 and keeps both copies: ResNets with it need more in fp16 than in fp32.
    more = table["model"][training > 1.05 * full]
    assert more.str.contains("_gn|_bit").all()
    assert len(more) < 20
    assert set(table["family"][weak != ""]) == {"sequencer"}
    untraced = [row for row in load_predictions(SHIPPED).values() if not row.mib]
    assert all(row.problem for row in untraced)


def test_the_shipped_table_was_made_by_the_command_that_its_errors_name():
    assert "# command: python studies/leaderboard/memory.py" in SHIPPED.read_text(encoding="utf-8").splitlines()


def test_encoders_are_looked_up_with_the_others_and_have_more_kinds():
    table = load_encoders()
    frozen, _ = predict_table(table, "frozen", 32)
    norms, _ = predict_table(table, "norms", 32)
    whole, _ = predict_table(table, "fp16", 32)
    known = frozen.notna()
    assert known.mean() > 0.9
    assert (frozen[known] < norms[known]).all()
    assert (norms[known] < whole[known]).mean() > 0.99
    assert predict_table(load_table().head(50), "fp16", 32)[0].notna().all()
    assert "# command: python studies/leaderboard/memory.py --encoders" in ENCODERS.read_text(encoding="utf-8")


def test_a_shipped_row_is_within_a_little_of_a_trace():
    """Not equal: the installed torch and timm need not be those the table was computed with."""
    shipped = load_predictions()["mobilenetv2_100", 224]
    traced = trace_envelope(Step("mobilenetv2_100", 224, 2, precision="fp16"))
    for batch in (2, 24, 100):
        assert shipped.needed_bytes("fp16", batch) == pytest.approx(traced.needed_bytes(batch), rel=0.05)
