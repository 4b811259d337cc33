"""The script that compiles the leaderboard from timm's result CSVs."""

import shutil

import pandas as pd
import pytest

from automl.backbones.table import load_table, read_provenance
from automl.errors import SpecError
from tests.fixtures.scripts import load_script

refresh = load_script("leaderboard/refresh.py")
BOARD_FILES, compile_table, refresh_table = refresh.BOARD_FILES, refresh.compile_table, refresh.refresh_table


@pytest.fixture
def results(tmp_path):
    """A small `results` folder of timm: two models, one of a billion parameters, one that timm does not know."""
    folder = tmp_path / "results"
    folder.mkdir()
    for number, file in enumerate(BOARD_FILES.values()):
        (folder / file).write_text(
            "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation\n"
            f'resnet18.a1_in1k,288,{70 + number},1,1,1,"1,011.69",1.000,bicubic\n'
            f"quuxnet2_tiny.in22k_ft_in1k,224,{60 + number},1,1,1,5.00,0.875,bicubic\n"
        )
    (folder / "benchmark-infer-gpu.csv").write_text(
        "model,infer_img_size,infer_gmacs,infer_macts\nresnet18,144,1.0,2.0\nresnet18,600,99.0,99.0\n"
    )
    return folder


def test_a_folder_becomes_a_table(results, tmp_path):
    out = tmp_path / "made" / "table.csv"
    refresh_table(results, out)
    table = load_table(out).set_index("model")
    known, unknown = table.loc["resnet18.a1_in1k"], table.loc["quuxnet2_tiny.in22k_ft_in1k"]
    assert [known[board] for board in BOARD_FILES] == [70 + n for n in range(8)]
    assert (known["params_m"], known["family"], known["licence"]) == (1011.69, "resnet", "apache-2.0")
    assert (known["gmacs"], known["macts"]) == (4.0, 8.0)  # from 144 pixels, the nearest size: four times the area
    assert (unknown["family"], unknown["licence"], unknown["pretraining"]) == ("quuxnet", "", "in22k")
    assert pd.isna(unknown["gmacs"])
    assert read_provenance(out)["command"] == "python studies/leaderboard/refresh.py results"


def test_a_row_of_one_board_only_is_kept(results):
    path = results / BOARD_FILES["a"]
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "resnet18" not in line))
    table = compile_table(results).set_index("model")
    assert pd.isna(table.loc["resnet18.a1_in1k", "a"])
    assert table.loc["resnet18.a1_in1k", "r"] > 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("resnet18.a1_in1k", "hf-hub:evil/model", "not a timm model name"),
        ("resnet18.a1_in1k", "../../resnet18", "not a timm model name"),
        ("quuxnet2_tiny.in22k_ft_in1k,224", "resnet18.a1_in1k,288", "listed twice"),
        (",70,", ",170,", "row 2: top1 is .*170.*not a number from 0 to 100"),
        (",70,", ",abc,", "row 2: top1 is 'abc'"),
        (",70,", ",,", "row 2: top1 is"),
        ("top1,", "best,", "cannot read"),
    ],
)
def test_an_unfit_board_is_refused(results, old, new, says):
    path = results / BOARD_FILES["imagenet"]
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SpecError, match=says):
        compile_table(results)


def test_all_missing_boards_are_named(results):
    for board in ("a", "sketch"):
        (results / BOARD_FILES[board]).unlink()
    with pytest.raises(SpecError, match=r"results-imagenet-a\.csv, results-sketch\.csv"):
        compile_table(results)
    with pytest.raises(SpecError, match="lacks"):
        compile_table(results / "none")


def test_benchmarks_and_metadata_are_optional(results):
    (results / "benchmark-infer-gpu.csv").unlink()
    assert compile_table(results)["gmacs"].isna().all()


def test_refresh_reproduces_the_shipped_table(shared):
    import timm

    made, shipped = compile_table(shared / "timm-results"), load_table()
    if timm.__version__ != read_provenance()["timm"]:  # family and licence are what that timm says
        made, shipped = (table.drop(columns=["family", "licence"]) for table in (made, shipped))
    pd.testing.assert_frame_equal(made, shipped, check_dtype=False)


def test_a_table_that_cannot_be_written_is_refused(results, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="--out"):
        refresh_table(results, tmp_path / "file" / "table.csv")


def test_the_source_is_left_as_it_was(results, tmp_path):
    before = shutil.copytree(results, tmp_path / "before")
    refresh_table(results, tmp_path / "table.csv")
    assert {p.name: p.read_bytes() for p in before.iterdir()} == {p.name: p.read_bytes() for p in results.iterdir()}


@pytest.mark.parametrize(
    ("model", "recorded", "expected"),
    [
        ("resnet50.a1_in1k", "in1k", "in1k"),
        ("convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384", None, "laion2b+in12k"),
        ("eva02_large_patch14_448.mim_m38m_ft_in22k_in1k", None, "m38m+in22k-selfsl"),
        ("beitv2_base_patch16_224.in1k_ft_in22k_in1k", None, "in22k"),
        ("tf_efficientnet_b0.ns_jft_in1k", None, "jft300m-ns"),
        ("resnext101_32x8d.fb_swsl_ig1b_ft_in1k", None, "ig1b-swsl"),
        ("vit_base_patch16_clip_224.openai_ft_in1k", None, "wit400m"),
        ("eva_giant_patch14_336.clip_ft_in1k", None, "laion400m"),
        ("deit_base_distilled_patch16_224.fb_in1k", "in1k-dist", "in1k-dist"),
        ("oldnet", "in21k-selfsl", "in21k-selfsl"),
    ],
)
def test_pretraining_is_read_from_the_tag(model, recorded, expected):
    assert refresh.read_pretraining(model, recorded) == expected


def test_the_command_writes_the_table_and_refuses_a_folder_without_results(results, tmp_path, capsys):
    out = tmp_path / "table.csv"
    refresh.main([str(results), "--out", str(out)])
    assert "2 rows, 2 models" in capsys.readouterr().out
    assert len(load_table(out)) == 2
    with pytest.raises(SystemExit) as ended:
        refresh.main([str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "lacks results-imagenet.csv" in capsys.readouterr().err
