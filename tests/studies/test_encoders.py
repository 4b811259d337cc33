"""The script that compiles the table of encoders."""

import pandas as pd
import pytest

from automl.backbones.encoders import load_encoders
from automl.backbones.table import load_table
from automl.backbones.timm_model import build_on_meta
from automl.memory.trace import drop_data
from tests.fixtures.scripts import load_script

encoders = load_script("leaderboard/encoders.py")

NAMES = ["vit_tiny_patch16_224.augreg_in21k", "qwen3_vit_88m_enc.qwen3_5_0_8b", "convnextv2_atto.fcmae"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vit_base_patch16_dinov3.lvd1689m", "LVD-1689M, DINOv3 distillation"),
        ("vit_7b_patch16_dinov3.sat493m", "SAT-493M, DINOv3"),
        ("convnext_tiny.eupe_lvd1689m", "LVD-1689M, EUPE"),
        ("vit_base_patch16_clip_224.laion2b_ft_in12k", "LAION-2B then ImageNet-12k, CLIP, then labels"),
        ("vit_base_patch16_clip_224.metaclip_2pt5b", "MetaCLIP-2.5B, CLIP"),
        ("vit_base_patch16_siglip_256.v2_webli", "WebLI, SigLIP 2"),
        ("mvitv2_base_cls.fb_inw21k", "ImageNet-21k, labels"),
        ("vit_base_patch16_224.mae", "ImageNet-1k, MAE"),
        ("vit_huge_patch14_gap_224.in22k_ijepa", "ImageNet-22k, I-JEPA"),
        ("aimv2_large_patch14_224.apple_pt", "AIMv2"),
        ("davit_base_fl.msft_florence2", ""),
    ],
)
def test_a_name_says_what_it_was_trained_on(name, says):
    assert encoders.read_pretraining(name) == says


@pytest.mark.parametrize(
    "model", ["vit_small_patch16_224.augreg_in1k", "resnet50.a1_in1k", "swin_tiny_patch4_window7_224.ms_in1k"]
)
def test_operations_are_counted_as_the_benchmarks_of_timm_count_them(model):
    row = load_table().drop_duplicates("model").set_index("model").loc[model]
    size = int(row["image_size"])
    network, _ = build_on_meta(model, {"img_size": size}, num_classes=2)
    drop_data(network)
    macs, activations = encoders.count_operations(network, size)
    assert macs / 1e9 == pytest.approx(row["gmacs"], rel=0.01)
    assert activations / 1e6 == pytest.approx(row["macts"], rel=0.01)


def test_a_table_is_compiled_and_what_returns_tokens_has_no_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "list_encoders", lambda: NAMES)
    encoders.main(["--out", str(tmp_path / "table.csv"), "--jobs", "1"])
    made, shipped = load_encoders(tmp_path / "table.csv"), load_encoders()
    expected = shipped.set_index("model").loc[NAMES].reset_index()
    pd.testing.assert_frame_equal(made, expected[made.columns], rtol=1e-6)
    assert pd.isna(made.set_index("model").loc[NAMES[1], "gmacs"])


def test_a_table_that_cannot_be_written_ends_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encoders, "list_encoders", lambda: NAMES[:1])
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        encoders.main(["--out", str(tmp_path / "file" / "table.csv"), "--jobs", "1"])
    assert ended.value.code == 2
    assert "--out" in capsys.readouterr().err
