import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from automl.backbones.weights import Weights, make_model
from automl.errors import WeightsError
from automl.recipe.learning import CrossEntropy, CutMix, Focal, Mixup, Sgd
from automl.recipe.tuning import CosineHead, TuneHead, TuneLora, TuneNorms
from automl.training import thread_count
from automl.training.fit import fit, total_steps
from automl.training.types import Diverged, Parked
from tests.fixtures.trainings import DATA, Tones, assert_same, recipe_of, without_clock


@pytest.mark.parametrize("backbone", ["test_vit", "test_byobnet"])
def test_it_learns_what_can_be_learned(backbone):
    seen = []
    recipe = recipe_of(backbone, epochs=4, learning_rate=5e-3)
    result = fit(recipe, DATA, on_step=lambda *counts: seen.append(counts))
    assert result.history[-1].metrics["auc"] > 0.9
    assert seen == [(step, 16) for step in range(1, 17)]
    assert result.history[-1].eighth == 8
    assert result.history[-1].epoch == 4
    assert result.history[-1].train_seconds > 0
    assert result.probabilities.shape == (14, 2)
    assert result.probabilities.sum(axis=1) == pytest.approx(1)


def test_the_same_seed_gives_the_same_run_and_another_one_does_not():
    recipe = recipe_of(drop_path=0.2, epochs=1)
    once = fit(recipe, DATA)
    assert_same(once, fit(recipe, DATA))
    other = fit(recipe.model_copy(update={"seed": 1}), DATA)
    assert (once.probabilities != other.probabilities).any()


@pytest.mark.parametrize("micro", [1, 5, 6, 12, 99])
def test_accumulation_changes_nothing_but_the_memory(micro):
    # SGD, whose steps are as large as the gradients; a network without BatchNorm, which sees micro-batches
    recipe = recipe_of(optimizer=Sgd(), learning_rate=0.05, clip_norm=1, loss=CrossEntropy(class_weights="balanced"))
    split = recipe.with_numerics(micro_batch_size=micro)
    whole, parts = fit(recipe, DATA), fit(split, DATA)
    start = make_model(recipe, 2).state_dict()
    torch.testing.assert_close(parts.model.state_dict(), whole.model.state_dict(), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(whole.model.state_dict()["head.weight"], start["head.weight"], atol=1e-3)
    assert parts.probabilities == pytest.approx(whole.probabilities, abs=1e-4)
    assert parts.history[-1].train_loss == pytest.approx(whole.history[-1].train_loss, rel=1e-4)


def predict(result, recipe):
    images = next(iter(DATA.evaluation_batches(recipe, "", "validation", 16)))[0].float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (result.preprocessing.mean, result.preprocessing.std))
    with torch.inference_mode():
        return result.model.eval()((images - mean) / std).double().softmax(1).numpy()


def test_the_average_of_the_weights_is_what_is_evaluated():
    plain, averaged = recipe_of(epochs=1), recipe_of(epochs=1, ema_decay=0.999)
    without, result = fit(plain, DATA), fit(averaged, DATA)
    assert result.probabilities == pytest.approx(predict(result, averaged), abs=1e-5)
    assert not torch.equal(result.model.state_dict()["head.weight"], without.model.state_dict()["head.weight"])


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_a_frozen_backbone_stays_as_it_was(backbone):
    recipe = recipe_of(backbone, epochs=1, freeze_epochs=1, weight_decay=0.1)
    torch.manual_seed(recipe.seed)
    before = make_model(recipe, 2).state_dict()
    after = fit(recipe, DATA).model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(("head.", "fc."))}


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_a_probe_is_a_backbone_that_is_frozen_to_the_end(backbone):
    frozen = recipe_of(backbone, epochs=2, freeze_epochs=2)
    assert_same(fit(recipe_of(backbone, epochs=2, tune=TuneHead()), DATA), fit(frozen, DATA))


