import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.recipe.learning import CutMix, Mixup, NoMixing
from automl.training.loss import soft_targets
from automl.training.mixing import make_mixing

MIXINGS = [NoMixing(), Mixup(probability=1), CutMix(probability=1), Mixup(alpha=5, probability=0.5)]


def batch(size, side=8, classes=3):
    generator = torch.Generator().manual_seed(size)
    labels = torch.randint(classes, (size,), generator=generator)
    return torch.rand(size, 3, side, side, generator=generator), soft_targets(labels, classes)


@settings(deadline=None)
@given(size=st.integers(1, 7), step=st.integers(0, 1000), side=st.integers(1, 9))
@pytest.mark.parametrize("mixing", MIXINGS)
def test_shapes_dtypes_and_target_sums_are_kept(mixing, size, step, side):
    images, targets = batch(size, side)
    kept = images.clone(), targets.clone()
    new_images, new_targets = make_mixing(mixing, 3, seed=1)(images, targets, step)
    assert new_images.shape == images.shape
    assert new_images.dtype == images.dtype
    torch.testing.assert_close(new_targets.sum(1), torch.ones(size))
    assert new_images.min() >= 0
    assert new_images.max() <= 1
    assert torch.equal(images, kept[0])
    assert torch.equal(targets, kept[1])


@pytest.mark.parametrize("mixing", MIXINGS)
def test_depends_on_seed_and_step_alone(mixing):
    images, targets = batch(5)
    first = [make_mixing(mixing, 3, seed=7)(images, targets, step) for step in range(20)]
    torch.manual_seed(99)
    mix = make_mixing(mixing, 3, seed=7)
    again = [mix(images, targets, step) for step in reversed(range(20))][::-1]
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("mixing", MIXINGS[1:])
def test_seeds_and_steps_differ(mixing):
    images, targets = batch(5)
    mixes = [make_mixing(mixing, 3, seed) for seed in range(5)]
    outcomes = {mix(images, targets, step)[0][0].sum().item() for mix in mixes for step in range(5)}
    assert len(outcomes) > 5


@pytest.mark.parametrize("mixing", MIXINGS)
def test_global_generators_stay_as_they_were(mixing):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    make_mixing(mixing, 3, seed=0)(*batch(4), 3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_probability_is_how_often():
    mix, (images, targets) = make_mixing(Mixup(alpha=1, probability=0.3), 3, seed=0), batch(4)
    mixed = sum(not torch.equal(mix(images, targets, step)[0], images) for step in range(500))
    assert 0.22 < mixed / 500 < 0.38


def test_mixup_mixes_images_as_it_mixes_targets():
    images, targets = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]), torch.eye(2)
    for step in range(20):
        new_images, new_targets = make_mixing(Mixup(alpha=1), 2, seed=0)(images, targets, step)
        torch.testing.assert_close(new_images[:, 0, 0, 0], new_targets[:, 1])


def test_cutmix_targets_are_the_areas():
    images, targets = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]), torch.eye(2)
    for step in range(20):
        new_images, new_targets = make_mixing(CutMix(probability=1), 2, seed=0)(images, targets, step)
        torch.testing.assert_close(new_images.mean((1, 2, 3)), new_targets[:, 1])
        assert set(new_images.unique().tolist()) <= {0.0, 1.0}
