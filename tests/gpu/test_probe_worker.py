"""The measurement of the child, on a CPU whose memory is limited (`LimitedMemory`)."""

import gc
import io
import json
import os
import sys

import pytest
import torch

from automl.errors import RecipeError
from automl.gpu import probe_worker as measure_module
from automl.gpu.counters import _read_process
from automl.gpu.nvml import find_gpu
from automl.gpu.probe import Measurement, Request
from automl.gpu.probe_worker import find_largest_fitting, measure_request, measure_step
from automl.memory.envelope import Envelope
from automl.memory.estimate import CONTEXT_BYTES as ASSUMED_CONTEXT_BYTES
from automl.memory.step import describe_step, save_envelope
from automl.recipe import Recipe
from automl.recipe.learning import Sgd
from automl.training.precision import Timing
from tests.fixtures.fake_nvml import GB, FakeGpu, FakeNvml, FakeProcess
from tests.fixtures.limited_memory import LimitedMemory

BACKBONE = "test_byobnet.r160_in1k"
RECIPE = Recipe(backbone=BACKBONE, image_size=32, batch_size=12, ema_decay=0.9)
SMALL = RECIPE.model_copy(update={"batch_size": 2})
"""With one micro-batch size alone."""
CONTEXT_BYTES = 5_000_000
PLENTY = 10**12


class CpuCounters:
    """`CudaCounters` of the CPU's memory, within a `LimitedMemory`."""

    name = "a CPU"

    def __init__(self, limited, context=(CONTEXT_BYTES, CONTEXT_BYTES), free=None, workspace=(0,)):
        self.limited, self.contexts, self.free, self.budgets = limited, list(context), free, []
        self.workspaces = list(workspace)

    def read_context(self):
        return self.contexts.pop(0) if len(self.contexts) > 1 else self.contexts[0]

    def read_workspace(self):
        return self.workspaces.pop(0) if len(self.workspaces) > 1 else self.workspaces[0]

    def limit_memory(self, budget_bytes, context_bytes):
        self.budgets.append(budget_bytes - context_bytes)
        self.limited.limit_bytes = budget_bytes - context_bytes

    def read_free(self):
        return self.free

    def reset_peaks(self):
        self.limited.peak_bytes = self.limited.live_bytes

    def read_allocated(self):
        return self.limited.peak_bytes

    def read_reserved(self):
        return self.limited.peak_bytes

    def read_process(self):
        return None

    def wait_for_device(self):
        pass

    def release_memory(self):
        gc.collect()


@pytest.fixture
def predicted():
    """Stores predictions, which are made for a GPU, by which so many images fit any budget on this CPU."""

    def set_to(micro):
        envelope = Envelope(((0, 1),), ((micro, 1), (micro + 1, 10**15)), smallest_batch=2)
        for memory_format in ("contiguous", "channels_last"):
            for accumulates in (False, True):
                recipe = RECIPE.with_numerics(memory_format=memory_format)
                save_envelope(describe_step(recipe, 2, accumulates), envelope)

    set_to(12)
    return set_to


def measured(budget, recipe=RECIPE, **given):
    with LimitedMemory(PLENTY) as limited:
        memory = CpuCounters(limited, **given)
        return measure_request(Request(recipe, 2, "cpu", budget), memory), memory


@pytest.fixture(scope="module")
def peaks():
    """Bytes of the step at each micro-batch size, without a limit."""
    found = {}
    for batch in (2, 3, 4, 6, 12):
        with LimitedMemory(PLENTY) as limited:
            found[batch] = measure_step(RECIPE, batch, 2, "cpu", CpuCounters(limited)).allocated
        gc.collect()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("guess", "fits"), [(12, 3), (2, 6)])