def test_checkpoint_of_a_part_holds_that_part_and_one_of_another_network_is_refused(tmp_path):
    recipe, checkpoint = recipe_of(tune=TuneLora(rank=2)), tmp_path / "run.pt"
    steps = []
    stop = lambda _: len(steps) == 2  # noqa: E731
    with pytest.raises(Parked):
        fit(recipe, DATA, checkpoint=checkpoint, on_step=lambda n, _: steps.append(n), should_stop=stop)
    state = torch.load(checkpoint, weights_only=True)
    whole = sum(tensor.numel() for tensor in make_model(recipe, 2).state_dict().values())
    assert sum(tensor.numel() for tensor in state["model"].values()) < whole / 5
    assert len(state["optimizer"]["state"]) == len(state["model"])
    with pytest.raises(WeightsError, match="of another network"):
        fit(recipe_of(tune=TuneNorms()), DATA, checkpoint=checkpoint)


def test_a_backbone_thaws():
    frozen = recipe_of(epochs=2, freeze_epochs=1)
    torch.manual_seed(0)
    before = make_model(frozen, 2).state_dict()
    after = fit(frozen, DATA).model.state_dict()
    assert not torch.equal(before["blocks.0.mlp.fc1.weight"], after["blocks.0.mlp.fc1.weight"])


@pytest.mark.parametrize("loss", [CrossEntropy(smoothing=0.1), Focal(alpha=0.5)])
@pytest.mark.parametrize("mixing", [Mixup(), CutMix(probability=1)])
def test_every_mixing_goes_with_every_loss(mixing, loss):
    result = fit(recipe_of(mixing=mixing, loss=loss, epochs=4, learning_rate=5e-3), DATA)
    assert result.history[-1].metrics["auc"] > 0.85
    assert np.isfinite(result.history[-1].train_loss)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_bf16_on_a_cpu(layout):
    recipe = recipe_of("test_resnet", epochs=1)
    low = recipe.with_numerics(precision="bf16", memory_format=layout)
    found, exact = fit(low, DATA), fit(recipe, DATA)
    assert found.probabilities == pytest.approx(exact.probabilities, abs=0.1)
    assert all(value.dtype != torch.bfloat16 for value in found.model.state_dict().values())


def test_more_than_two_classes():
    result = fit(recipe_of(epochs=1), Tones(classes=3))
    assert result.probabilities.shape == (14, 3)
    assert 0 <= result.history[-1].metrics["accuracy"] <= 1


def test_a_batch_larger_than_the_data_is_all_of_it():
    recipe = recipe_of(batch_size=1000, epochs=3)
    assert total_steps(recipe, DATA) == 3
    assert fit(recipe, DATA).history[-1].step == 3


# --- runs that do not get to their end ----------------------------------------------------------------------------

RESUMED = {
    "norms": recipe_of(tune=TuneNorms(), head=CosineHead(), ema_decay=0.9, freeze_epochs=0.5),
    "lora": recipe_of("test_resnet", tune=TuneLora(rank=2), ema_decay=0.9),
    "vit": recipe_of(drop_path=0.3, ema_decay=0.99, mixing=Mixup(), clip_norm=1, freeze_epochs=0.5),
    "resnet": recipe_of("test_resnet", optimizer=Sgd(), learning_rate=0.02, mixing=CutMix(), loss=Focal()),
}


def run_in_parts(recipe, checkpoint, stops):
    """Parks after each of these steps, and goes on in a new run each time."""
    for stop in stops:
        steps = []

        def reached(_, steps=steps, stop=stop):
            return bool(steps) and steps[-1] == stop

        with pytest.raises(Parked):
            fit(
                recipe,
                DATA,
                checkpoint=checkpoint,
                on_step=lambda done, _, steps=steps: steps.append(done),
                should_stop=reached,
            )
        assert steps[-1] == stop
    return fit(recipe, DATA, checkpoint=checkpoint)


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("stops", [[1], [3], [4, 5], [1, 2, 3, 4, 5, 6, 7]], ids=str)
def test_a_parked_run_goes_on_as_if_nothing_had_been(tmp_path, name, stops):
    recipe = RESUMED[name]
    assert_same(run_in_parts(recipe, tmp_path / "run.pt", stops), fit(recipe, DATA))


