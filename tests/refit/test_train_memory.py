"""A final training that runs out of memory."""

import pytest

from automl.backbones.capabilities import find_capabilities
from automl.errors import MemoryBudgetError
from tests.fixtures.faults import Faults
from tests.fixtures.studies import images  # noqa: F401 - a fixture
from tests.refit.test_train import Told, recipe_of, train_tiny  # noqa: F401 - a fixture

FORWARD = "aten.native_layer_norm"  # 13 in a network


@pytest.fixture(autouse=True)
def _examined():
    """What the backbone can do is known before memory runs out."""
    find_capabilities("test_vit", (32,))


def test_it_goes_on_with_smaller_micro_batches_and_says_so(train_tiny):  # noqa: F811
    told = Told()
    with Faults((FORWARD, 20)) as faults:
        written = train_tiny(recipe=recipe_of(epochs=0.5), reporter=told)
    assert faults.raised == 1
    line = "warning: out of memory in a training step after 1 steps with 8 images at once; now 4"
    assert line in told.lines
    assert (written.path / "model.safetensors").exists()


def test_the_third_time_it_says_what_to_do(train_tiny):  # noqa: F811
    with (
        Faults(*[(FORWARD, call) for call in range(1, 99)]),
        pytest.raises(MemoryBudgetError, match=r"\(number 3\): end what else uses the device, or lower"),
    ):
        train_tiny(recipe=recipe_of(epochs=0.5))
