"""The parent's side: a stand-in for the process that measures, NVML made up."""

import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from torch.cuda._utils import _get_device_index

from automl.devices import limit_process
from automl.errors import RecipeError
from automl.gpu import counters as device_module
from automl.gpu import probe as probe_module
from automl.gpu.counters import CudaCounters
from automl.gpu.probe import CannotProbe, Measurement, StepMemory, memory_factor, probe_backbone, read_context_bytes
from automl.memory.envelope import Envelope
from automl.memory.estimate import BARE_CONTEXT_BYTES, CONTEXT_BYTES, limit_for_prediction
from automl.memory.step import describe_step, save_envelope
from automl.recipe import Recipe
from automl.training.precision import Timing
from tests.fixtures.fake_nvml import GB, FakeGpu, FakeNvml

RECIPE = Recipe(backbone="resnet18.a1_in1k", image_size=64, batch_size=8)
MEASUREMENT = Measurement(
    device_name="Tesla T4",
    context_bytes=400_000_000,
    budget_bytes=8 * GB,
    shared=False,
    image_size=64,
    precision="fp16",
    memory_format="channels_last",
    steps=(StepMemory(2, GB, 2 * GB, None, 0.01), StepMemory(4, 2 * GB, 3 * GB, 4 * GB, 0.005)),
    micro_batch=4,
    accumulation=2,
    timing=Timing("fp16", "channels_last", 0.004, 0.001, 64),
)
ANSWER = "import json, sys; json.load(sys.stdin); open({log!r}, 'a').write('.'); print('noise'); print(sys.argv[1])"


@pytest.fixture
def nvml(monkeypatch):
    return FakeNvml(FakeGpu("Tesla T4")).install(monkeypatch)


@pytest.fixture
def child(monkeypatch, tmp_path):
    """Sets what the process does: `child({…})` or `child(code="…")`. Returns a function that counts its starts."""
    log = tmp_path / "starts"
    log.touch()

    def set_to(answer=None, code=None):
        code = code or ANSWER.format(log=str(log))
        monkeypatch.setattr(probe_module, "COMMAND", (sys.executable, "-c", code, json.dumps(answer)))
        return lambda: len(log.read_text())

    return set_to


def ask(recipe=RECIPE, classes=2, budget=8 * GB, **given):
    return probe_backbone(recipe, classes, "cuda:0", budget, **given)


def error(stage="step", kind="RuntimeError", message="it broke", poisoned=False):
    return {"error": {"stage": stage, "type": kind, "message": message, "poisoned": poisoned}}


def test_the_measurement_comes_back(nvml, child):
    child({"measurement": asdict(MEASUREMENT)})
    found = ask()
    assert found == MEASUREMENT
    assert found.largest == MEASUREMENT.steps[1]


def test_what_was_measured_once_starts_no_process(nvml, child):
    starts = child({"measurement": asdict(MEASUREMENT)})
    assert ask() == ask() == MEASUREMENT
    # the tag of the weights decides neither memory nor time; what the optimizer is told does not either
    ask(RECIPE.model_copy(update={"backbone": "resnet18.tv_in1k", "learning_rate": 0.1}))
    assert starts() == 1
    for recipe in (
        RECIPE.model_copy(update={"image_size": 96}),
        RECIPE.model_copy(update={"batch_size": 16}),
        RECIPE.model_copy(update={"ema_decay": 0.9}),
        RECIPE.model_copy(update={"numerics": RECIPE.numerics.model_copy(update={"precision": "bf16"})}),
        RECIPE.model_copy(update={"numerics": RECIPE.numerics.model_copy(update={"grad_checkpointing": True})}),
    ):
        ask(recipe)
    ask(classes=3)
    ask(budget=9 * GB)
    ask(timed_image_size=64)
    assert starts() == 9


def test_another_driver_gpu_or_torch_is_measured_anew(nvml, child, monkeypatch):
    starts = child({"measurement": asdict(MEASUREMENT)})
    ask()
    nvml.driver = "560.1"
    ask()
    nvml.gpus[0].name = "Tesla P100"
    ask()
    monkeypatch.setattr(probe_module, "version", lambda name: f"99 of {name}")
    ask()
    ask()
    assert starts() == 4


