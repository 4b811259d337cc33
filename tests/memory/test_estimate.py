import json
import subprocess
import sys

import pytest

import automl.memory
from automl.errors import RecipeError
from automl.memory.envelope import Envelope
from automl.memory.estimate import CONTEXT_BYTES, envelope_of, estimate, estimate_inference, largest_micro_batch
from automl.memory.step import Step, cache_path, load_envelope, save_envelope, step_of
from automl.recipe import Recipe

MIB = 1 << 20
ENVELOPE = Envelope(lines=((100 * MIB, 0), (0, 10 * MIB)), needed=tuple((b, 100 * MIB * b) for b in (1, 2, 4, 8, 32)))


def recipe(**changes):
    return Recipe.from_mapping({"backbone": "resnet10t", "image_size": 64, **changes})


def fill_cache(of, envelope=ENVELOPE, classes=2):
    for accumulates in (False, True):
        save_envelope(step_of(of, classes, accumulates), envelope)


@pytest.fixture
def no_trace(monkeypatch):
    def fail(step):
        raise AssertionError(f"traced {step}")

    monkeypatch.setattr("automl.memory.trace.trace_envelope", fail)


def test_the_context_is_included(no_trace):
    fill_cache(recipe())
    assert estimate(recipe(), 2) == CONTEXT_BYTES + 3200 * MIB


def test_the_micro_batch_is_the_arguments_or_the_recipes_or_the_whole_batch(no_trace):
    small = recipe(numerics={"micro_batch_size": 4})
    fill_cache(small)
    image = 4 * 3 * 64 * 64  # the other micro-batches' images wait on the device, in float32
    assert estimate(small, 2) == CONTEXT_BYTES + 400 * MIB + 28 * image
    assert estimate(small, 2, batch_size=8) == CONTEXT_BYTES + 800 * MIB + 24 * image


def test_a_measured_context_takes_the_place_of_the_usual_one(no_trace):
    fill_cache(recipe())
    assert estimate(recipe(), 2, context_bytes=MIB) == 3201 * MIB
    assert largest_micro_batch(recipe(), 2, 3201 * MIB, context_bytes=MIB) == 32
    assert largest_micro_batch(recipe(), 2, 3201 * MIB) == 8


def test_inference_takes_less_than_training():
    assert estimate_inference(recipe(), 2, 32) < estimate(recipe(), 2)


def test_a_backbone_frozen_to_the_end_takes_less():
    frozen = recipe(freeze_epochs=3, epochs=3)
    assert estimate(frozen, 2) < estimate(recipe(freeze_epochs=2, epochs=3), 2) == estimate(recipe(), 2)


def test_gradient_checkpointing_takes_less():
    vit = recipe(backbone="test_vit", batch_size=256)
    checkpointing = recipe(backbone="test_vit", batch_size=256, numerics={"grad_checkpointing": True})
    assert estimate(checkpointing, 2) < estimate(vit, 2)


def test_a_second_estimate_traces_nothing(monkeypatch):
    first = estimate(recipe(), 2)
    monkeypatch.setattr("automl.memory.trace.trace_envelope", None)
    assert estimate(recipe(), 2) == first > CONTEXT_BYTES
    assert estimate(recipe(backbone="resnet10t.c3_in1k"), 2) == first


def test_a_prediction_from_the_cache_imports_no_torch():
    fill_cache(recipe())
    code = (
        "import sys, automl.memory; from automl.recipe import Recipe; "
        "print(automl.memory.estimate(Recipe(backbone='resnet10t', image_size=64), 2), 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [str(CONTEXT_BYTES + 3200 * MIB), "False"]


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "resnet14t"},
        {"image_size": 96},
        {"drop_path": 0.1},
        {"ema_decay": 0.99},
        {"weight_decay": 0},
        {"optimizer": {"name": "lion"}},
        {"optimizer": {"name": "sgd", "momentum": 0}},
        {"numerics": {"precision": "fp16"}},
        {"numerics": {"memory_format": "channels_last"}},
        {"numerics": {"grad_checkpointing": True}},
        {"freeze_epochs": 5, "epochs": 5},
    ],
)
def test_what_decides_the_memory_decides_the_cache_file(changes):
    assert cache_path(step_of(recipe(**changes), 2, False)) != cache_path(step_of(recipe(), 2, False))
    assert cache_path(step_of(recipe(), 3, False)) != cache_path(step_of(recipe(), 2, False))


