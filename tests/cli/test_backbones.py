import io
import resource
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from automl.backbones.capability_table import load_capabilities
from automl.cli.backbones import backbones
from automl.errors import PoolError, SpecError
from tests.fixtures.terminal import Terminal

app = typer.Typer()
app.command()(backbones)


def call(*arguments, **env):
    result = CliRunner().invoke(app, list(arguments), env=env)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def rows(*arguments):
    return pd.read_csv(io.StringIO(call(*arguments, "--csv").stdout), keep_default_na=False)


def test_the_best_twenty_and_the_source_are_shown():
    output = call().stdout
    lines = output.splitlines()
    assert lines[1].startswith("eva02_large_patch14_448.mim_m38m_ft_in22k_in1k")
    assert lines.index("") == 21  # a header and 20 rows
    assert "1,557 rows match, 20 shown" in output
    assert "timm repository" in output
    assert "Apache-2.0" in output


@pytest.mark.slow
def test_piped_output_is_plain_and_whole():
    output = call("--limit", "0", "--board", "a,r,sketch,v2,real").stdout
    assert "\x1b" not in output
    assert "│" not in output
    assert "…" not in output
    assert len(output.splitlines()) == 1 + 1557 + 3
    assert max(map(len, output.splitlines()[1:-1])) < 200


def test_a_narrow_terminal_shows_fewer_columns_and_whole_names(monkeypatch):
    for columns in (90, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "stdout", terminal := Terminal())
        app(["--limit", "3"], standalone_mode=False)
        assert "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k" in terminal.getvalue()
        assert ("gmacs" in terminal.getvalue()) == (columns == 200)


def test_filters_combine():
    kept = rows("convnext*", "--licence", "commercial", "--max-params", "50", "--image-size", "224", "--limit", "0")
    assert len(kept) > 3
    assert kept["model"].str.startswith("convnext").all()
    assert (kept["params_m"] <= 50).all()
    assert (kept["image_size"] == 224).all()
    assert not kept["licence"].str.contains("nc").any()
    assert kept["score"].is_monotonic_decreasing


def test_a_score_does_not_depend_on_the_filters():
    everything = rows("--limit", "0").set_index(["model", "image_size"])["score"]
    family = rows("--family", "resnet", "--limit", "0").set_index(["model", "image_size"])["score"]
    assert (everything[family.index] == family).all()


def test_at_one_size_a_model_has_one_row_and_its_score_is_corrected():
    assert "1,267 rows match" in call("--at", "256").stdout
    ranked = rows("--at", "256", "--limit", "1000")
    assert ranked["model"].is_unique
    assert ranked["score"].is_monotonic_decreasing
    raised = ranked["score"] - ranked["score_listed"]
    assert (raised[ranked["score_image_size"] < 256] > 0).all()
    assert (raised[ranked["score_image_size"] == 256] == 0).all()
    assert (raised[ranked["score_image_size"] > 256] < 0).all()
    assert (ranked["image_size"] == ranked["score_image_size"]).all()
    listed = rows("--limit", "1500").set_index(["model", "image_size"])["score"].to_dict()
    kept = zip(ranked["model"], ranked["image_size"], ranked["score_listed"], strict=True)
    assert all(listed[model, size] == score for model, size, score in kept)


def test_at_one_size_filters_and_boards_hold():
    ranked = rows("vit_*", "--at", "224", "--board", "sketch", "--gpu-mem", "16GB", "--max-params", "100")
    assert ranked["model"].str.startswith("vit_").all()
    assert (ranked["gpu_gb"] <= 16).all()
    assert ranked["score"].is_monotonic_decreasing


def test_the_footer_says_which_size_the_scores_are_of():
    listed, corrected = call("--limit", "2").stdout, call("--limit", "2", "--at", "256").stdout
    assert listed.splitlines()[-1] == "Scores are of the listed image size; --at PIXELS compares at one size."
    assert "listed" not in listed.splitlines()[0]
    assert "listed" in corrected.splitlines()[0]
    assert corrected.splitlines()[-1].startswith(
        "Scores are for training at 256 pixels: each model's nearest row, corrected by 0.49 a doubling"
    )
    printed = call("--csv", "--at", "256", "--limit", "2")
    assert "training at 256" in printed.stderr
    assert "training at 256" not in printed.stdout


