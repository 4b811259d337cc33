"""The script that examines every backbone of the leaderboard."""

from automl.backbones.capability_table import SIZES, Capabilities, load_capabilities
from tests.fixtures.scripts import load_script

capabilities = load_script("leaderboard/capabilities.py")


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = [
        Capabilities(
            "b.x", 224, runs=SIZES, loads=(224,), takes_size=True, why_not="64 px: a, b", default_weights=False
        ),
        Capabilities(
            "a", 300, runs=tuple(sorted({*SIZES, 300})), loads=(), drop_path=False, layer_groups=3, problem="no"
        ),
    ]
    capabilities.write_capabilities(rows, tmp_path / "table.csv")
    assert load_capabilities(tmp_path / "table.csv") == [rows[1], rows[0]]


def test_the_shipped_table_is_written_as_it_is(tmp_path):
    path = capabilities.SHIPPED
    capabilities.write_capabilities(load_capabilities(), tmp_path / "table.csv")
    written, shipped = ((file.read_text().splitlines()) for file in (tmp_path / "table.csv", path))
    assert [line for line in written if line[0] != "#"] == [line for line in shipped if line[0] != "#"]


def test_the_command_examines_the_backbones_named(tmp_path, capsys):
    out = tmp_path / "table.csv"
    capabilities.main(["test_vit.r160_in1k", "--out", str(out), "--jobs", "1"])
    assert "1 backbones, 0 that cannot be built" in capsys.readouterr().out
    (row,) = load_capabilities(out)
    assert row.weights_size in row.loads
