"""The check of the exports accepts what is right, and refuses what is not."""

import pytest

from tests.fixtures.scripts import load_script

exports = load_script("leaderboard/exports.py")


@pytest.mark.parametrize("arch", ["test_vit", "repghostnet_050", "crossvit_9_240"])
def test_exports_are_accepted(arch):
    row = exports.check(arch, exports.DEFAULTS)
    assert (row["timm"], row["python"], row["why"]) == ("yes", "yes", "")


def test_an_option_that_train_py_stops_on_is_seen(monkeypatch):
    """As it was written for networks without stochastic depth."""
    from automl.exporters import timm_config as module

    before = module.timm_yaml
    monkeypatch.setattr(module, "timm_yaml", lambda *given: before(*given) + "\ndrop_path: 0.2\n")
    row = exports.check("repghostnet_050", exports.DEFAULTS)
    assert row["timm"] == "no"
    assert row["why"].startswith("timm: TypeError: ")
    assert "'drop_path_rate'" in row["why"]


def test_the_table_is_written(tmp_path, capsys):
    exports.main(["test_vit", "--out", str(tmp_path / "exports.csv"), "--jobs", "1"])
    assert (tmp_path / "exports.csv").read_text() == "arch,image_size,timm,python,why\ntest_vit,160,yes,yes,\n"
    assert "1 architectures, 0 with an export refused" in capsys.readouterr().out