def test_a_listed_score_sorts_downwards():
    assert rows("--at", "256", "--sort", "score_listed")["score_listed"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("column", "upwards"), [("params_m", True), ("imagenet", False), ("gap_a", True), ("model", True)]
)
def test_sort(column, upwards):
    values = rows("--sort", column, "--limit", "50")[column]
    assert values.is_monotonic_increasing if upwards else values.is_monotonic_decreasing


def test_memory_filters_and_says_what_was_predicted():
    result = call("--gpu-mem", "8GB", "--batch-size", "16", "--family", "convnext")
    assert "one AdamW step of 16 images in fp16" in result.stdout
    kept = rows("--gpu-mem", "8GB", "--limit", "0")
    assert (kept["gpu_gb"] <= 8).all()
    assert len(kept) < len(rows("--gpu-mem", "8GB", "--batch-size", "8", "--limit", "0"))
    assert len(kept) > len(rows("--gpu-mem", "8GB", "--precision", "fp32", "--limit", "0"))
    assert len(kept) < len(rows("--gpu-mem", "8GB", "--precision", "inference", "--limit", "0"))


def test_a_prediction_known_to_be_weak_is_shown_and_marked():
    result = call("sequencer2d_s", "--gpu-mem", "24GB")
    assert "Weak predictions, perhaps too low: sequencer2d_s.in1k (recurrent layers)" in result.stdout


def test_a_row_without_a_prediction_does_not_pass_the_filter():
    table = rows("--gpu-mem", "10000GB", "--limit", "0")
    assert table["gpu_gb"].notna().all()
    assert len(table) > 1000


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["--board", "scetch"], SpecError, "nearest first: sketch"),
        (["--family", "convnet"], SpecError, "nearest first: convnext"),
        (["--sort", "params"], SpecError, "nearest first: params_m"),
        (["--licence", "free"], SpecError, "commercial"),
        (["--gpu-mem", "lots"], SpecError, "not a size"),
        (["--gpu-mem", "8GB", "--precision", "fp23"], SpecError, "nearest first: fp32"),
        (["--gpu-mem", "100MB"], PoolError, "--gpu-mem 100MB keeps none; the smallest, test_.* needs"),
        (["nosuchnet*"], PoolError, "names nosuchnet"),
        (["*dinov3*"], PoolError, "names .*dinov3.* keeps none.*; 21 encoders match: add --encoders"),
        (["resnet18", "--encoders"], PoolError, "; [0-9]+ of the leaderboard match: leave out --encoders"),
        (["--encoders", "--at", "224"], SpecError, "leave out --at, or --encoders"),
        (["--encoders", "--board", "a"], SpecError, "leave out --board, or --encoders"),
        (["--encoders", "--sort", "score"], SpecError, "unknown column 'score'"),
        (["--gpu-mem", "8GB", "--precision", "frozen"], SpecError, "frozen is known of encoders alone: add --encoders"),
    ],
)
def test_mistakes_and_empty_results_are_errors_that_say_why(arguments, error, says):
    with pytest.raises(error, match=says):
        call(*arguments)


# --- encoders --------------------------------------------------------------------------------------------------------


def test_encoders_are_listed_by_name_and_it_is_said_that_nothing_ranks_them():
    output = call("--encoders").stdout
    assert "505 rows match, 20 shown" in output
    assert "\n1 row matches. " in call("--encoders", "vit_7b_patch16_dinov3.lvd1689m").stdout
    assert "No board ranks encoders: a search orders them by screening." in output
    assert "score" not in output.splitlines()[0]
    assert "pretraining" in output.splitlines()[0]
    kept = rows("--encoders", "--limit", "0")
    assert kept["model"].is_monotonic_increasing
    assert {"hub", "mean", "std", "patch", "weights_m"} <= set(kept.columns)