def test_the_largest_micro_batch_is_the_true_largest_however_good_the_prediction(predicted, peaks, guess, fits):
    predicted(guess)
    found, memory = measured(peaks[fits] + CONTEXT_BYTES)
    assert found.micro_batch == fits
    assert found.accumulation == 12 // fits
    assert found.largest.allocated == peaks[fits]
    assert found.steps[0].allocated == peaks[2]
    assert found.largest.seconds > 0
    assert (memory.limited.refused > 0) == (fits < 12)


def test_where_nothing_fits_the_answer_is_zero(predicted, peaks):
    found, _ = measured(peaks[2] + CONTEXT_BYTES - 1)
    assert (found.micro_batch, found.accumulation, found.steps, found.largest) == (0, 0, (), None)


@pytest.mark.slow
def test_a_context_that_grew_with_the_kernels_leaves_less(predicted, peaks, monkeypatch):
    asked = []

    def guess(_recipe, _classes, limit_bytes, *, context_bytes):
        asked.append(limit_bytes - context_bytes + ASSUMED_CONTEXT_BYTES)
        return 4

    monkeypatch.setattr(measure_module, "largest_micro_batch", guess)
    found, memory = measured(peaks[6] + CONTEXT_BYTES, context=(CONTEXT_BYTES, CONTEXT_BYTES + 1))
    assert found.micro_batch == 4
    assert asked == [peaks[6] - 1 + ASSUMED_CONTEXT_BYTES]
    assert found.context_bytes == CONTEXT_BYTES + 1
    assert memory.budgets == [peaks[6], peaks[6] - 1]


def test_what_libraries_keep_in_the_allocator_leaves_less_for_tensors_and_is_no_context(predicted, monkeypatch):
    asked = []

    def guess(*_, context_bytes):
        asked.append(context_bytes)
        return 2

    monkeypatch.setattr(measure_module, "largest_micro_batch", guess)
    found, memory = measured(PLENTY, SMALL, workspace=(1000, 3000))  # more after the first step
    assert asked == [CONTEXT_BYTES + 3000]
    assert (found.context_bytes, found.workspace_bytes) == (CONTEXT_BYTES, 3000)
    assert found.base_bytes == CONTEXT_BYTES + 3000
    assert memory.budgets == [PLENTY - CONTEXT_BYTES] * 2


@pytest.mark.slow
def test_a_neighbour_that_leaves_less_than_the_budget_is_noted(predicted):
    assert measured(PLENTY, SMALL, free=PLENTY // 2)[0].shared
    assert not measured(PLENTY, SMALL, free=PLENTY)[0].shared


@pytest.mark.slow
def test_the_optimizers_state_is_there(predicted):
    def peak(optimizer):
        return measured(PLENTY, SMALL.model_copy(update={"optimizer": optimizer}))[0].steps[0].allocated

    assert peak(Sgd(momentum=0.9)) > peak(Sgd(momentum=0))


def test_an_error_that_only_speaks_of_memory_is_no_lack_of_memory(predicted, monkeypatch):
    def fit(*_, **__):
        raise RuntimeError("CUDA out of memory, says a library")

    monkeypatch.setattr(measure_module, "fit", fit)
    with pytest.raises(RuntimeError, match="says a library"):
        measured(PLENTY)


@pytest.mark.slow
def test_memory_freed_after_a_refusal_is_free_again(predicted, peaks):
    _, memory = measured(peaks[3] + CONTEXT_BYTES)
    gc.collect()
    assert memory.limited.live_bytes < peaks[2] / 10


@pytest.mark.slow
def test_numerics_are_chosen_where_they_are_asked_for(predicted, monkeypatch):
    asked = []

    def best(recipe, classes, device, batch):
        asked.append((recipe.image_size, batch))
        if batch > 4:
            raise torch.OutOfMemoryError("too many")
        return Timing("fp32", "channels_last", 0.1, 0.05, recipe.image_size)

    monkeypatch.setattr(measure_module, "best_numerics", best)
    with LimitedMemory(PLENTY) as limited:
        found = measure_request(Request(SMALL, 2, "cpu", PLENTY, timed_image_size=48), CpuCounters(limited))
    assert asked == [(48, 16), (48, 8), (48, 4)]
    assert found.memory_format == "channels_last"
    assert found.timing.image_size == 48


@pytest.mark.parametrize("sizes", [[1], [2, 4, 8], [1, 2, 3, 4, 6, 8, 12, 24]])
def test_the_search_finds_the_largest_from_every_guess(sizes):
    for true in [0, *sizes]:
        for guess in range(sizes[-1] + 2):
            tries = []
            assert find_largest_fitting(sizes, guess, lambda size, t=true, a=tries: a.append(size) or size <= t) == true
            assert len(tries) == len(set(tries))
            if guess == true and true:
                assert len(tries) <= 2


# --- the process's answer ------------------------------------------------------------------------------------------


def answer(monkeypatch, capfd, memory, recipe=SMALL):
    """What `main` writes, called in this process."""
    monkeypatch.setattr(measure_module, "CudaCounters", memory)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(Request(recipe, 2, "cpu", PLENTY).to_json())))
    before = os.dup(1)
    try:
        measure_module.main()
    finally:
        os.dup2(before, 1)
        os.close(before)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1
    return json.loads(lines[0])


