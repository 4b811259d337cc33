import time

import pytest

from automl.backbones.table import BOARDS, COLUMNS, SHIPPED, TEXT_COLUMNS, load_table, read_provenance
from automl.errors import SpecError


@pytest.fixture(scope="module")
def table():
    return load_table()


def test_every_distinct_model_and_size_is_there_once(table):
    # Each CSV of timm has 1,556 rows; two of them are in one file only, so the union has one more.
    assert len(table) == 1557
    assert table["model"].nunique() == 1267
    assert not table.duplicated(["model", "image_size"]).any()
    architectures = table["model"].str.partition(".")[0]
    assert len(set(zip(architectures, table["image_size"], strict=True))) == 1193
    assert table.loc[table["imagenet"].notna(), "model"].nunique() == 1266


@pytest.mark.parametrize("board", [*BOARDS, "a_clean", "r_clean"])
def test_each_board_lacks_one_row(table, board):
    assert table[board].notna().sum() == 1556
    lacking = set(table.loc[table[board].isna(), "model"])
    assert lacking == ({"resnet50.tv_in1k"} if board == "a" else {"resmlp_24_224.fb_dino"})
    assert table[board].dropna().between(0, 100).all()


def test_columns_and_types(table):
    assert tuple(table.columns) == COLUMNS
    assert not table[list(TEXT_COLUMNS)].isna().any().any()
    assert table["image_size"].dtype == "int64"
    facts = table[["params_m", "crop_pct", "gmacs", "macts"]]
    assert facts.notna().all().all()
    assert (facts > 0).all().all()


def test_known_figures(table):
    rows = table.set_index(["model", "image_size"])
    giant = rows.loc[("eva_giant_patch14_336.clip_ft_in1k", 336)]
    assert giant["params_m"] == 1013.01  # "1,013.01" in timm's file
    assert (giant["r"], giant["real"], giant["sketch"]) == (90.517, 91.078, 71.2)
    assert (giant["family"], giant["licence"], giant["pretraining"]) == ("eva", "mit", "laion400m")
    resnet = rows.loc[("resnet50.a1_in1k", 224)]
    assert (resnet["gmacs"], resnet["macts"], resnet["family"]) == (4.11, 11.11, "resnet")


def test_it_says_where_it_comes_from():
    source = read_provenance()
    assert "timm repository results/*.csv" in source["source"]
    assert source["licence"].startswith("Apache-2.0")
    assert source["date"].startswith("20")
    assert source["command"].startswith("python studies/leaderboard/refresh.py")


def test_it_is_small_and_loads_fast():
    assert SHIPPED.stat().st_size < 1_000_000
    load_table()
    started = time.process_time()
    load_table()
    assert time.process_time() - started < 0.5  # 8 ms on a quiet machine


@pytest.mark.parametrize("content", ["", "# date: today\n", "model,image_size\nresnet18,224\n", "\x00\x01"])
def test_another_file_is_refused_with_the_remedy(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(SpecError, match=r"studies/leaderboard/refresh\.py"):
        load_table(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SpecError, match="cannot read"):
        load_table(tmp_path / "none.csv")
    with pytest.raises(SpecError, match="cannot read"):
        read_provenance(tmp_path / "none.csv")
