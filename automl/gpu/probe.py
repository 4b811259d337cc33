"""Measures backbones on the real GPU, each in a fresh process, and keeps the measurements on the disk.

Neither this module nor the process that calls it uses CUDA; imports no torch.
"""

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from automl.devices import is_gpu
from automl.errors import RecipeError, WeightsError
from automl.files import CacheEntry
from automl.gpu.nvml import find_gpu, read_nvml
from automl.memory.estimate import BARE_CONTEXT_BYTES, predict_envelope
from automl.memory.step import describe_step, list_values
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
    """A measurement to make.

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
        """Returns it as plain data."""
        return vars(self) | {"recipe": self.recipe.model_dump()}

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
        context_bytes: What the process takes beside PyTorch's allocator; `BARE_CONTEXT_BYTES` where NVML does not say.
        budget_bytes: What the process was limited to.
        shared: Whether others left less than the budget free, so that it may fit another time.
        image_size: Pixels per side of the measured steps, which have this precision and memory format.
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

    def apply_numerics(self, recipe: Recipe) -> Recipe:
        """Gives a recipe the numerics that were measured."""
        return recipe.with_numerics(precision=self.precision, memory_format=self.memory_format)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Measurement":
        """Reads what `dataclasses.asdict` made."""
        from automl.training.precision import Timing  # imports torch

        timing = Timing(**values["timing"]) if values["timing"] else None
        return cls(**(values | {"steps": tuple(StepMemory(**step) for step in values["steps"]), "timing": timing}))


def probe_backbone(
    recipe: Recipe, classes: int, device: str, budget_bytes: int, *, timed_image_size: int | None = None
) -> Measurement:
    """Measures a recipe's training step in a fresh process, or recalls an earlier measurement from the disk.

    The arguments are as for `Request`. Weights are random: they decide neither memory nor time.

    Raises:
        CannotProbe: If nothing can be measured here: no GPU, or no process can be started.
        RecipeError: If the backbone cannot be built or trained, with the error that its step met.
    """
    if not is_gpu(device):
        raise CannotProbe("there is no GPU here")
    request = Request(recipe, classes, device, budget_bytes, timed_image_size)
    cached, cached_context = _find_cached_step(request), _find_cached_context(device)
    measurement = cached.load_json(lambda content: Measurement.from_json(content["measurement"])) if cached else None
    if measurement is None:
        measurement = _measure_in_process(request)
        if cached and cached_context and not measurement.shared:
            cached.save_json({"key": cached.key, "measurement": asdict(measurement)})
            cached_context.save_json({"key": cached_context.key, "context_bytes": measurement.context_bytes})
    return measurement


def memory_factor(recipe: Recipe, classes: int, measurement: Measurement) -> float:
    """Divides the measured peak of live tensors by the predicted one, at the largest micro-batch that fits; 1 if none.

    Smaller ones show less: what kernels take for a moment in any step is much of a small one. The recipe has the
    numerics that were measured.
    """
    if (step := measurement.largest) is None:
        return 1.0
    envelope = predict_envelope(recipe, classes, accumulates=step.batch < recipe.batch_size)
    return (step.allocated - measurement.workspace_bytes) / envelope.live_bytes(step.batch)


def read_context_bytes(device: str) -> int:
    """Reads what a process takes beside PyTorch's allocator, as last measured; `BARE_CONTEXT_BYTES` if never."""
    cached = _find_cached_context(device)
    measured = cached.load_json(lambda content: int(content["context_bytes"])) if cached else None
    return BARE_CONTEXT_BYTES if measured is None else measured


# --- the process ---------------------------------------------------------------------------------------------------


def _measure_in_process(request: Request) -> Measurement:
    """Asks a fresh process, and turns what ends it into an error."""
    backbone, device = request.recipe.backbone, request.device
    process = _run_worker(json.dumps(request.to_json()), backbone)
    code = process.returncode
    last_line = (process.stderr.strip().splitlines() or ["it printed no error"])[-1]
    if code < 0:
        killed = f"{backbone}: the process that measured it was killed by signal {-code} ({signal.strsignal(-code)})"
        why = "; was there enough memory (RAM) for it?" if -code == signal.SIGKILL else f": {last_line}"
        raise RecipeError(killed + why)
    try:
        answer = json.loads(process.stdout.splitlines()[-1])
        if "measurement" in answer:
            return Measurement.from_json(answer["measurement"])
        error = answer["error"]
    except (IndexError, ValueError, TypeError, KeyError) as exc:
        raise CannotProbe(f"the process that measures exited with code {code}: {last_line}") from exc
    message = f"{error['type']}: {error['message']}"
    if error["stage"] == "start":
        raise CannotProbe(f"{device} cannot be used: {message}")
    if error["type"] in (RecipeError.__name__, WeightsError.__name__):
        raise RecipeError(error["message"])
    poisoned = "; CUDA could not be used in that process afterwards, which does not affect other processes"
    raise RecipeError(
        f"{backbone} cannot take a training step on {device}: {message}{poisoned if error['poisoned'] else ''}"
    )


def _run_worker(request: str, backbone: str) -> "subprocess.CompletedProcess[str]":
    """Runs the worker, which never outlives this call."""
    try:
        return subprocess.run(
            COMMAND,
            input=request,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
            timeout=TIME_LIMIT_SECONDS,
            start_new_session=True,  # Ctrl-C is for this process alone, which then ends that one
        )
    except subprocess.TimeoutExpired as exc:
        raise RecipeError(f"{backbone}: measuring it took longer than {TIME_LIMIT_SECONDS:.0f} s") from exc
    except OSError as exc:
        raise CannotProbe(f"no process can be started: {exc}") from exc


# --- the disk ------------------------------------------------------------------------------------------------------


def _describe_device(device: str) -> dict[str, Any] | None:
    """Returns what a context's size depends on; None where NVML does not say which device it is."""
    snapshot = read_nvml()
    if (gpu := find_gpu(device, snapshot)) is None:
        return None
    return {"gpu": gpu.name, "driver": snapshot.driver, "torch": version("torch"), "method": METHOD}


def _find_cached_context(device: str) -> CacheEntry | None:
    key = _describe_device(device)
    return CacheEntry("probes", key, "context-") if key else None


def _find_cached_step(request: Request) -> CacheEntry | None:
    """Returns where a measurement is kept; None where what it depends on is not known."""
    device, recipe = _describe_device(request.device), request.recipe
    if device is None:
        return None
    key = device | {
        "timm": version("timm"),
        "step": list_values(describe_step(recipe, request.classes, accumulates=False)),
        "others": [recipe.batch_size, recipe.numerics.grad_checkpointing, recipe.mixing.name, recipe.loss.name],
        "budget": request.budget_bytes,
        "timed_image_size": request.timed_image_size,
    }
    return CacheEntry("probes", key, "step-")