def test_what_a_neighbour_spoiled_is_not_kept(nvml, child):
    starts = child({"measurement": asdict(MEASUREMENT) | {"shared": True}})
    assert ask() == ask()
    assert starts() == 2


def test_without_nvml_it_is_measured_and_not_kept(monkeypatch, child):
    FakeNvml(init_error=9).install(monkeypatch)
    starts = child({"measurement": asdict(MEASUREMENT)})
    assert ask() == ask() == MEASUREMENT
    assert starts() == 2
    assert read_context_bytes("cuda:0") == BARE_CONTEXT_BYTES


def test_a_broken_file_is_measured_anew(nvml, child, tmp_path):
    starts = child({"measurement": asdict(MEASUREMENT)})
    ask()
    for path in (tmp_path / "cache" / "probes").iterdir():
        path.write_text("{")
    assert read_context_bytes("cuda:0") == BARE_CONTEXT_BYTES
    assert ask() == MEASUREMENT
    assert starts() == 2


def test_the_context_is_known_after_a_probe(nvml, child):
    child({"measurement": asdict(MEASUREMENT)})
    assert read_context_bytes("cuda:0") == BARE_CONTEXT_BYTES
    ask()
    assert read_context_bytes("cuda:0") == 400_000_000
    nvml.driver = "560.1"
    assert read_context_bytes("cuda:0") == BARE_CONTEXT_BYTES


def test_an_error_of_the_step_comes_back_with_its_type(nvml, child):
    starts = child(error())
    for _ in range(2):  # and is not kept
        with pytest.raises(RecipeError) as caught:
            ask()
    assert str(caught.value) == "resnet18.a1_in1k cannot take a training step on cuda:0: RuntimeError: it broke"
    assert starts() == 2
    child(error(kind="AcceleratorError", message="illegal address", poisoned=True))
    with pytest.raises(RecipeError, match="AcceleratorError: illegal address; CUDA could not be used in that process"):
        ask()
    child(error(kind="RecipeError", message="cannot build it at 64 px"))
    with pytest.raises(RecipeError, match=r"^cannot build it at 64 px"):
        ask()


def test_a_gpu_that_cannot_be_used_says_nothing_about_the_backbone(nvml, child):
    child(error(stage="start", message="no CUDA-capable device"))
    with pytest.raises(CannotProbe, match="cuda:0 cannot be used: RuntimeError: no CUDA-capable device"):
        ask()
    child(code="import sys; sys.exit('no module named torch')")
    with pytest.raises(CannotProbe, match="exited with code 1: no module named torch"):
        ask()
    child(code="print('not an answer')")
    with pytest.raises(CannotProbe, match="exited with code 0: it printed no error"):
        ask()


def test_without_a_gpu_or_a_process_nothing_is_measured(nvml, monkeypatch, tmp_path):
    with pytest.raises(CannotProbe, match="no GPU"):
        probe_backbone(RECIPE, 2, "cpu", GB)
    monkeypatch.setattr(probe_module, "COMMAND", (str(tmp_path / "nothing"),))
    with pytest.raises(CannotProbe, match=r"no process can be started: .*No such file"):
        ask()


