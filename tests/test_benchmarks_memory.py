"""The memory study counts right: its ladder, its halves, its constants, its summary."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from automl.errors import RecipeError
from automl.gpu.probe import Measurement, StepMemory
from automl.memory.envelope import Envelope
from automl.memory.estimate import predict_envelope
from automl.recipe import Recipe
from tests.fixtures.scripts import load_script

FOLDER = Path(__file__).parents[1] / "studies" / "benchmarks" / "memory"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
MIB = 1 << 20


@pytest.fixture(scope="module")
def tracing() -> ModuleType:
    return load_script("benchmarks/memory/trace_3090.py")


@pytest.fixture(scope="module")
def fitting() -> ModuleType:
    return load_script("benchmarks/memory/fit_3090.py")


@pytest.fixture(scope="module")
def comparing() -> ModuleType:
    return load_script("benchmarks/memory/gpu_compare.py")


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_command_stands_at_its_top_and_in_the_readme(name: str) -> None:
    command = f"python studies/benchmarks/memory/{name}.py"
    assert command in (FOLDER / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
    assert command in (FOLDER / "README.md").read_text(encoding="utf-8")


# --- tracing ---------------------------------------------------------------------------------------------------


def test_the_ladder_is_timms(tracing: ModuleType) -> None:
    from timm.utils.decay_batch import decay_batch_step

    steps = tracing.ladder()
    assert steps[:6] == [512, 384, 256, 192, 128, 96]
    assert [decay_batch_step(batch) for batch in steps] == [*steps[1:], 0]
    assert tracing.next_batch(96) == 128
    assert tracing.next_batch(512) is None


def test_names_of_the_same_network_are_traced_once(tracing: ModuleType) -> None:
    record = [tracing.Recorded(name, 224, 384, 25.56) for name in ("resnet50", "gluon_resnet50_v1b", "no_such_model")]
    networks, unknown = tracing.networks_of(record)
    assert [(n.backbone, [r.model for r in n.recorded]) for n in networks] == [
        ("resnet50", ["resnet50", "gluon_resnet50_v1b"])
    ]
    assert [r.model for r in unknown] == ["no_such_model"]


def test_a_row_is_traced_and_found_again(tracing: ModuleType, tmp_path: Path) -> None:
    recorded = tracing.Recorded("test_byobnet", 64, 8, 0.46)
    row = tracing.trace(tracing.Network("test_byobnet", 64, [recorded]), "nchw")
    assert "error" not in row
    assert not row["parameters_differ"]
    assert list(row["at"]) == ["8", "12"]
    for sizes in row["at"].values():
        assert sizes["largest"] < sizes["live"] <= sizes["needed"]
    assert row["at"]["8"]["live"] < row["at"]["12"]["live"]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + '{"backbone": "cut sh')
    assert tracing.done(path) == {("test_byobnet", 64)}


def test_a_network_that_cannot_be_traced_is_a_row_too(tracing: ModuleType) -> None:
    row = tracing.trace(tracing.Network("no_such_model", 64, [tracing.Recorded("old_name", 64, 8, 1.0)]), "nchw")
    assert row["recorded"] == {"old_name": 8}
    assert "no_such_model" in row["error"]


# --- fitting ---------------------------------------------------------------------------------------------------


def case(fitting: ModuleType, model: str, needed: int, upper: int | None, family: str = "a", largest: int = 0):
    """At a batch of 64 and, unless it is None, 96; MiB, and those of the largest tensor."""
    need = fitting.Need(needed * MIB, largest * MIB)
    above = None if upper is None else fitting.Need(upper * MIB, largest * MIB)
    return fitting.Case(model, (family, model), family, 64, above and 96, need, above, False)


def test_a_prediction_is_right_if_it_says_both(fitting: ModuleType) -> None:
    constants = fitting.Constants(unusable_mib=24 * 1024 - 20_000)
    assert constants.off(case(fitting, "right", 15_000, 22_000)) == 0
    assert constants.off(case(fitting, "too high", 21_000, 30_000)) == pytest.approx(0.05)
    assert constants.off(case(fitting, "too low", 12_000, 18_000)) == pytest.approx(-0.1)
    assert constants.off(case(fitting, "at the limit", 12_000, 20_000)) < 0
    assert constants.off(case(fitting, "top", 5_000, None)) == 0
    assert constants.off(case(fitting, "top, too high", 22_000, None)) == pytest.approx(0.1)


def test_kernels_take_a_share_of_the_largest_tensor(fitting: ModuleType) -> None:
    need = fitting.Need(1100, 400)
    assert [fitting.Constants(0, percent).needed(need) for percent in (0, 25, 200)] == [1100, 1200, 1900]


def test_the_constants_that_made_the_cases_are_found_again(fitting: ModuleType) -> None:
    # Steps close to both sides of 22,000 MiB, when a quarter of the largest tensor is counted.
    cases = [
        case(fitting, f"{at}", low - largest // 4, low + 60 - largest // 4, largest=largest)
        for at, low in enumerate(range(21_950, 22_000, 10))
        for largest in (0, 400, 1600)
    ]
    constants = fitting.choose(cases)
    assert 24 * 1024 - constants.unusable_mib == pytest.approx(22_000, abs=10)
    assert constants.transient_percent == 25


def test_families_do_not_leak_between_the_halves(fitting: ModuleType) -> None:
    cases = [case(fitting, f"{family}{n}", 1, 2, family) for family in "abcdefgh" for n in range(5)]
    first, second = fitting.halves(cases)
    assert not first & second
    assert len(first) == len(second) == 4
    assert fitting.halves(cases[::-1]) == (first, second)


def test_rows_are_read_and_obsolete_networks_left_out(fitting: ModuleType, tmp_path: Path, capsys) -> None:
    at = {b: {"needed": size * MIB, "largest": 0} for b, size in (("64", 15_000), ("96", 22_900))}
    row = {"family": "a", "image_size": 224, "parameters": 1, "recurrent": False}
    row |= {"at": at, "recorded": {"x": 64, "y": 96}, "parameters_differ": False}
    rows = [row, row | {"family": "b"}, row | {"parameters_differ": True, "recorded": {"z": 64}}]
    rows.append({"error": "ValueError: no", "recorded": {"w": 64}})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    cases, left_out = fitting.read_cases(path)
    assert [(c.model, c.batch, c.upper) for c in cases] == [("x", 64, 96), ("y", 96, None)] * 2
    assert left_out == ["z: another number of parameters than in the record", "w: ValueError: no"]
    fitting.main([str(path), "--misses", str(tmp_path / "misses.csv")])
    told = capsys.readouterr().out
    assert "1/1 = 100.0%" in told


def test_models_whose_two_records_agree(fitting: ModuleType, tmp_path: Path) -> None:
    for layout, other in (("nchw", 64), ("nhwc", 96)):
        text = f"model,train_batch_size\nsame,32\nanother,{other}\n"
        (tmp_path / fitting.RECORD.format(layout)).write_text(text)
    assert fitting.agreeing(tmp_path) == {"same"}


# --- comparing with a GPU ----------------------------------------------------------------------------------------


def row(comparing: ModuleType, predicted: int, allocated: int, backbone: str = "resnet18", **changes):
    values = {
        "gpu": "Tesla P100",
        "backbone": backbone,
        "family": "resnet",
        "image_size": 224,
        "precision": "fp16",
        "memory_format": "contiguous",
        "optimizer": "adamw",
        "batch": 32,
        "predicted_live": predicted,
        "allocated": allocated,
        "predicted_needed": 110,
        "reserved": 100,
        "context": 360,
        "workspace": 0,
        "process": 470,
        "torch": "2.15.0",
        "timm": "1.0.31",
    }
    return comparing.Row(**(values | changes))


def test_the_summary_names_what_must_be_explained(comparing: ModuleType) -> None:
    rows = [row(comparing, 97 + n % 7, 100) for n in range(19)]
    rows += [row(comparing, 90, 100, "vgg11", family="vgg"), row(comparing, 0, 0, "big", trouble="it cannot be built")]
    told = comparing.summary(rows)
    assert told[0] == "20 steps of 2 backbones of 2 families"
    assert "allocated  |error| median 2.0%, p95 3.0%, largest 10.0%" in told[1]
    assert "1 underestimates over 5%" in told[1]
    assert "median error +10.0%; 0 underestimates" in told[2]
    assert "|error| median 0.0%" in told[3]
    assert told[4:] == [
        "  underestimated: vgg11 (224 px, fp16, contiguous, adamw, batch 32) by 10.0%",
        "  not measured: big: it cannot be built",
    ]


def test_what_libraries_keep_is_added_to_each_prediction(comparing: ModuleType) -> None:
    one = row(comparing, 90, 100, workspace=10, predicted_needed=110, reserved=120, context=380, process=500)
    assert [comparing.errors([one], kind) for kind in ("allocated", "reserved", "process")] == [[0.0]] * 3


def test_what_nvml_hides_is_no_error(comparing: ModuleType) -> None:
    assert comparing.errors([row(comparing, 90, 100, process=0)], "process") == []


def test_rows_come_back_from_the_file(comparing: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows" / "gpu.csv"
    rows = [row(comparing, 1, 2), row(comparing, 3, 4, trouble="no, this, cannot")]
    comparing.append(path, rows[:1])
    comparing.append(path, rows[1:])
    assert comparing.read_rows(path) == rows


def test_the_sample_takes_families_in_turn(comparing: ModuleType) -> None:
    backbones = [("resnet18.a", 224, 11.0), ("resnet18.b", 224, 11.0), ("resnet50.a", 224, 25.0)]
    backbones += [("resnet152.a", 224, 60.0), ("vit_base.a", 224, 86.0), ("tf_vit_x", 64, 1.0)]
    assert comparing.sample(backbones, 4) == [
        ("resnet50", 224, "resnet"),
        ("vit_base", 224, "vit"),
        ("resnet152", 224, "resnet"),
        ("tf_vit_x", 64, "vit"),
    ]


def test_settings_go_round_the_sample(comparing: ModuleType) -> None:
    chosen = [(f"resnet{n}", 224, "resnet") for n in range(24)]
    seen = [
        (recipe.numerics.precision, recipe.optimizer.name, recipe.numerics.memory_format)
        for recipe, _ in comparing.settings(chosen)
    ]
    assert set(seen[:12]) == set(comparing.SETTINGS)
    assert seen[:12] == seen[12:]


def fake_probe(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Recipe], Measurement]) -> None:
    monkeypatch.setattr("automl.gpu.probe.probe_backbone", lambda recipe, *_: answer(recipe))
    monkeypatch.setattr("automl.memory.estimate.largest_micro_batch", lambda *_: 64)
    envelope = Envelope(((0, 1000),), ((2, 3000), (64, 70_000)))
    monkeypatch.setattr("automl.memory.estimate.predict_envelope", lambda *_, **__: envelope)


def test_a_measured_backbone_is_recognised_by_its_recipe(comparing: ModuleType, monkeypatch) -> None:
    def answer(recipe: Recipe) -> Measurement:
        steps = (StepMemory(2, 2100, 5000, None, 0.1), StepMemory(64, 64_100, 80_000, 90_000, 0.1))
        return Measurement("a GPU", 7000, 10**6, False, 224, "fp32", "contiguous", steps, 64, 1, workspace_bytes=100)

    fake_probe(monkeypatch, answer)
    for recipe, family in comparing.settings([(f"resnet{n}", 224, "resnet") for n in range(12)]):
        rows = comparing.compare(recipe, family, "cuda", 10**6)
        assert [(r.batch, r.predicted_live, r.workspace, r.context, r.process) for r in rows] == [
            (2, 2000, 100, 7000, 0),
            (64, 64_000, 100, 7000, 90_000),
        ]
        assert {r.key for r in rows} == {(rows[0].gpu, *comparing.key_of(recipe))}
        assert comparing.errors(rows, "allocated") == [0, 0]
    keys = [comparing.key_of(recipe) for recipe, _ in comparing.settings([("resnet18", 224, "resnet")] * 12)]
    assert len(set(keys)) == 12


def test_trouble_is_a_row_that_is_recognised_too(comparing: ModuleType, monkeypatch) -> None:
    def answer(_: Recipe) -> Measurement:
        raise RecipeError("it cannot\nbe built")

    fake_probe(monkeypatch, answer)
    ((recipe, family),) = comparing.settings([("resnet18", 224, "resnet")])
    (told,) = comparing.compare(recipe, family, "cuda", 10**6)
    assert (told.trouble, told.allocated, told.workspace) == ("it cannot be built", 0, 0)
    assert told.key[1:] == comparing.key_of(recipe)


def test_predictions_made_ahead_are_those_that_are_asked_for(comparing: ModuleType, monkeypatch) -> None:
    recipe = comparing.recipe_of("test_byobnet", 64, "bf16", "sgd", "contiguous")
    comparing._predict(recipe.model_dump(), 10**10)
    monkeypatch.setattr("automl.memory.trace.trace_envelope", lambda _: pytest.fail("predicted again"))
    for accumulates in (False, True):
        assert predict_envelope(recipe, comparing.CLASSES, accumulates=accumulates).live_bytes(4) > 0


def test_a_replay_tells_what_the_allocator_adds(comparing: ModuleType) -> None:
    predicted = predict_envelope(comparing.recipe_of("test_byobnet", 64, "fp32", "adamw", "contiguous"), 2).live_bytes(
        8
    )
    setting = {"image_size": 64, "precision": "fp32", "optimizer": "adamw", "batch": 8, "workspace": 64 * MIB}
    one = row(comparing, predicted, 1, "test_byobnet", **setting)
    blocks, segments = comparing.replayed(one, accumulates=False)
    assert predicted + 64 * MIB <= blocks <= segments
    assert segments % (2 * MIB) == 0
    told = comparing.replay_summary(
        [row(comparing, predicted, blocks, "test_byobnet", **setting, reserved=2 * segments)]
    )
    assert "allocated  |error| median 0.0%" in told[1]
    assert told[3] == "  left: test_byobnet (fp32, contiguous, batch 8) allocated +0.0%, reserved -50.0%"


def test_the_rows_that_were_measured_can_be_read(comparing: ModuleType) -> None:
    rows = comparing.read_rows(FOLDER / "rows" / "h200.csv")
    assert comparing.summary(rows)[0] == "56 steps of 28 backbones of 28 families"


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a GPU")
def test_without_a_gpu_it_says_so(comparing: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no GPU to measure on"):
        comparing.main(["--out", str(tmp_path / "gpu.csv")])
    assert not (tmp_path / "gpu.csv").exists()