def test_versions_of_torch_and_timm_decide_the_cache_file(monkeypatch):
    before = cache_path(step_of(recipe(), 2, False))
    monkeypatch.setattr("automl.memory.step._versions", lambda: {"torch": "9", "timm": "9"})
    assert cache_path(step_of(recipe(), 2, False)) != before


@pytest.mark.parametrize("changes", [{"learning_rate": 0.1}, {"drop_path": 0.0}, {"batch_size": 8}, {"seed": 5}])
def test_what_does_not_decide_the_memory_does_not(changes):
    assert step_of(recipe(**changes), 2, False) == step_of(recipe(), 2, False)


def test_an_envelope_comes_back_from_the_cache_as_it_was():
    save_envelope(Step("a", 64, 2), ENVELOPE)
    assert load_envelope(Step("a", 64, 2)) == ENVELOPE
    assert load_envelope(Step("b", 64, 2)) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"key": 1}', b"\xff\xfe", "[" * 100_000, "lines", "empty", "another"]
)
def test_a_broken_cache_file_is_ignored(content):
    step = Step("a", 64, 2)
    save_envelope(step, ENVELOPE)
    path = cache_path(step)
    good = json.loads(path.read_text())
    broken = {
        "lines": {**good, "lines": [["a", 1]]},
        "empty": {**good, "needed": []},
        "another": {**good, "key": {**good["key"], "backbone": "b"}},
    }
    if content in broken:
        content = json.dumps(broken[content])
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert load_envelope(step) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOML_CACHE", str(tmp_path / "file"))
    save_envelope(Step("a", 64, 2), ENVELOPE)
    assert load_envelope(Step("a", 64, 2)) is None


@pytest.mark.parametrize(
    ("limit_mib", "smallest", "batch", "expected"),
    [
        (5000, 1, 32, 32),
        (3199, 1, 32, 16),
        (850, 1, 32, 8),
        (850, 1, 12, 6),
        (850, 1, 7, 7),
        (850, 1, 11, 1),
        (850, 2, 11, 0),
        (199, 1, 32, 1),
        (199, 2, 32, 0),
        (99, 1, 32, 0),
    ],
)
def test_the_largest_micro_batch_divides_the_batch_and_fits(no_trace, limit_mib, smallest, batch, expected):
    of = recipe(batch_size=batch)
    fill_cache(of, Envelope(ENVELOPE.lines, ENVELOPE.needed, smallest))
    assert largest_micro_batch(of, 2, CONTEXT_BYTES + limit_mib * MIB) == expected


def test_a_backbone_with_batch_normalisation_takes_two_images_at_least():
    of = recipe(batch_size=4)
    need = estimate(of, 2, batch_size=2)
    assert largest_micro_batch(of, 2, need) >= 2
    assert largest_micro_batch(of, 2, CONTEXT_BYTES) == 0


def test_mistakes_are_not_cached():
    for _ in range(2):
        with pytest.raises(RecipeError, match="did you mean"):
            estimate(recipe(backbone="resnet10x"), 2)
    with pytest.raises(RecipeError, match="choose another image size"):
        envelope_of(recipe(backbone="mixer_s32_224", image_size=16), 2)


@pytest.mark.parametrize("name", ["vgg16", "resnext26ts"])
def test_timms_record_of_what_fitted_a_3090_is_met(shared, name):
    csv = shared / "timm-results" / "benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv"
    _, _, _, batch, size, _ = next(
        row for row in map(str.split, csv.read_text().replace(",", " ").splitlines()) if row[0] == name
    )
    of = recipe(backbone=name, image_size=int(size), optimizer={"name": "sgd"}, numerics={"precision": "fp16"})
    following = {256: 384, 384: 512}[int(batch)]  # timm's steps: powers of two and their halves
    fits = [estimate(of, 1000, batch_size=b) <= 24 * 2**30 for b in (int(batch), following)]
    assert fits == [True, False]


def test_the_public_names_are_these():
    names = ["CONTEXT_BYTES", "Envelope", "envelope_of", "estimate", "estimate_inference", "largest_micro_batch"]
    assert automl.memory.__all__ == names
    assert callable(automl.memory.estimate)
