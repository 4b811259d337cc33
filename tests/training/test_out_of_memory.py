"""Running out of memory in the middle of a training."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from automl.errors import MemoryBudgetError
from automl.recipe import Numerics, Recipe
from automl.recipe.learning import CrossEntropy, Mixup, Sgd
from automl.training.fit import fit
from automl.training.out_of_memory import BufferBackup, MicroBatches, OutOfMemory
from automl.training.types import Parked
from tests.fixtures.faults import Faults
from tests.fixtures.limited_memory import LimitedMemory
from tests.fixtures.trainings import DATA, assert_same, recipe_of

RECIPES = {
    "vit": recipe_of(drop_path=0.3, ema_decay=0.9, mixing=Mixup(), clip_norm=1),
    "byobnet": recipe_of("test_byobnet", ema_decay=0.9, clip_norm=1),
    "fp16": recipe_of(epochs=1, clip_norm=1, numerics=Numerics(precision="fp16")),
}


def split(recipe, micro):
    return recipe.with_numerics(micro_batch_size=micro)


def same_weights(one, other):
    state = other.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in one.model.state_dict().items())


def stops_after(step):
    """Arguments of `fit` that park the run after a step."""
    steps = []
    return {
        "on_step": lambda done, _: steps.append(done),
        "should_stop": lambda _: bool(steps) and steps[-1] == step,
    }


@cache
def in_two_parts(name, first, step, second):
    """A run that is never short of memory, with another micro-batch from a step on."""
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "run.pt"
        with pytest.raises(Parked):
            fit(split(RECIPES[name], first), DATA, checkpoint=checkpoint, **stops_after(step))
        return fit(split(RECIPES[name], second), DATA, checkpoint=checkpoint)


@cache
def undisturbed(recipe_json):
    return fit(Recipe.model_validate_json(recipe_json), DATA)


# --- how a batch is split -----------------------------------------------------------------------------------------

WITH, WITHOUT = nn.BatchNorm1d(3), nn.LayerNorm(3)


@pytest.mark.parametrize(
    ("model", "images", "wanted", "sizes"),
    [
        (WITHOUT, 12, None, [12]),
        (WITHOUT, 12, 99, [12]),
        (WITHOUT, 12, 6, [6, 6]),
        (WITHOUT, 12, 5, [4, 4, 4]),
        (WITHOUT, 5, 2, [2, 2, 1]),
        (WITHOUT, 3, 1, [1, 1, 1]),
        (WITH, 33, 16, [11, 11, 11]),
        (WITH, 5, 2, [3, 2]),
        (WITH, 4, 1, [2, 2]),
        (WITH, 1, None, [1]),
    ],
)
def test_micro_batches_are_even_and_batchnorm_sees_no_single_image(model, images, wanted, sizes):
    micro = MicroBatches(model, (images, images), wanted, None)
    batch, labels = torch.arange(3 * images).view(images, 3), torch.arange(images)
    parts = micro.split_batch(batch, labels)
    assert [len(part) for part, _ in parts] == sizes
    assert torch.equal(torch.cat([part for part, _ in parts]), batch)
    assert torch.equal(torch.cat([wanted for _, wanted in parts]), labels)


def test_processes_with_unequal_shares_have_as_many_micro_batches():
    micro = MicroBatches(WITH, (8, 9), 8, None)
    assert [[len(part) for (part,) in micro.split_batch(torch.ones(share))] for share in (8, 9)] == [[4, 4], [5, 4]]


def run_out(*_):
    raise torch.cuda.OutOfMemoryError


@pytest.mark.parametrize(
    ("model", "images", "sizes"),
    [(WITHOUT, 64, [64, 32, 16]), (WITHOUT, 3, [3, 2, 1]), (WITH, 5, [5, 3]), (WITH, 2, [2])],
)
def test_each_time_the_micro_batch_is_halved_until_it_is_the_smallest_or_too_often(model, images, sizes):
    told = []
    micro = MicroBatches(model, (images, images), None, told.append)
    for _ in sizes[1:]:
        assert not micro.try_once(run_out, 7)
    with pytest.raises(MemoryBudgetError, match=f"after 7 steps with {sizes[-1]} images at once; the training ends"):
        micro.try_once(run_out, 7)
    assert [event.micro_batch_size for event in told] == sizes
    assert [event.next_micro_batch_size for event in told] == [*sizes[1:], None]


def test_buffers_are_what_they_were():
    model = nn.BatchNorm1d(3)
    model(torch.randn(8, 3))
    buffers = BufferBackup(model)
    model(torch.randn(8, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers.save_buffers()
    model(torch.randn(8, 3))
    assert not torch.equal(model.running_mean, before["running_mean"])
    buffers.restore_buffers()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.num_batches_tracked == 2


@pytest.mark.parametrize("micro", [1, 5, 7, 11])
def test_split_batches_have_the_gradients_of_the_whole_one(micro):
    def gradients(recipe):
        found = []

        def look(optimizer, *_):
            grads = [p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            found.append(grads)

        hook = register_optimizer_step_pre_hook(look)
        try:
            fit(recipe, DATA, evaluate=None)
        finally:
            hook.remove()
        return found[0]

    recipe = recipe_of(epochs=0.25, loss=CrossEntropy(class_weights="balanced"))
    whole, parts = gradients(recipe), gradients(split(recipe, micro))
    assert any(grad.abs().max() > 1e-3 for grad in whole)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


# --- in a training step -------------------------------------------------------------------------------------------

REPEATABLE = {
    "forward": ("vit", None, ("aten.native_layer_norm", 20)),
    "backward": ("vit", None, ("aten.native_layer_norm_backward", 20)),
    "clipping": ("vit", None, ("aten._foreach_norm", 2)),
    # The step's first micro-batch has moved BatchNorm's statistics.
    "forward of the second micro-batch": ("byobnet", 6, ("aten.native_batch_norm", 2 * 14 + 14 + 10)),
    "backward of the second micro-batch": ("byobnet", 6, ("aten.native_batch_norm_backward", 2 * 14 + 14 + 10)),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", REPEATABLE)
def test_a_step_is_repeated_as_if_it_had_begun_with_the_smaller_micro_batch(tmp_path, place):
    name, micro, call = REPEATABLE[place]
    recipe, told = split(RECIPES[name], micro), []
    with Faults(call) as faults:
        survived = fit(recipe, DATA, checkpoint=tmp_path / "run.pt", on_out_of_memory=told.append)
    size = micro or 12
    assert faults.raised == 1
    assert told == [OutOfMemory(1, "training", size, size // 2)]
    same_weights(survived, in_two_parts(name, micro, 1, size // 2))


def test_the_scaler_of_fp16_forgets_that_it_has_unscaled():
    told = []
    with Faults(("aten._foreach_norm", 2)):
        survived = fit(RECIPES["fp16"], DATA, on_out_of_memory=told.append)
    assert len(told) == 1
    same_weights(survived, in_two_parts("fp16", None, 1, 6))


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["aten._fused_adamw_", "aten._foreach_lerp_"], ids=["weights", "average"])
def test_half_changed_weights_send_the_run_back_to_its_checkpoint(tmp_path, operator):
    recipe, told, steps, looked = RECIPES["vit"], [], [], []
    per_step = 4 if "adamw" in operator else 1
    with Faults((operator, 5 * per_step + max(1, per_step - 1))) as faults:  # in the sixth step
        survived = fit(
            recipe,
            DATA,
            checkpoint=tmp_path / "run.pt",
            on_out_of_memory=told.append,
            on_step=lambda done, _: steps.append(done),
            on_evaluation=looked.append,
        )
    assert faults.raised == 1
    assert told == [OutOfMemory(5, "optimizer", 12, 6)]
    assert steps == [1, 2, 3, 4, 5, 5, 6, 7, 8]  # the checkpoint is of step 4
    assert [evaluation.step for evaluation in looked] == [4, 8]
    assert looked == survived.history
    same_weights(survived, in_two_parts("vit", None, 4, 6))


@pytest.mark.slow
def test_half_changed_weights_without_a_checkpoint_send_the_run_back_to_its_beginning():
    recipe, told, looked = RECIPES["vit"], [], []
    with Faults(("aten._fused_adamw_", 4 * 4 + 3)):  # after the first evaluation
        survived = fit(recipe, DATA, on_out_of_memory=told.append, on_evaluation=looked.append)
    assert told == [OutOfMemory(4, "optimizer", 12, 6)]
    same_weights(survived, fit(split(recipe, 6), DATA))
    assert [evaluation.step for evaluation in looked] == [4, 8]  # told once


def test_state_that_does_not_fit_in_the_first_step_sends_the_run_back_to_its_beginning():
    recipe, told = RECIPES["byobnet"], []
    with Faults(("aten._fused_adamw_", 2)):
        survived = fit(recipe, DATA, on_out_of_memory=told.append)
    assert told == [OutOfMemory(0, "optimizer", 12, 6)]
    same_weights(survived, fit(split(recipe, 6), DATA))


@pytest.mark.parametrize("call", [3, 16], ids=["a whole batch", "the last, smaller one"])
def test_evaluation_is_repeated_with_fewer_images_and_gives_the_same(call):
    recipe, told = RECIPES["vit"], []
    with Faults(("aten.layer_norm", call)) as faults:
        survived = fit(recipe, DATA, on_out_of_memory=told.append)
    expected = undisturbed(recipe.model_dump_json())
    assert faults.raised == 1
    assert told == [OutOfMemory(4, "evaluation", 12, 6) if call == 3 else OutOfMemory(4, "evaluation", 2, 1)]
    same_weights(survived, expected)
    assert survived.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    for one, other in zip(survived.history, expected.history, strict=True):
        assert one.metrics == pytest.approx(other.metrics, abs=1e-6)


@pytest.mark.parametrize("calls", [("aten.mm", 60), ("aten._fused_sgd_", 6)], ids=lambda c: c[0])
def test_where_images_do_not_see_each_other_the_result_is_the_same(tmp_path, calls):
    # SGD, whose steps are as large as the gradients
    recipe = recipe_of(optimizer=Sgd(), learning_rate=0.05, clip_norm=1)
    with Faults(calls) as faults:
        survived = fit(recipe, DATA, checkpoint=tmp_path / "run.pt", on_out_of_memory=lambda _: None)
    expected = undisturbed(recipe.model_dump_json())
    assert faults.raised == 1
    torch.testing.assert_close(survived.model.state_dict(), expected.model.state_dict(), rtol=1e-3, atol=1e-5)
    assert survived.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


# --- what is not survived -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["aten.addmm", "aten._fused_adamw_", "aten.linear"])
def test_an_error_that_only_speaks_of_memory_is_not_survived(operator):
    told = []
    with (
        Faults((operator, 3), error=RuntimeError, message="CUDA out of memory. Tried to allocate 2 GiB"),
        pytest.raises(RuntimeError, match="out of memory") as caught,
    ):
        fit(RECIPES["vit"], DATA, on_out_of_memory=told.append)
    assert type(caught.value) is RuntimeError
    assert not told


@pytest.mark.parametrize("operator", ["aten.addmm", "aten._fused_adamw_"])
def test_who_does_not_want_to_hear_of_it_gets_the_error(operator):
    with Faults((operator, 3)), pytest.raises(torch.cuda.OutOfMemoryError):
        fit(RECIPES["vit"], DATA)


@pytest.mark.slow
def test_the_third_time_ends_the_run_also_when_it_was_resumed_between(tmp_path):
    recipe, checkpoint, told = RECIPES["vit"], tmp_path / "run.pt", []
    with Faults(("aten.native_layer_norm", 20)), pytest.raises(Parked):
        fit(recipe, DATA, checkpoint=checkpoint, on_out_of_memory=told.append, **stops_after(3))
    with (
        Faults(("aten.native_layer_norm", 1), ("aten.native_layer_norm_backward", 1)),
        pytest.raises(MemoryBudgetError, match=r"after 3 steps with 3 images at once; the training ends \(number 3\)"),
    ):
        fit(recipe, DATA, checkpoint=checkpoint, on_out_of_memory=told.append)
    assert [event.micro_batch_size for event in told] == [12, 6, 3]
    assert told[-1] == OutOfMemory(3, "training", 3, None)


def test_a_micro_batch_that_cannot_be_halved_ends_the_run():
    told = []
    with Faults(("aten.addmm", 3)), pytest.raises(MemoryBudgetError, match="the smallest micro-batch"):
        fit(split(RECIPES["vit"], 1), DATA, on_out_of_memory=told.append)
    assert told == [OutOfMemory(0, "training", 1, None)]


@pytest.mark.slow
def test_one_image_that_does_not_fit_in_evaluation_ends_the_run():
    with (
        Faults(*[("aten.linear", call) for call in range(1, 99)]),
        pytest.raises(MemoryBudgetError, match="does not hold the network and one image"),
    ):
        fit(recipe_of(epochs=1), DATA)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_micro_batch_it_had(tmp_path):
    recipe, told, again = RECIPES["vit"], [], []

    def die(done, _):
        if done == 6:
            raise KeyboardInterrupt

    call = ("aten.native_layer_norm", 20)
    with Faults(call), pytest.raises(KeyboardInterrupt):
        fit(recipe, DATA, checkpoint=tmp_path / "run.pt", on_out_of_memory=told.append, on_step=die)
    resumed = fit(recipe, DATA, checkpoint=tmp_path / "run.pt", on_out_of_memory=again.append)
    with Faults(call):
        assert_same(resumed, fit(recipe, DATA, on_out_of_memory=told.append))
    assert told == [OutOfMemory(1, "training", 12, 6)] * 2
    assert not again


# --- with an accelerator that has only so much --------------------------------------------------------------------


def peak_bytes(recipe):
    with LimitedMemory(10**12) as memory:
        fit(recipe, DATA)
    return memory.peak_bytes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "byobnet"])
def test_the_memory_is_back_before_the_step_is_repeated(name):
    batch_bytes = 12 * 3 * 32 * 32 + 12 * 8
    live, again = [], []

    with LimitedMemory(10**12) as memory:

        def on_step(done, _):
            live.append(memory.live_bytes)
            if done == 2:  # a neighbour leaves what a third of a forward pass takes
                memory.limit_bytes = memory.live_bytes + 4 * batch_bytes + 50_000

        def on_out_of_memory(_):
            again.append(memory.live_bytes)
            memory.limit_bytes = 10**12

        fit(RECIPES[name], DATA, evaluate=None, on_step=on_step, on_out_of_memory=on_out_of_memory)
    assert memory.refused == len(again) == 1
    assert again[0] - batch_bytes <= live[1]  # of the failed step there is the batch itself, and nothing else
    assert live[3:] == live[3:4] * 5


@pytest.mark.slow
def test_a_neighbour_that_takes_memory_away_halves_the_micro_batch_and_costs_no_step():
    recipe, told = RECIPES["byobnet"], []
    whole, half = peak_bytes(recipe), peak_bytes(split(recipe, 6))
    assert half < 0.95 * whole
    with LimitedMemory(whole) as memory:
        neighbour = lambda done, _: done == 3 and memory.take((whole - half) // 2)  # noqa: E731
        survived = fit(recipe, DATA, on_step=neighbour, on_out_of_memory=told.append)
    assert told == [OutOfMemory(3, "training", 12, 6)]
    assert memory.refused == 1
    same_weights(survived, in_two_parts("byobnet", None, 3, 6))


def test_what_is_told_fits_a_line():
    event = OutOfMemory(12, "training", 16, 8)
    assert event.describe() == "out of memory in a training step after 12 steps with 16 images at once; now 8"
    last = replace(event, where="optimizer", next_micro_batch_size=None)
    assert last.describe().endswith("in the optimizer's step after 12 steps with 16 images at once; the training ends")
