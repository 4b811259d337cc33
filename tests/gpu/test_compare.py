"""Prediction and measurement beside each other; the probe is made up."""

import pytest

from automl.gpu import compare as comparison_module
from automl.gpu.compare import compare_memory
from automl.gpu.probe import CannotProbe, Measurement, StepMemory
from automl.memory.envelope import Envelope
from automl.memory.estimate import CONTEXT_BYTES
from automl.memory.step import describe_step, save_envelope
from automl.recipe import Recipe

RECIPE = Recipe(backbone="resnet18", image_size=64, batch_size=8)
ENVELOPE = Envelope(((0, 1000),), ((1, 1100), (8, 8800)))
"""Tensors of 1000 bytes an image, and a tenth more for the allocator."""
MEASUREMENT = Measurement(
    device_name="Tesla T4",
    context_bytes=400,
    budget_bytes=20_000,
    shared=False,
    image_size=64,
    precision="fp32",
    memory_format="contiguous",
    steps=(StepMemory(8, 8060, 9000, 9500, 0.01),),
    micro_batch=8,
    accumulation=1,
    workspace_bytes=60,
)


@pytest.fixture
def probed(monkeypatch):
    """Sets what the probe answers or raises."""
    save_envelope(describe_step(RECIPE, 2, accumulates=False), ENVELOPE)

    def set_to(answer):
        def probe(*_, **__):
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(comparison_module, "probe_backbone", probe)

    return set_to


def test_what_libraries_keep_is_counted_once_on_either_side(probed):
    probed(MEASUREMENT)
    found = compare_memory(RECIPE, 2, "cuda", 20_000)
    assert found.peak_bytes == 400 + 8060  # of which 60 are the libraries'
    assert found.predicted_bytes == 400 + 60 + 8000
    assert found.error_percent == 0
    assert found.whole_bytes == 400 + 60 + 8800
    assert found.margin_bytes == 20_000 - 8460
    assert found.context_bytes + found.step.reserved == 9400


def test_where_nothing_was_measured_the_assumed_context_covers_the_libraries(probed):
    probed(CannotProbe("no process can be started"))
    found = compare_memory(RECIPE, 2, "cuda", CONTEXT_BYTES + 8800)
    assert found.context_bytes == CONTEXT_BYTES
    assert found.micro_batch == 8
    assert found.peak_bytes == found.predicted_bytes == CONTEXT_BYTES + 8800
    assert found.why_predicted == "no process can be started"
    assert compare_memory(RECIPE, 2, "cpu", None).why_predicted == "there is no GPU here"
