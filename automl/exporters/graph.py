"""A trained network as one graph that runs without timm and without automl: ONNX, or torch.export.

Input `images`: float32 (B, 3, S, S), RGB in 0 to 1, normalised with `mean` and `std`. Output `probabilities`: float32
(B, classes), a softmax inside the graph. B is free, S is not. What an image needs to become that input, and what the
outputs mean, goes along in three places with the same content: inside the file (ONNX: one entry of the metadata for
each constant, as JSON; torch.export: the extra file `preprocessing.json`), and in a JSON file beside it.

A file is compared with the network it was made of before it gets its name, so a wrong one is never left behind. The
constants are written after it.
"""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automl.backbones.timm_model import summarize_error
from automl.errors import AutomlError, DataError, WeightsError
from automl.exporters.source import Exported
from automl.files import explain_write_errors, write_atomically, write_text
from automl.media.kinds import is_media
from automl.models.folder import ModelFolder
from automl.models.scorer import ImageSource, list_media
from automl.recipe import Numerics
from automl.recipe.augmentation import NativeCrop, RandomResizedCrop, ResizeCrop, SquashCrop
from automl.recipe.choices import find_entry
from automl.schema import Part
from automl.training.evaluation import Normalize

TOLERANCE = 1e-4
"""Largest difference in any probability between a file and the network it was made of."""

_EXTRA = "preprocessing.json"
_NOISE_IMAGES, _REAL_IMAGES, _BATCH = 9, 200, 8
_PROTOBUF_BYTES = 2**31 - 2**20
"""What one ONNX file can hold, less room for the graph itself."""

_CROPS: dict[type[Part], str] = {
    ResizeCrop: "square",
    RandomResizedCrop: "square",
    NativeCrop: "native",
    SquashCrop: "squash",
}
"""The part of an image that the network sees."""

Runner = Callable[[Tensor], Tensor]
Writer = Callable[[Path, torch.export.ExportedProgram], Runner]


def export_onnx(model: ModelFolder, out: Path, data: Path | None = None) -> Exported:
    """Writes a model as one ONNX file, and checks it with onnxruntime.

    Args:
        model: What `automl train` wrote.
        out: The file; replaced if it is there.
        data: A folder of images to compare on, of which up to 200 are taken; None: 9 images of noise.

    Raises:
        AutomlError: If the extra `onnx` is not installed, or the file cannot be written.
        DataError: If there is no image in `data`.
        WeightsError: If the model cannot be exported, or the file gives other probabilities than the model.
    """
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise AutomlError(f"ONNX needs {', '.join(missing)}; install with: pip install 'automl-timm[onnx]'")
    network = _Probabilities(model.load()).eval()
    for layer in network.modules():
        # torch translates timm's fused attention in four dimensions alone (Hiera, NesT and Twins have five), and
        # stumbles over masks that are learnt (BEiT, MaxViT).
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = False  # type: ignore[assignment]
    need_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if need_bytes > _PROTOBUF_BYTES:
        raise WeightsError(f"{model.path}: an ONNX file holds at most 2 GiB, the weights alone have more; use torch")

    def write(path: Path, traced: torch.export.ExportedProgram) -> Runner:
        program = torch.onnx.export(
            traced, (), input_names=["images"], output_names=["probabilities"], dynamo=True, verbose=False
        )
        assert program is not None  # noqa: S101 - it is for dynamo
        for node in program.model.graph:
            node.metadata_props.clear()  # a file to give away does not name paths of this machine
        program.model.metadata_props.update({key: json.dumps(value) for key, value in list_constants(model).items()})
        program.save(str(path), external_data=False)
        return _open_onnx(path)

    return _write_checked(model, network, out, data, write)


def export_torch(model: ModelFolder, out: Path, data: Path | None = None) -> Exported:
    """Writes a model as torch.export's archive (`.pt2`) for `torch.export.load`.

    Arguments and errors are those of `export_onnx`. The graph is for the CPU;
    `torch.export.passes.move_to_device_pass` moves it.
    """
    network = _Probabilities(model.load()).eval()

    def write(path: Path, traced: torch.export.ExportedProgram) -> Runner:
        for node in traced.graph.nodes:
            node.meta.pop("stack_trace", None)
        constants = json.dumps(list_constants(model), indent=2, ensure_ascii=False)
        with path.open("wb") as file:  # of a path, torch.export would want the ending
            torch.export.save(traced, file, extra_files={_EXTRA: constants})
        with path.open("rb") as file:
            runner: Runner = torch.export.load(file).module()
        return runner

    return _write_checked(model, network, out, data, write)


