import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from automl.errors import RecipeError
from automl.files import cache_dir
from automl.memory.envelope import Envelope
from automl.memory.estimate import (
    CONTEXT_BYTES,
    estimate_training,
    largest_micro_batch,
    predict_envelope,
)
from automl.memory.step import Step, describe_step, find_cached_envelope, load_envelope, save_envelope
from automl.recipe import Recipe

MIB = 1 << 20
ENVELOPE = Envelope(lines=((100 * MIB, 0), (0, 10 * MIB)), needed=tuple((b, 100 * MIB * b) for b in (1, 2, 4, 8, 32)))


def recipe(**changes):
    return Recipe.from_mapping({"backbone": "resnet10t", "image_size": 64, **changes})


def find_cache_file(of, classes=2):
    return find_cached_envelope(describe_step(of, classes, False)).path


def fill_cache(of, envelope=ENVELOPE, classes=2):
    for accumulates in (False, True):
        save_envelope(describe_step(of, classes, accumulates), envelope)


def test_the_context_is_included():
    fill_cache(recipe())
    assert estimate_training(recipe(), 2) == CONTEXT_BYTES + 3200 * MIB


def test_the_micro_batch_is_the_arguments_or_the_recipes_or_the_whole_batch():
    small = recipe(numerics={"micro_batch_size": 4})
    fill_cache(small)
    image = 4 * 3 * 64 * 64  # the other micro-batches' images wait on the device, in float32
    assert estimate_training(small, 2) == CONTEXT_BYTES + 400 * MIB + 28 * image
    assert estimate_training(small, 2, batch_size=8) == CONTEXT_BYTES + 800 * MIB + 24 * image


def test_a_measured_context_takes_the_place_of_the_usual_one():
    fill_cache(recipe())
    assert estimate_training(recipe(), 2, context_bytes=MIB) == 3201 * MIB
    assert largest_micro_batch(recipe(), 2, 3201 * MIB, context_bytes=MIB) == 32
    assert largest_micro_batch(recipe(), 2, 3201 * MIB) == 8


def test_a_backbone_frozen_to_the_end_takes_less():
    frozen = recipe(freeze_epochs=3, epochs=3)
    assert (
        estimate_training(frozen, 2)
        < estimate_training(recipe(freeze_epochs=2, epochs=3), 2)
        == estimate_training(recipe(), 2)
    )


def test_gradient_checkpointing_takes_less():
    vit = recipe(backbone="test_vit", batch_size=256)
    checkpointing = recipe(backbone="test_vit", batch_size=256, numerics={"grad_checkpointing": True})
    assert estimate_training(checkpointing, 2) < estimate_training(vit, 2)


def test_a_second_estimate_traces_nothing():
    assert estimate_training(recipe(), 2) > CONTEXT_BYTES
    assert load_envelope(describe_step(recipe(), 2, False)) is not None
    fill_cache(recipe())  # with what no trace gives
    assert estimate_training(recipe(), 2) == CONTEXT_BYTES + 3200 * MIB
    assert estimate_training(recipe(backbone="resnet10t.c3_in1k"), 2) == CONTEXT_BYTES + 3200 * MIB


def test_a_prediction_from_the_cache_imports_no_torch():
    fill_cache(recipe())
    code = (
        "import sys; from automl.memory.estimate import estimate_training; from automl.recipe import Recipe; "
        "print(estimate_training(Recipe(backbone='resnet10t', image_size=64), 2), 'torch' in sys.modules)"
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
        {"tune": {"name": "norms"}},
        {"tune": {"name": "lora"}},
        {"tune": {"name": "lora", "rank": 4}},
        {"head": {"name": "l2"}},
        {"pooling": "avg"},
    ],
)
def test_what_decides_the_memory_decides_the_cache_file(changes):
    assert find_cache_file(recipe(**changes)) != find_cache_file(recipe())
    assert find_cache_file(recipe(), 3) != find_cache_file(recipe())


def test_versions_of_torch_and_timm_decide_the_cache_file():
    key = find_cached_envelope(describe_step(recipe(), 2, False)).key
    assert {name: key[name] for name in ("torch", "timm")} == {name: version(name) for name in ("torch", "timm")}


@pytest.mark.parametrize("changes", [{"learning_rate": 0.1}, {"drop_path": 0.0}, {"batch_size": 8}, {"seed": 5}])
def test_what_does_not_decide_the_memory_does_not(changes):
    assert describe_step(recipe(**changes), 2, False) == describe_step(recipe(), 2, False)


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
    path = find_cached_envelope(step).path
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


def test_a_cache_that_cannot_be_written_is_no_error():
    cache_dir().write_text("")  # no folder
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
def test_the_largest_micro_batch_divides_the_batch_and_fits(limit_mib, smallest, batch, expected):
    of = recipe(batch_size=batch)
    fill_cache(of, Envelope(ENVELOPE.lines, ENVELOPE.needed, smallest))
    assert largest_micro_batch(of, 2, CONTEXT_BYTES + limit_mib * MIB) == expected


def test_a_backbone_with_batch_normalisation_takes_two_images_at_least():
    of = recipe(batch_size=4)
    need = estimate_training(of, 2, batch_size=2)
    assert largest_micro_batch(of, 2, need) >= 2
    assert largest_micro_batch(of, 2, CONTEXT_BYTES) == 0


def test_mistakes_are_not_cached():
    for _ in range(2):
        with pytest.raises(RecipeError, match="did you mean"):
            estimate_training(recipe(backbone="resnet10x"), 2)
    with pytest.raises(RecipeError, match="choose another image size"):
        predict_envelope(recipe(backbone="mixer_s32_224", image_size=16), 2)


@pytest.mark.parametrize("name", ["vgg16", "resnext26ts"])
def test_timms_record_of_what_fitted_a_3090_is_met(shared, name):
    csv = shared / "timm-results" / "benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv"
    _, _, _, batch, size, _ = next(
        row for row in map(str.split, csv.read_text().replace(",", " ").splitlines()) if row[0] == name
    )
    of = recipe(backbone=name, image_size=int(size), optimizer={"name": "sgd"}, numerics={"precision": "fp16"})
    following = {256: 384, 384: 512}[int(batch)]  # timm's steps: powers of two and their halves
    fits = [estimate_training(of, 1000, batch_size=b) <= 24 * 2**30 for b in (int(batch), following)]
    assert fits == [True, False]