def test_the_answer_is_read_back(predicted, monkeypatch, capfd):
    with LimitedMemory(PLENTY) as limited:
        told = answer(monkeypatch, capfd, lambda _: CpuCounters(limited))
    found = Measurement.from_json(told["measurement"])
    assert (found.micro_batch, found.image_size, found.precision) == (2, 32, "fp32")


def test_errors_are_told_with_type_and_stage(predicted, monkeypatch, capfd):
    def no_gpu(_):
        raise AssertionError("Torch not compiled with CUDA enabled")

    told = answer(monkeypatch, capfd, no_gpu)["error"]
    assert told == {
        "stage": "start",
        "type": "AssertionError",
        "message": "Torch not compiled with CUDA enabled",
        "poisoned": False,
    }

    def fit(*_, **__):
        os.write(1, b"a library that prints\n")
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(measure_module, "fit", fit)
    with LimitedMemory(PLENTY) as limited:
        told = answer(monkeypatch, capfd, lambda _: CpuCounters(limited))["error"]
    assert told["stage"] == "step"
    assert told["type"] == "AcceleratorError"
    assert told["message"] == "CUDA error: an illegal memory access was encountered"
    assert told["poisoned"]


def test_a_size_that_the_backbone_cannot_take_is_told_as_such(monkeypatch, capfd):
    recipe = Recipe(backbone="test_vit.r160_in1k", image_size=33, batch_size=4)
    with LimitedMemory(PLENTY) as limited:
        told = answer(monkeypatch, capfd, lambda _: CpuCounters(limited), recipe)["error"]
    assert told["type"] == RecipeError.__name__
    assert "33 px" in told["message"]


# --- the process's own memory --------------------------------------------------------------------------------------


def test_the_drivers_figure_for_this_process_is_taken(monkeypatch):
    FakeNvml(FakeGpu(processes=[FakeProcess(1, "other", GB), FakeProcess(os.getpid(), "python", 3 * GB)])).install(
        monkeypatch
    )
    assert _read_process(find_gpu("cuda:0"), None) == 3 * GB


@pytest.mark.parametrize("mig", [False, True])
def test_where_processes_are_hidden_it_is_what_was_added(monkeypatch, mig):
    gpu = FakeGpu(processes=[FakeProcess(1, "other", GB)], hides_processes=True)
    FakeNvml(FakeGpu(mig=[gpu], capability=(8, 0)) if mig else gpu).install(monkeypatch)
    before = find_gpu("cuda:0").used_bytes
    gpu.processes.append(FakeProcess(os.getpid(), "python", 2 * GB))
    assert _read_process(find_gpu("cuda:0"), before) == 2 * GB
    assert _read_process(find_gpu("cuda:0"), None) is None
