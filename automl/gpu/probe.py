"""Measures backbones on the real GPU, each in a fresh process, and keeps what was measured on the disk.

Neither this module nor the process that calls it uses CUDA; imports no torch.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.errors import RecipeError, WeightsError
from automl.files import cache_dir, write_text
from automl.gpu.nvml import find_gpu, read_nvml
from automl.memory.estimate import BARE_CONTEXT_BYTES, envelope_of
from automl.memory.step import step_of
from automl.recipe import Recipe

if TYPE_CHECKING:
    from automl.training.precision import Timing

METHOD = 2
"""Raised whenever what is measured changes, so that older cache files are passed over."""

COMMAND = (sys.executable, "-m", "automl.gpu.probe_worker")
TIME_LIMIT_SECONDS = 600.0


class CannotProbe(Exception):  # noqa: N818 - says nothing about the backbone; the prediction is used instead
    """Nothing can be measured here; the message says why, in words that fit into a sentence."""


@dataclass(frozen=True)
class Request:
    """What a process is asked to measure.

    Attributes:
        recipe: What is trained; its batch size is the largest micro-batch looked for.
        classes: Outputs of the head.
        device: `cuda` or `cuda:N`.
        budget_bytes: For the whole process, the CUDA context included.
        timed_image_size: Pixels per side at which precision and memory format are chosen by timing; None: the
            recipe's own numerics are kept.
    """

    recipe: Recipe
    classes: int
    device: str
    budget_bytes: int
    timed_image_size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"recipe": self.recipe.model_dump()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Request":
        """Reads what `to_json` wrote."""
        return cls(**(values | {"recipe": Recipe.from_mapping(values["recipe"])}))


@dataclass(frozen=True)
class StepMemory:
    """A training step at one micro-batch size, with the optimizer's state there; sizes are bytes.

    Attributes:
        batch: Images per micro-batch; below the recipe's batch size, gradients were accumulated.
        allocated: Peak of live tensors and of what libraries keep (`torch.cuda.max_memory_allocated`).
        reserved: Peak of what the allocator took for them (`torch.cuda.max_memory_reserved`).
        process: What NVML says the process takes, the CUDA context included; None where it does not say.
        seconds: Per image.
    """

    batch: int
    allocated: int
    reserved: int
    process: int | None
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """What was measured of a recipe's training step on a device; sizes are bytes.

    Attributes:
        device_name: Such as `Tesla P100-PCIE-16GB`.
        context_bytes: What the process takes beside PyTorch's allocator; `BARE_CONTEXT_BYTES` where NVML does not say.
        budget_bytes: What the process was limited to.
        shared: Whether others left less than the budget free, so that it may fit another time.
        image_size: Pixels per side of the measured steps.
        precision: Of the measured steps.
        memory_format: Of the measured steps.
        steps: By ascending micro-batch size: the smallest, those tried, the largest that fits.
        micro_batch: The largest that fits, a divisor of the recipe's batch size; 0: none does.
        accumulation: Micro-batches per optimizer step.
        timing: The chosen numerics, where they were chosen.
        workspace_bytes: What libraries keep in the allocator, mostly cuBLAS; a part of each step's `allocated`.
    """

    device_name: str
    context_bytes: int
    budget_bytes: int
    shared: bool
    image_size: int
    precision: str
    memory_format: str
    steps: tuple[StepMemory, ...]
    micro_batch: int
    accumulation: int
    timing: "Timing | None" = None
    workspace_bytes: int = 0

    @property
    def base_bytes(self) -> int:
        """What the process takes beside its tensors, as `CONTEXT_BYTES` is where nothing was measured."""
        return self.context_bytes + self.workspace_bytes

    @property
    def largest(self) -> StepMemory | None:
        """The step at the largest micro-batch that fits."""
        return next((step for step in self.steps if step.batch == self.micro_batch), None)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Measurement":
        """Reads what `dataclasses.asdict` made."""
        from automl.training.precision import Timing  # imports torch

        timing = Timing(**values["timing"]) if values["timing"] else None
        return cls(**(values | {"steps": tuple(StepMemory(**step) for step in values["steps"]), "timing": timing}))


def probe(
    recipe: Recipe, classes: int, device: str, budget_bytes: int, *, timed_image_size: int | None = None
) -> Measurement:
    """Measures a recipe's training step in a fresh process, or recalls an earlier measurement from the disk.

    Args:
        recipe: What is trained. Weights are random: they decide neither memory nor time.
        classes: Outputs of the head.
        device: `cuda` or `cuda:N`.
        budget_bytes: For the whole process, the CUDA context included.
        timed_image_size: Pixels per side at which precision and memory format are chosen by timing; None: the
            recipe's own numerics are kept.

    Raises:
        CannotProbe: If nothing can be measured here: no GPU, or no process can be started.
        RecipeError: If the backbone cannot be built or trained, with the error that its step met.
    """
    if not device.startswith("cuda"):
        raise CannotProbe("there is no GPU here")
    request = Request(recipe, classes, device, budget_bytes, timed_image_size)
    key = _key(request)
    measurement = _load(key)
    if measurement is None:
        measurement = _measured(request)
        if not measurement.shared:
            _save(key, measurement)
            _save_context(device, measurement.context_bytes)
    return measurement


def measured_recipe(recipe: Recipe, measurement: Measurement) -> Recipe:
    """The recipe with the numerics that were measured."""
    numerics = {"precision": measurement.precision, "memory_format": measurement.memory_format}
    return recipe.model_copy(update={"numerics": recipe.numerics.model_copy(update=numerics)})


def memory_factor(recipe: Recipe, classes: int, measurement: Measurement) -> float:
    """Peak of live tensors, measured, as a multiple of the predicted, at the largest micro-batch that fits.

    Smaller ones say less: what kernels take for a moment in any step is much of a small one.

    Args:
        recipe: With the numerics that were measured (`measured_recipe`).
        classes: Outputs of the head.
        measurement: Of this recipe.

    Returns:
        1 where nothing fits.

    Raises:
        RecipeError: If the backbone cannot be traced.
    """
    step = measurement.largest
    if step is None:
        return 1.0
    envelope = envelope_of(recipe, classes, accumulates=step.batch < recipe.batch_size)
    return (step.allocated - measurement.workspace_bytes) / envelope.live_at(step.batch)


def context_bytes(device: str) -> int:
    """What a process takes on a device beside PyTorch's allocator, as the last probe on such a device measured it.

    Args:
        device: `cuda` or `cuda:N`.

    Returns:
        Bytes; `BARE_CONTEXT_BYTES` where nothing was measured with this driver and torch.
    """
    key = _device_key(device)
    if key is None:
        return BARE_CONTEXT_BYTES
    try:
        return int(json.loads(_context_path(key).read_text(encoding="utf-8"))["context_bytes"])
    except (OSError, ValueError, TypeError, KeyError):
        return BARE_CONTEXT_BYTES


# --- the process ---------------------------------------------------------------------------------------------------


def _measured(request: Request) -> Measurement:
    """Asks a fresh process."""
    code, output, errors = _ask(json.dumps(request.to_json()), request.recipe.backbone)
    backbone, device = request.recipe.backbone, request.device
    last_words = (errors.strip().splitlines() or ["it said nothing"])[-1]
    if code < 0:
        told = f"{backbone}: the process that measured it was killed by signal {-code} ({_signal_name(-code)})"
        memory = "; was there enough memory (RAM) for it?" if -code == signal.SIGKILL else f": {last_words}"
        raise RecipeError(told + memory)
    try:
        answer = json.loads(output.splitlines()[-1])
        if "measurement" in answer:
            return Measurement.from_json(answer["measurement"])
        error = answer["error"]
    except (IndexError, ValueError, TypeError, KeyError) as exc:
        raise CannotProbe(f"the process that measures exited with code {code}: {last_words}") from exc
    message = f"{error['type']}: {error['message']}"
    if error["stage"] == "start":
        raise CannotProbe(f"{device} cannot be used: {message}")
    if error["type"] in (RecipeError.__name__, WeightsError.__name__):
        raise RecipeError(error["message"])
    poisoned = "; CUDA was unusable in that process afterwards, other processes are not touched by it"
    raise RecipeError(
        f"{backbone} cannot take a training step on {device}: {message}{poisoned if error['poisoned'] else ''}"
    )


def _ask(request: str, backbone: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the process; it ends with this one's interest in it."""
    try:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C is for this process alone, which then ends that one
        )
    except OSError as exc:
        raise CannotProbe(f"no process can be started: {exc}") from exc
    try:
        output, errors = process.communicate(request, timeout=TIME_LIMIT_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise RecipeError(f"{backbone}: measuring it took longer than {TIME_LIMIT_SECONDS:.0f} s") from exc
    finally:
        if process.poll() is None:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, output, errors


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


# --- the disk ------------------------------------------------------------------------------------------------------


def _device_key(device: str) -> dict[str, Any] | None:
    """What decides a context's size; None where NVML does not say which device it is."""
    reading = read_nvml()
    gpu = find_gpu(device, reading)
    if gpu is None:
        return None
    return {"gpu": gpu.name, "driver": reading.driver, "torch": version("torch"), "method": METHOD}


def _key(request: Request) -> dict[str, Any] | None:
    """What decides a measurement; None where it cannot be told."""
    device, recipe = _device_key(request.device), request.recipe
    if device is None:
        return None
    return device | {
        "timm": version("timm"),
        "step": asdict(step_of(recipe, request.classes, accumulates=False)),
        "others": [recipe.batch_size, recipe.numerics.grad_checkpointing, recipe.mixing.name, recipe.loss.name],
        "budget": request.budget_bytes,
        "timed_image_size": request.timed_image_size,
    }


def _path(key: dict[str, Any], kind: str) -> Path:
    digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "probes" / f"{kind}-{digest[:32]}.json"


def _context_path(key: dict[str, Any]) -> Path:
    return _path(key, "context")


def _load(key: dict[str, Any] | None) -> Measurement | None:
    """None if it is not there, or the file is broken or another request's."""
    if key is None:
        return None
    try:
        content = json.loads(_path(key, "step").read_text(encoding="utf-8"))
        return Measurement.from_json(content["measurement"]) if content["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _save(key: dict[str, Any] | None, measurement: Measurement) -> None:
    """A cache that cannot be written is none, and no error."""
    if key is not None:
        with suppress(OSError):
            write_text(_path(key, "step"), json.dumps({"key": key, "measurement": asdict(measurement)}, indent=1))


def _save_context(device: str, measured_bytes: int) -> None:
    key = _device_key(device)
    if key is not None:
        with suppress(OSError):
            write_text(_context_path(key), json.dumps({"key": key, "context_bytes": measured_bytes}))