def test_the_filters_hold_for_encoders():
    kept = rows("--encoders", "vit_*", "--licence", "commercial", "--max-params", "90", "--image-size", "224")
    assert len(kept) > 3
    assert (kept["params_m"] <= 90).all()
    assert not kept["licence"].str.contains("nc").any()
    assert rows("--encoders", "--family", "eva", "--sort", "params_m")["params_m"].is_monotonic_increasing


def test_memory_of_encoders_by_what_is_trained():
    counts = {
        kind: len(rows("--encoders", "--gpu-mem", "8GB", "--precision", kind, "--limit", "0"))
        for kind in ("fp32", "fp16", "norms", "frozen", "inference")
    }
    assert counts["fp32"] < counts["fp16"] < counts["norms"] < counts["frozen"]
    assert counts["fp16"] < counts["inference"]
    assert "the head alone" in call("--encoders", "--gpu-mem", "8GB", "--precision", "frozen").stdout


def test_a_name_that_only_an_encoder_has_is_pointed_out():
    result = call("resnet18*", "*tipsv2*", "--csv")
    assert "no backbone of the leaderboard matches *tipsv2*; 4 encoders match: add --encoders" in result.stderr


TIMED = """
import sys, typer
from automl.cli.backbones import backbones
app = typer.Typer()
app.command()(backbones)
app(sys.argv[1:], standalone_mode=False)
print([name for name in ("torch", "timm", "optuna", "sklearn") if name in sys.modules])
"""


@cache
def processor_seconds(program, *arguments):
    """The least of three tries, and what the last printed."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        made = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent), made.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("convnext*",), ("--encoders",)], ids=["ranked", "encoders"])
def test_it_costs_little_more_than_importing_pandas_and_never_torch(arguments):
    # Measured alone: 0.65 s with the start of the process, of which pandas 0.4 s. A ratio holds on a busy machine too.
    pandas_seconds, _ = processor_seconds("import pandas")
    seconds, printed = processor_seconds(TIMED, *arguments, "--gpu-mem", "16GB")
    assert printed.splitlines()[-1] == "[]"
    assert seconds < 3 * pandas_seconds


# --- what a backbone can do ------------------------------------------------------------------------------------------


def test_of_a_few_backbones_it_is_said_what_they_can_do():
    output = call("levit_128s").output
    assert "levit_128s.fb_dist_in1k (weights made for 224 px)" in output
    assert "image sizes:             224 px with its weights; from scratch 64, 96, 128," in output
    assert "drop path:               yes" in output
    assert "why not at other sizes:  64 px: size mismatch for stages.0.blocks.0.attn.attention_bias" in output
    assert "image sizes:" not in call("resnet*").output


@pytest.mark.slow
def test_a_check_examines_with_the_installed_timm_and_names_the_differences(monkeypatch):
    output = call("--check", "resnet10t.c3_in1k", "vgg11.tv_in1k").output
    assert "2 backbones examined, 0 cannot be built, 0 differences" in output
    rows = [replace(row, drop_path=True) for row in load_capabilities() if row.backbone == "vgg11.tv_in1k"]
    monkeypatch.setattr("automl.backbones.capability_table.load_capabilities", lambda: rows)
    result = CliRunner().invoke(app, ["--check", "vgg11.tv_in1k"])
    assert result.exit_code == 1
    assert "1 differences from the table" in result.output
    assert "  vgg11.tv_in1k: drop path yes → no" in result.output


def test_a_check_prints_no_table():
    with pytest.raises(SpecError, match="--check compares and prints no table"):
        call("--check", "--csv", "vgg11.tv_in1k")


def test_a_name_among_others_that_matches_nothing_is_told():
    result = call("levit_128s", "nonesuch", "--csv")
    assert "warning: no backbone of the leaderboard matches nonesuch" in result.stderr
    assert result.stdout.count("\n") == 2


def test_a_check_takes_the_cores_that_it_may_use(monkeypatch):
    asked = []
    monkeypatch.setattr("automl.processes.cpu_threads", lambda: 3)
    examine = "automl.backbones.capabilities.examine_backbones"
    monkeypatch.setattr(examine, lambda _names, jobs, _show: asked.append(jobs) or [])
    assert "0 backbones examined" in call("--check", "vgg11.tv_in1k").output
    assert asked == [3]
