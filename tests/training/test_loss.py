import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.errors import RecipeError
from automl.recipe.learning import CrossEntropy, Focal
from automl.training.loss import make_loss, soft_targets

LOSSES = [
    CrossEntropy(),
    CrossEntropy(smoothing=0.1, class_weights="balanced"),
    Focal(),
    Focal(gamma=0.3, alpha=0.5, smoothing=0.1),
    Focal(gamma=0, alpha=1),
]


def batch(seed, size=12, classes=3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, classes, generator=generator) * 3
    labels = torch.randint(classes, (size,), generator=generator)
    return logits, labels


def mixed(labels, classes=3, share=0.3):
    targets = soft_targets(labels, classes)
    return (1 - share) * targets + share * targets.roll(1, 0)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
@pytest.mark.parametrize("loss", [CrossEntropy(), Focal(gamma=0)])
def test_plain_losses_are_torch_cross_entropy(loss, seed):
    logits, labels = batch(seed)
    value = make_loss(loss, [5, 5, 5])(logits, soft_targets(labels, 3))
    torch.testing.assert_close(value, F.cross_entropy(logits, labels))


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), smoothing=st.floats(0, 0.9))
def test_smoothing_is_that_of_torch_in_both_losses(seed, smoothing):
    logits, labels = batch(seed)
    reference = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    for loss in (CrossEntropy(smoothing=smoothing), Focal(gamma=0, smoothing=smoothing)):
        torch.testing.assert_close(make_loss(loss, [1, 1, 1])(logits, soft_targets(labels, 3)), reference)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0, 5))
def test_focal_is_the_papers_on_hard_targets(seed, gamma):
    logits, labels = batch(seed)
    p = logits.double().softmax(1)[torch.arange(len(labels)), labels]
    reference = (-((1 - p) ** gamma) * p.log()).mean().float()
    value = make_loss(Focal(gamma=gamma), [1, 1, 1])(logits, soft_targets(labels, 3))
    torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-6)


def test_balanced_weights_are_scikit_learns():
    logits, labels = batch(0)
    weights = torch.tensor([60 / (3 * 10), 60 / (3 * 20), 60 / (3 * 30)])
    reference = F.cross_entropy(logits, labels, weight=weights, reduction="sum") / len(labels)
    targets = soft_targets(labels, 3)
    for loss in (CrossEntropy(class_weights="balanced"), Focal(gamma=0, alpha=1)):
        torch.testing.assert_close(make_loss(loss, [10, 20, 30])(logits, targets), reference)


def test_alpha_goes_linearly_from_no_weights_to_inverse_frequency():
    logits, labels = batch(1)
    none, half, full = (
        make_loss(Focal(alpha=alpha), [1, 2, 6])(logits, soft_targets(labels, 3)) for alpha in (0, 0.5, 1)
    )
    torch.testing.assert_close(half, (none + full) / 2)
    assert none != full


@pytest.mark.parametrize("loss", LOSSES)
def test_micro_batches_accumulate_to_the_whole_batch(loss):
    logits, labels = batch(2)
    module, targets = make_loss(loss, [3, 5, 9]), mixed(labels)
    parts = [module(x, t) for x, t in zip(logits.chunk(3), targets.chunk(3), strict=True)]
    torch.testing.assert_close(sum(parts) / 3, module(logits, targets))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [0.0, 1e-4, 20.0, 6e4])
def test_gradients_stay_finite_at_extreme_logits(loss, dtype, size):
    logits = torch.tensor([[size, -size, 0], [-size, size, 0], [0, 0, size], [size, size, size]], dtype=dtype)
    logits.requires_grad_(True)
    for targets in (soft_targets(torch.tensor([0, 0, 1, 2]), 3), mixed(torch.tensor([0, 0, 1, 2]))):
        value = make_loss(loss, [3, 5, 9])(logits, targets)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    class Double(torch.Tensor):
        def float(self):
            return self  # gradcheck wants fp64

    logits, labels = batch(3, size=4)
    module, targets = make_loss(loss, [3, 5, 9]).double(), mixed(labels).double().as_subclass(Double)
    start = logits.double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: module(x.as_subclass(Double), targets).as_subclass(torch.Tensor), start)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_falls_when_trained_on(loss):
    logits, labels = torch.zeros(12, 3, requires_grad=True), batch(4)[1]
    module, targets = make_loss(loss, [4, 4, 4]), soft_targets(labels, 3)
    before = module(logits, targets)
    before.backward()
    assert module(logits - logits.grad, targets) < before


def test_a_class_without_samples_gets_no_weight():
    loss = make_loss(CrossEntropy(class_weights="balanced", smoothing=0.1), [10, 0, 10])
    value = loss(torch.zeros(2, 3), soft_targets(torch.tensor([0, 2]), 3))
    assert torch.isfinite(value)
    assert loss.weights[1] == 0


@pytest.mark.parametrize("counts", [[], [5], [0, 0], [3, -1]])
def test_too_few_classes_or_samples_are_named(counts):
    with pytest.raises(RecipeError, match="two classes"):
        make_loss(CrossEntropy(), counts)


def test_soft_targets_are_one_hot():
    targets = soft_targets(torch.tensor([2, 0]), 3)
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0]]
