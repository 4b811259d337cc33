"""Whether every architecture's exports are accepted: timm's train.py, and the script.

    python studies/leaderboard/exports.py [--train-py FILE] [--jobs N] [--out FILE] [NAME …]

A recipe that asks for everything (drop path, gradient checkpointing, layer decay) is written for each architecture of
the leaderboard. Its YAML is read as train.py reads it, and the network is built, scaled and run as train.py does that,
on tensors without data; the script is compiled, and its own network built. `--train-py` takes the defaults of options
from a real train.py (it is in timm's repository, in neither its wheel nor its sdist); else those that build a network
are here.
"""

import argparse
import csv
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

DEFAULTS = {
    **dict.fromkeys(("drop_block", "gp", "bn_momentum", "bn_eps", "drop_path", "head_init_scale", "head_init_bias")),
    **{"drop": 0.0, "torchscript": False, "grad_checkpointing": False, "model_kwargs": {}},
}
"""Options of timm 1.0's train.py that decide about the network, as they are when the YAML does not say."""

COLUMNS = ("arch", "image_size", "timm", "python", "why")
REASON_CHARACTERS = 200


def check(arch: str, defaults: dict[str, Any]) -> dict[str, str | int]:
    """Exports a recipe of an architecture and tries what was written; a row of the table."""
    from automl.backbones.capabilities import find_capabilities
    from automl.recipe import Numerics, Recipe

    able = find_capabilities(arch)
    size = min(able.runs, key=lambda size: (abs(size - 160), size))
    recipe = Recipe(
        backbone=arch,
        image_size=size,
        drop_path=0.2,
        pretrained=False,
        layer_decay=0.9,
        numerics=Numerics(grad_checkpointing=True),
    )
    row: dict[str, str | int] = {"arch": arch, "image_size": size}
    reasons = []
    for name, attempt in (("timm", _try_timm), ("python", _try_python)):
        try:
            attempt(recipe, defaults)
            row[name] = "yes"
        except (Exception, SystemExit) as exc:  # a model's code may raise anything
            row[name] = "no"
            reasons.append(f"{name}: {type(exc).__name__}: {' '.join(str(exc).split())[:REASON_CHARACTERS]}")
    return row | {"why": "; ".join(reasons)}


def _try_timm(recipe: Any, defaults: dict[str, Any]) -> None:
    """Builds, scales and runs the network as train.py does."""
    import timm
    import torch
    import yaml

    from automl.backbones.examine import run_on_meta
    from automl.backbones.timm_model import SkipInitialisation
    from automl.exporters.timm_config import timm_yaml
    from automl.models.folder import Labels

    wanted = yaml.safe_load(timm_yaml(recipe, Labels(("real", "fake"), 1, (0.5, 0.5))))
    args = SimpleNamespace(**(defaults | wanted))
    with torch.device("meta"), SkipInitialisation():
        model = timm.create_model(
            args.model,
            pretrained=False,
            in_chans=3,
            num_classes=args.num_classes,
            drop_rate=args.drop,
            drop_path_rate=args.drop_path,
            drop_block_rate=args.drop_block,
            global_pool=args.gp,
            bn_momentum=args.bn_momentum,
            bn_eps=args.bn_eps,
            scriptable=args.torchscript,
            **args.model_kwargs,
        )
    if args.head_init_scale is not None:
        with torch.no_grad():
            model.get_classifier().weight.mul_(args.head_init_scale)
            model.get_classifier().bias.mul_(args.head_init_scale)
    if args.grad_checkpointing:
        model.set_grad_checkpointing(enable=True)
    run_on_meta(model, recipe.image_size)


def _try_python(recipe: Any, _: dict[str, Any]) -> None:
    """Compiles the script, and builds its network."""
    import torch

    from automl.backbones.timm_model import SkipInitialisation
    from automl.exporters.python_script import python_script

    nothing: dict[str, Any] = dict.fromkeys(("real_class", "samples", "weights"))
    text = python_script(recipe, classes=("a", "b"), positive=1, decode_size=recipe.image_size, **nothing)
    script: dict[str, Any] = {"__name__": "script"}
    exec(compile(text, recipe.backbone, "exec"), script)  # noqa: S102 - our own
    with torch.device("meta"), SkipInitialisation():
        script["make_model"](None)


def read_defaults(train_py: Path) -> dict[str, Any]:
    """Reads the options of a real train.py as they are without arguments."""
    spec = importlib.util.spec_from_file_location("timm_train", train_py)
    if spec is None or spec.loader is None:
        sys.exit(f"{train_py} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module.parser.parse_args([]))


def _check(key: tuple[str, str]) -> dict[str, str | int]:
    arch, train_py = key
    return check(arch, read_defaults(Path(train_py)) if train_py else DEFAULTS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Checks the architectures named, or all, and writes the table."""
    from automl.backbones.table import load_table
    from automl.files import write_text
    from automl.processes import map_in_processes

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: every architecture of the leaderboard")
    parser.add_argument("--train-py", type=Path, help="timm's own train.py")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("exports.csv"))
    given = parser.parse_args(arguments)
    names = given.names or sorted({name.partition(".")[0] for name in load_table()["model"]})
    rows = []
    for _, row in map_in_processes(_check, [(name, str(given.train_py or "")) for name in names], given.jobs):
        rows.append(row)
        if len(rows) % 50 == 0 or row["why"]:
            print(f"{len(rows)} of {len(names)} {row['arch']}: {row['why'] or 'accepted'}", file=sys.stderr, flush=True)
    lines = [",".join(COLUMNS)]
    lines += [_line(row) for row in sorted(rows, key=lambda row: str(row["arch"]))]
    write_text(given.out, "\n".join(lines) + "\n")
    print(f"{given.out}: {len(rows)} architectures, {sum(bool(row['why']) for row in rows)} with an export refused")


def _line(row: dict[str, str | int]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([row[name] for name in COLUMNS])
    return text.getvalue()


if __name__ == "__main__":
    main()