def list_constants(model: ModelFolder) -> dict[str, Any]:
    """Lists what a program needs besides the graph.

    Returns:
        `backbone`, `input` and `output` (names in the graph), `classes`, `positive` (None unless there are two), the
        fields of `InputSpec` (`decode_size`, `image_size`, `mean`, `std`, `interpolation`), and `crop`: `square` (the
        middle square, resized to the image size), `native` (the middle window of that size, not resized) or `squash`
        (all of the image, both sides resized to the image size).
    """
    labels = model.labels
    return {
        "backbone": model.recipe.backbone,
        "input": "images",
        "output": "probabilities",
        "classes": list(labels.classes),
        "positive": labels.positive if len(labels.classes) == 2 else None,
        "crop": find_entry("an exported network", "augmentation.crop", model.recipe.augmentation.crop, _CROPS),
        **asdict(model.input),
    }


def _write_checked(model: ModelFolder, network: nn.Module, out: Path, data: Path | None, write: Writer) -> Exported:
    """Writes, compares, and only then gives the file its name."""
    batches = _make_noise(model) if data is None else read_check_images(model, data)
    constants = list_constants(model)
    with explain_write_errors(out, AutomlError):
        with write_atomically(out) as temporary:
            with _silence_exporters():
                difference, images = _write_and_compare(model, network, write, temporary, batches)
            if not difference < TOLERANCE:
                raise WeightsError(
                    f"{out} was not written: its probabilities differ by up to {difference:.2g} from those of "
                    f"{model.path} on {images} images, and {TOLERANCE:g} is the limit"
                )
        write_text(out.with_name(out.name + ".json"), json.dumps(constants, indent=2, ensure_ascii=False) + "\n")
    return Exported(path=out, difference=difference, images=images, real=data is not None)


def _write_and_compare(
    model: ModelFolder, network: nn.Module, write: Writer, path: Path, batches: Iterable[Tensor]
) -> tuple[float, int]:
    """Writes; returns the largest difference in probability (NaN if there is one), and of how many images.

    What the exporters and the runtimes raise becomes one line.
    """
    worst, images = torch.zeros(()), 0
    try:
        runner = write(path, _trace_network(network, model.input.image_size))
        with torch.inference_mode():
            for batch in batches:
                worst = torch.maximum(worst, (network(batch) - runner(batch)).abs().max())  # keeps a NaN
                images += len(batch)
        return worst.item(), images
    except (AutomlError, OSError):
        raise
    except Exception as exc:  # dozens of types
        cause: BaseException = exc
        while cause.__cause__ is not None:  # torch wraps what went wrong in what to do next
            cause = cause.__cause__
        reason = summarize_error(cause)
        raise WeightsError(f"{model.recipe.backbone} cannot be exported to this format: {reason}") from exc


class _Probabilities(nn.Module):
    """A network with a softmax: normalised (B, 3, S, S) float32 → (B, classes) probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Computes probabilities; the argument's name is the graph's input."""
        return torch.softmax(self.network(images), dim=1)


def _trace_network(network: nn.Module, size: int) -> torch.export.ExportedProgram:
    """Traces the network with a free batch size."""
    # Two images: a size of one would be taken for a constant.
    with torch.no_grad():
        return torch.export.export(
            network, (torch.zeros(2, 3, size, size),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
        )


def _open_onnx(path: Path) -> Runner:
    """Opens an ONNX file with onnxruntime."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["probabilities"], {"images": images.numpy()})[0])


@contextlib.contextmanager
def _silence_exporters() -> Iterator[None]:
    """Keeps the exporters' warnings, log lines and prints to themselves: what matters is measured."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _make_noise(model: ModelFolder) -> Iterator[Tensor]:
    """Yields batches of noise, the first of one image: a graph that knows one batch size only fails here."""
    generator, size = torch.Generator().manual_seed(0), model.input.image_size
    normalize = Normalize(model.input, Numerics(), torch.device("cpu"))
    for count in (1, _NOISE_IMAGES - 1):
        yield normalize(torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8))


def read_check_images(model: ModelFolder, data: Path) -> Iterator[Tensor]:
    """Reads batches of images of a folder, of up to 200 files evenly spread; the first batch is one image.

    Raises:
        DataError: If there is none.
    """
    media = list_media([model.recipe.view])
    paths = sorted(str(path.absolute()) for path in data.rglob("*") if is_media(path.name, media))
    if not paths:
        raise DataError(
            f"no {' or '.join(media)} files in {data} to compare on; give a folder of them with --check-data"
        )
    paths = paths[:: -(-len(paths) // _REAL_IMAGES)]
    source = ImageSource.for_model(model, "none")
    normalize, problems = Normalize(model.input, Numerics(), torch.device("cpu")), list[str]()

    def readable() -> Iterator[Tensor]:
        for path in paths:
            try:
                images, _ = source.read_file(path)  # (K, 1, 3, S, S)
            except DataError as exc:
                problems.append(str(exc).removeprefix("cannot read "))
            else:
                yield from images[:, 0]

    images = readable()
    first = next(images, None)
    if first is None:  # now, before the work
        shown = "\n".join(f"  {problem}" for problem in problems[:5])
        raise DataError(f"none of the {len(paths)} files of {data} can be read; the first ones:\n{shown}")
    batches = chain([[first]], iter(lambda: list(islice(images, _BATCH)), []))
    return (normalize(torch.stack(batch)) for batch in batches)