def test_a_process_killed_by_a_signal_is_told(nvml, child):
    child(code="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RecipeError, match=r"resnet18.a1_in1k: .* killed by signal 9 \(Killed\); was there enough"):
        ask()
    child(code="import os, signal, sys; print('last', file=sys.stderr, flush=True); os.kill(os.getpid(), 6)")
    with pytest.raises(RecipeError, match=r"signal 6 \(Aborted\): last"):
        ask()


def test_a_process_that_hangs_is_ended(nvml, child, monkeypatch):
    monkeypatch.setattr(probe_module, "TIME_LIMIT_SECONDS", 0.2)
    child(code="import time; time.sleep(600)")
    with pytest.raises(RecipeError, match="took longer"):
        ask()


def test_the_factor_is_of_the_largest_micro_batch_that_fits():
    envelope = Envelope(((GB // 2, GB // 4),), ((2, GB),), 2)
    save_envelope(describe_step(RECIPE, 2, accumulates=True), envelope)
    assert memory_factor(RECIPE, 2, MEASUREMENT) == pytest.approx(2 / 1.5)
    assert memory_factor(RECIPE, 2, replace(MEASUREMENT, micro_batch=2)) == pytest.approx(1)
    assert memory_factor(RECIPE, 2, replace(MEASUREMENT, micro_batch=0)) == 1
    kept = replace(MEASUREMENT, workspace_bytes=GB // 2)  # by libraries, which is no tensor of the step
    assert memory_factor(RECIPE, 2, kept) == pytest.approx(1)
    assert kept.base_bytes == 400_000_000 + GB // 2


def test_a_corrected_limit_lets_through_what_was_measured_to_fit():
    # a step of 2 GB beside the context, predicted, needs 2.4 GB and a context of 0.4 GB
    limit = limit_for_prediction(2_800_000_000, 400_000_000, 1.2)
    assert limit == pytest.approx(CONTEXT_BYTES + 2 * GB, abs=2)


@pytest.fixture
def cuda(monkeypatch):
    """A CUDA device of 16 GB, by torch's own functions; notes the fractions that are set.

    Like torch, it takes a device without an index for the current one everywhere but where the fraction is set.
    """
    fractions = []

    def set_fraction(share, device=None):
        fractions.append((share, 0 if device is None else _get_device_index(device)))

    total = SimpleNamespace(total_memory=16 * GB, uuid="no GPU of NVML's")
    functions = {
        "get_device_properties": lambda _: total,
        "set_per_process_memory_fraction": set_fraction,
        "get_device_name": lambda _: "Tesla T4",
        "memory_reserved": lambda _: GB,
        "memory_allocated": lambda _: 67_108_864,
    }
    for name, function in functions.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return fractions


def test_a_process_is_limited_context_included(cuda):
    limit_process("cuda:0", 8 * GB, GB)
    limit_process("cuda:0", 2 * GB, 3 * GB)  # less than the context
    limit_process("cuda:0", 99 * GB, GB)
    assert cuda == [(7 / 16, 0), (0, 0), (1, 0)]


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_device_is_limited_with_and_without_an_index(cuda, device, index):
    with pytest.raises(ValueError, match="specified index"):  # the fake is no more lenient than torch
        torch.cuda.set_per_process_memory_fraction(0.5, torch.device("cuda"))
    limit_process(device, 8 * GB, GB)
    assert cuda == [(7 / 16, index)]


def test_the_context_is_what_the_process_takes_beside_the_allocator(cuda, nvml, monkeypatch):
    nvml.gpus[0].hides_processes = True
    nvml.gpus[0].unlisted_bytes = 5 * GB  # others'
    monkeypatch.setattr(device_module, "_use_libraries", lambda _: None)
    memory = CudaCounters("cuda:0")
    nvml.gpus[0].unlisted_bytes += 3 * GB
    assert memory.name == "Tesla T4"
    assert memory.read_process() == 3 * GB
    assert memory.read_context() == 2 * GB
    assert memory.read_workspace() == 67_108_864  # in the allocator, and so no part of the context
    nvml.gpus[0].unlisted_bytes -= 3 * GB  # a neighbour left: the figure is not this process's
    assert memory.read_context() == BARE_CONTEXT_BYTES
    nvml.init_error = 9
    assert (memory.read_process(), memory.read_context()) == (None, BARE_CONTEXT_BYTES)
    assert memory.read_context() + memory.read_workspace() == CONTEXT_BYTES


@pytest.mark.gpu
def test_a_real_probe_agrees_with_the_prediction():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    recipe = Recipe(backbone="resnet18", image_size=224, batch_size=32)
    found = probe_backbone(recipe, 2, "cuda:0", 8 * GB)
    assert found.micro_batch == 32
    assert 0.9 < memory_factor(recipe, 2, found) < 1.1
    assert found.largest.reserved >= found.largest.allocated
    small = probe_backbone(recipe, 2, "cuda:0", found.context_bytes + found.largest.allocated * 2 // 3)
    assert 0 < small.micro_batch < 32
    assert small.largest.reserved <= found.largest.allocated * 2 // 3


@pytest.mark.gpu
def test_a_real_device_needs_no_index():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    recipe = Recipe(backbone="test_byobnet", image_size=64, batch_size=4)
    found = probe_backbone(recipe, 2, "cuda", 8 * GB)
    assert found.micro_batch == 4
    assert 0 <= found.workspace_bytes < found.largest.allocated
