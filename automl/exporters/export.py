"""`automl export`: writes a recipe or a trained network for other programs.

`yaml`, `json`, `python` and `timm` write a recipe as text, with what is known besides (`ExportSource`). `onnx` and
`torch` write a trained network, so they need a model folder.

To add a format: a module with a function that writes it, and a row in `FORMATS`. Such a function names the choices of a
recipe that it knows, and refuses others (`recipe.choices`).
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from automl.errors import AutomlError, WeightsError, check_name
from automl.exporters.source import Exported, ExportSource, find_source
from automl.files import explain_write_errors, write_text


def export(
    source: str | Path | None = None,
    *,
    format: str = "yaml",
    out: Path | None = None,
    runs: Path = Path("runs"),
    check_data: Path | None = None,
    weights_dir: Path | None = None,
) -> Exported:
    """Writes a recipe or a trained network in another format.

    Args:
        source: A model folder, a study's name or folder, or a recipe file; None: the latest study in `runs`. Of a
            study, `confirmed.yaml` is exported, or `best.yaml` while there is none.
        format: One of `FORMATS`.
        out: The file to write, atomically, whatever is there. None: text is returned, and a network is written into
            its model folder.
        runs: Holds the studies' folders.
        check_data: onnx, torch: a folder of images to compare on; None: noise.
        weights_dir: onnx, torch: as for `automl.load`.

    Returns:
        The text, or the file and how well it agrees with the PyTorch model.

    Raises:
        SpecError: If there is no such format.
        StudyError: If there is nothing of that name, or the study has no recipe yet.
        RecipeError: If the format does not know a choice of the recipe.
        WeightsError: If a network is wanted and this is no model folder; or as `export_onnx` says.
        AutomlError: If the file cannot be written, or an extra is not installed.
    """
    check_name("format", format, FORMATS)
    return FORMATS[format](find_source(source, runs, weights_dir), out, check_data)


def _export_recipe(
    write: Callable[[ExportSource], str], source: ExportSource, out: Path | None, check_data: Path | None
) -> Exported:
    """Writes a recipe as text."""
    if check_data is not None:
        raise AutomlError("--check-data compares networks, and this --format writes a recipe; leave it out")
    text = write(source)
    if out is not None:
        with explain_write_errors(out, AutomlError):
            write_text(out, text)
    return Exported(text=text, path=out)


def _export_network(
    function: str, name: str, source: ExportSource, out: Path | None, check_data: Path | None
) -> Exported:
    """Writes a network by a function of `exporters.graph`, into its model folder by default."""
    from automl.exporters import graph  # imports torch

    if source.model is None:
        raise WeightsError("this --format needs a trained model, and this is a recipe; give the folder of automl train")
    export: Callable[..., Exported] = getattr(graph, function)
    return export(source.model, out or source.model.path / name, check_data)


def _write_json(source: ExportSource) -> str:
    """Writes the recipe under `recipe`, and beside it `input` and `labels` where known; `Recipe.load` reads it."""
    known = {"input": source.find_input(), "labels": source.labels}
    document: dict[str, Any] = {"recipe": source.recipe.model_dump()}
    document |= {key: asdict(value) for key, value in known.items() if value is not None}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write_timm(source: ExportSource) -> str:
    """Writes the options of timm's train.py."""
    from automl.exporters.timm_config import timm_yaml

    return timm_yaml(source.recipe, source.labels, data_dir=source.data_dir, pretrained_path=source.weights)


def _write_python(source: ExportSource) -> str:
    """Writes a script, and above it what had to be assumed."""
    from automl.exporters.python_script import python_script

    labels = source.labels
    script = python_script(
        source.recipe,
        classes=labels.classes if labels else ("0", "1"),
        positive=labels.positive if labels else 1,
        real_class=labels.real_class if labels else None,
        decode_size=source.decode_size,
        samples=source.study.samples.absolute() if source.study else None,
        weights=source.weights,
    )
    return _write_comment(_list_assumptions(source)) + script


def _list_assumptions(source: ExportSource) -> list[str]:
    """Lists what a script holds without anything known of it, one line each."""
    if source.setup is not None:
        return []
    lines = ["the samples: give --samples with a table of the columns path, name, label, split"]
    labels, size = source.labels, source.decode_size
    if labels is None:
        lines.append(f"classes and decoded size: 0 and 1, 1 the positive one, and {size} px are placeholders")
    if source.recipe.augmentation.self_blend and (labels is None or labels.real_class is None):
        lines.append("the genuine class: no image is self-blended")
    if source.recipe.pretrained:
        lines.append("a file of the pretrained weights: timm takes them from the hub or its cache")
    return ["Not known where this recipe was exported from, so check it:", *(f"- {line}" for line in lines)]


def _write_comment(lines: list[str]) -> str:
    """Writes lines as comments."""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


FORMATS: dict[str, Callable[[ExportSource, Path | None, Path | None], Exported]] = {
    "yaml": partial(_export_recipe, lambda one: _write_comment(one.header.splitlines()) + one.recipe.to_yaml()),
    "json": partial(_export_recipe, _write_json),
    "python": partial(_export_recipe, _write_python),
    "timm": partial(_export_recipe, _write_timm),
    "onnx": partial(_export_network, "export_onnx", "model.onnx"),
    "torch": partial(_export_network, "export_torch", "model.pt2"),
}
"""What writes each format: a source, to the file `out` if there is one, compared on the images of `check_data`."""