def test_nothing_is_lost_between_checkpoint_and_report(tmp_path):
    recipe, reported = recipe_of(), []

    def die(evaluation):
        if evaluation.step == 4:
            raise KeyboardInterrupt
        reported.append(evaluation)

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, DATA, checkpoint=tmp_path / "run.pt", on_evaluation=die)
    again = []
    result = fit(recipe, DATA, checkpoint=tmp_path / "run.pt", on_evaluation=again.append)
    assert without_clock(again) == without_clock(
        result.history
    )  # what was reported before is reported again, and nothing is missing
    assert [e.step for e in again] == [4, 8]
    assert not reported
    assert_same(result, fit(recipe, DATA))


def test_a_stop_that_comes_at_the_end_does_not_park(tmp_path):
    recipe = recipe_of(epochs=1)
    steps = []
    stop = lambda _: steps[-1] == 4  # noqa: E731
    result = fit(recipe, DATA, checkpoint=tmp_path / "run.pt", on_step=lambda n, _: steps.append(n), should_stop=stop)
    assert result.history[-1].step == 4


def test_stopping_is_asked_at_every_step_and_told_where_a_checkpoint_is():
    asked = []
    fit(recipe_of(epochs=2), DATA, should_stop=lambda at: asked.append(at))
    assert len(asked) == 8
    assert asked[3]
    assert asked[7]


def test_a_learning_rate_that_blows_up_diverges():
    # weight decay 1 at rate 10 multiplies every weight by -9 in each step
    recipe = recipe_of(optimizer=Sgd(), learning_rate=10, weight_decay=1, epochs=15)
    with pytest.raises(Diverged, match="not finite after"):
        fit(recipe, DATA)


def test_weights_that_are_not_numbers_diverge(tmp_path):
    recipe = recipe_of(epochs=1)
    state = make_model(recipe, 1000).state_dict()
    save_file({name: value * float("nan") for name, value in state.items()}, tmp_path / "test_vit.safetensors")
    with pytest.raises(Diverged, match="not finite"):
        fit(recipe, DATA, weights=Weights("file", tmp_path / "test_vit.safetensors"))


# --- without validation, and looked at in eighths -----------------------------------------------------------------


class TrainOnly(Tones):
    """Data with no other split than `train`."""

    def __init__(self):
        super().__init__()
        del self.images["validation"], self.numbers["validation"]


def test_without_validation_the_same_is_learned():
    recipe = recipe_of("test_resnet", ema_decay=0.9)
    result, looked = fit(recipe, TrainOnly(), evaluate=None), fit(recipe, DATA)
    assert result.history == []
    assert result.probabilities.shape == (0, 2)
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, looked.model.state_dict()[name]), name


def test_another_split_can_be_evaluated():
    result = fit(recipe_of(epochs=1), TrainOnly(), evaluate="train")
    assert len(result.probabilities) == 48
    assert result.history[-1].eighth == 8


@pytest.mark.parametrize("evaluate", [None, "validation"])
def test_a_run_is_shown_at_its_eighths_before_the_checkpoint(tmp_path, evaluate):
    recipe, checkpoint, shown = recipe_of(epochs=8), tmp_path / "run.pt", []

    def look(snapshot):
        written = torch.load(checkpoint, weights_only=True)["progress"][0] if checkpoint.exists() else 0
        assert written < snapshot.step
        shown.append(snapshot)

    result = fit(recipe, DATA, checkpoint=checkpoint, evaluate=evaluate, on_snapshot=look)
    assert [snapshot.eighth for snapshot in shown] == list(range(1, 9))
    assert [snapshot.step for snapshot in shown] == list(range(4, 33, 4))
    assert shown[-1].model is result.model
    assert all(snapshot.train_loss > 0 for snapshot in shown)
    assert [snapshot.evaluation for snapshot in shown] == (result.history or [None] * 8)


def test_threads_that_wait_for_a_core_are_fewer_until_the_end_of_the_run(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    waited, before, seen = itertools.count(1), torch.get_num_threads(), []
    monkeypatch.setattr(thread_count, "_WINDOW_SECONDS", 0.0)
    monkeypatch.setattr(thread_count, "read_thread_times", lambda: (float(number := next(waited)), 9.0 * number))
    torch.set_num_threads(4)
    try:
        fit(recipe_of(epochs=1), DATA, on_step=lambda *_: seen.append(torch.get_num_threads()))
        assert seen[0] == 2
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
