import time

import pytest
import timm

from automl.backbones import encoders, table
from automl.backbones.encoders import COLUMNS, SHIPPED, TEXT_COLUMNS, load_backbones, load_encoders
from automl.backbones.selection import select_rows
from automl.backbones.table import BOARDS, load_table, read_provenance
from automl.backbones.timm_model import build_on_meta
from automl.errors import SpecError
from automl.memory.table import ENCODER_KINDS, ENCODERS, load_predictions

FAMILIES = (
    *("eva", "vision_transformer", "convnext", "beit", "byobnet", "metaformer"),
    *("hiera", "vitamin", "resnetv2", "swin_transformer", "naflexvit", "mobilenetv3"),
)


@pytest.fixture(scope="module")
def shipped():
    return load_encoders()


@pytest.fixture
def made_with_this_timm():
    if read_provenance(SHIPPED)["timm"] != timm.__version__:
        pytest.skip("the table was made with another timm")


@pytest.mark.usefixtures("made_with_this_timm")
def test_every_pretrained_name_without_a_classifier_of_in1k_is_there_and_no_other(shipped):
    ranked = set(load_table()["model"])
    wanted = [name for name in timm.list_pretrained() if timm.get_pretrained_cfg(name).num_classes != 1000]
    assert list(shipped["model"]) == sorted(set(wanted) - ranked)


@pytest.mark.usefixtures("made_with_this_timm")
def test_a_row_says_what_the_configuration_of_timm_says(shipped):
    for row in shipped.to_dict("records"):
        cfg = timm.get_pretrained_cfg(row["model"])
        assert row["image_size"] == cfg.input_size[-1]
        assert tuple(map(float, row["mean"].split())) == cfg.mean
        assert tuple(map(float, row["std"].split())) == cfg.std
        assert (row["interpolation"], row["crop_pct"]) == (cfg.interpolation, cfg.crop_pct)
        assert row["fixed_input_size"] == cfg.fixed_input_size
        assert row["licence"] == (cfg.license or "")
        assert row["hub"] == (cfg.hf_hub_id or "")


@pytest.mark.usefixtures("made_with_this_timm")
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_network(shipped, family):
    rows = shipped[(shipped["family"] == family) & shipped["gmacs"].notna()].sort_values("params_m")
    row = rows.iloc[0]
    model, _ = build_on_meta(row["model"], {"img_size": int(row["image_size"])}, num_classes=2)
    assert row["params_m"] == pytest.approx(sum(p.numel() for p in model.parameters()) / 1e6, abs=0.006)
    published, _ = build_on_meta(row["model"], {})
    assert row["weights_m"] == pytest.approx(sum(t.numel() for t in published.state_dict().values()) / 1e6, abs=0.006)


def test_columns_and_types(shipped):
    assert set(table.COLUMNS) | set(COLUMNS) == set(shipped.columns)
    assert not shipped[list(TEXT_COLUMNS)].isna().any().any()
    assert shipped[list(BOARDS)].isna().all().all()
    figures = shipped[["params_m", "gmacs", "macts"]]
    without = figures.isna().any(axis=1)
    assert shipped["model"][without].str.contains("_enc.", regex=False).all()  # they return tokens
    assert without.sum() < 20
    assert (figures[~without] > 0).all().all()


def test_patches_are_those_of_the_name(shipped):
    rows = shipped.set_index("model")
    assert rows.loc["vit_small_patch14_dinov2.lvd142m", "patch"] == 14
    assert rows.loc["vit_base_r50_s16_224.orig_in21k", "patch"] == 16
    assert rows["patch"][rows["family"].isin(["convnext", "resnetv2", "regnet"])].isna().all()


def test_it_can_be_put_below_the_leaderboard_and_filtered(shipped):
    both = load_backbones()
    assert len(both) == len(load_table()) + len(shipped)
    assert both["image_size"].dtype == "int64"
    names = select_rows(both, ["*clip*"], licence="commercial", max_params=100)["model"]
    assert set(names) & set(shipped["model"])
    assert set(names) & set(load_table()["model"])


def test_it_says_where_it_comes_from_and_that_it_has_no_scores():
    header = read_provenance(SHIPPED)
    assert header["command"] == "python studies/leaderboard/encoders.py"
    assert header["licence"].startswith("Apache-2.0")
    assert header["scores"].startswith("none")


def test_every_encoder_that_can_be_trained_has_its_memory(shipped):
    rows, known = shipped.dropna(subset="gmacs"), load_predictions(ENCODERS)
    assert {(model.partition(".")[0], size) for model, size in zip(rows["model"], rows["image_size"], strict=True)} == {
        *known
    }
    for row in known.values():
        assert row.problem or set(row.mib) == set(ENCODER_KINDS)
        if not row.problem:
            assert row.needed_bytes("frozen", 32) <= row.needed_bytes("norms", 32) <= row.needed_bytes("fp16", 32)


def test_it_is_small_and_loads_fast():
    assert SHIPPED.stat().st_size + ENCODERS.stat().st_size < 600_000
    load_encoders()
    started = time.process_time()
    load_encoders()
    assert time.process_time() - started < 0.5


def test_another_file_is_refused_with_the_remedy(tmp_path):
    for content in ("", "model,image_size\nvit,224\n"):
        (tmp_path / "table.csv").write_text(content)
        with pytest.raises(SpecError, match=r"table of encoders.*studies/leaderboard/encoders\.py"):
            load_encoders(tmp_path / "table.csv")
    assert encoders.COMMAND in SHIPPED.read_text(encoding="utf-8")
