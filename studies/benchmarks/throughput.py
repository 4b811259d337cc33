"""Training throughput of `automl.training.fit` against a bare PyTorch loop that does the same work.

    python studies/benchmarks/throughput.py --backbone mobilenetv2_100 --image-size 160 --steps 40

Both train the same network from the same random weights on the same batches out of automl's decode-once cache, with
the same optimizer, one-cycle schedule, loss, gradient clipping, precision and memory format; each round trains one
after the other, each in a fresh process, the order turning every round. The bare loop is what one writes by hand with
torch and timm; that both end with the same mean loss shows that it is the same work.

Two times are compared, both without validation:

- `loop`: wall clock from step to step, with loading and augmenting the batches, after the first steps: what a user
  waits for;
- `step`: all training steps alone (`Evaluation.train_seconds` in fit), without waiting for a batch.

With `--plain`, `fit` runs as in a search's worker, whose process keeps the memory it frees
(`automl.devices.keep_freed_memory`), and the bare loop in a process as Python starts it: what a search is worth to
somebody who writes the loop.

Checkpoints and reports, which the bare loop does not have, are left out here; `overhead.py` counts them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automl.recipe import Recipe
    from automl.training.types import Data

__all__ = ["Measured", "compare", "main", "measure_bare", "measure_fit"]

_WAYS = ("fit", "bare")


@dataclass(frozen=True)
class Measured:
    """What one training gave."""

    loop_images_per_second: float
    step_images_per_second: float
    mean_loss: float
    """Over all steps, warm-up included."""


# --- the two ways -------------------------------------------------------------------------------------------------


def measure_fit(recipe: "Recipe", data: "Data", device: str, warmup_steps: int) -> Measured:
    """Trains with `fit`, looking at the clock in its callbacks."""
    from automl.training.fit import fit, total_steps
    from automl.training.types import Evaluation

    batch, total = data.batch_size(recipe), total_steps(recipe, data)
    loop_seconds, timed_steps = 0.0, 0
    before = 0.0
    evaluations: list[Evaluation] = []

    def on_step(done: int, _total: int) -> None:
        nonlocal before, loop_seconds, timed_steps
        if done in (warmup_steps, total):
            _wait(device)
        now = time.perf_counter()
        if done > warmup_steps:
            loop_seconds += now - before
            timed_steps += 1
        before = now

    def on_evaluation(evaluation: Evaluation) -> None:
        nonlocal before
        evaluations.append(evaluation)
        before = time.perf_counter()  # the next step begins here: the validation is not the loop's

    fit(recipe, data, device=device, on_step=on_step, on_evaluation=on_evaluation)
    steps = [evaluations[0].step, *(b.step - a.step for a, b in pairwise(evaluations))]
    losses = [evaluation.train_loss for evaluation in evaluations]
    return Measured(
        timed_steps * batch / loop_seconds,
        total * batch / evaluations[-1].train_seconds,
        sum(n * loss for n, loss in zip(steps, losses, strict=True)) / total,
    )


def measure_bare(recipe: "Recipe", data: "Data", device: str, warmup_steps: int) -> Measured:
    """Trains the same recipe with torch and timm alone."""
    import timm
    import torch
    from timm.optim import param_groups_weight_decay
    from torch import nn

    from automl.backbones.weights import make_model
    from automl.training.fit import total_steps

    torch.manual_seed(recipe.seed)
    precision = recipe.numerics.precision
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    channels_last = recipe.numerics.memory_format == "channels_last"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = make_model(recipe, data.classes).to(device).to(memory_format=layout).train()
    cfg = timm.data.resolve_model_data_config(model)
    mean, std = (255 * torch.tensor(cfg[name], device=device).view(3, 1, 1) for name in ("mean", "std"))
    groups = param_groups_weight_decay(model, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    total, batch = total_steps(recipe, data), data.batch_size(recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=total, pct_start=recipe.schedule.warmup, cycle_momentum=False
    )
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=precision == "fp16")
    loss_sum = torch.zeros((), device=device)
    step_seconds, began = 0.0, 0.0
    for step, (images, labels) in enumerate(data.train_batches(recipe, cfg["interpolation"], 0, total)):
        started = time.perf_counter()
        pixels = images.to(device, non_blocking=True).float()
        pixels = pixels.sub_(mean).div_(std).contiguous(memory_format=layout)
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
            logits = model(pixels)
        loss = nn.functional.cross_entropy(logits.float(), labels.to(device, non_blocking=True))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        loss_sum += loss.detach()
        if step + 1 in (warmup_steps, total):
            _wait(device)
        now = time.perf_counter()
        step_seconds += now - started
        if step + 1 == warmup_steps:
            began = now
    loop_seconds = time.perf_counter() - began
    return Measured(
        (total - warmup_steps) * batch / loop_seconds, total * batch / step_seconds, float(loss_sum) / total
    )


def _wait(device: str) -> None:
    """A GPU works behind the program's back; here the clock waits for it."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)


# --- comparing ----------------------------------------------------------------------------------------------------


def compare(rounds: list[dict[str, Measured]]) -> Iterator[str]:
    """Tells what was found: medians, spread, and the ratio fit / bare, one line each.

    The ratio is the median over rounds of the two trainings of one round, which stand next to each other in time: a
    machine that is slower for a while does not decide.
    """
    for kind, what in (("loop", "with loading"), ("step", "steps alone")):
        found = {way: [getattr(r[way], f"{kind}_images_per_second") for r in rounds] for way in _WAYS}
        for way, values in found.items():
            yield (
                f"{kind}  {way:5} {statistics.median(values):7.1f} images/s"
                f"  ({min(values):.1f} … {max(values):.1f} in {len(values)} rounds; {what})"
            )
        ratios = sorted(fit / bare for fit, bare in zip(*found.values(), strict=True))
        yield (
            f"{kind}  fit / bare {statistics.median(ratios):.3f}"
            f"  ({ratios[0]:.3f} … {ratios[-1]:.3f}; aim: at least 0.97)"
        )
    last = rounds[-1]
    yield f"mean loss: fit {last['fit'].mean_loss:.5f}, bare {last['bare'].mean_loss:.5f} (equal: the same work)"


def _train(args: argparse.Namespace) -> Measured:
    """One training in this process."""
    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.data.loader import ImageData
    from automl.devices import keep_freed_memory
    from automl.recipe import Numerics
    from automl.spec import DataSpec

    if args.device == "cpu" and not (args.plain and args.way == "bare"):
        keep_freed_memory()  # as a search's worker does
    dataset = open_dataset(DataSpec(path=args.data), 0)
    data = ImageData(dataset, build_cache(dataset, 256), loaders=0 if args.device == "cpu" else 4)
    recipe = _recipe(args)
    numerics = Numerics(precision=args.precision, memory_format=args.memory_format)
    epochs = args.steps / data.steps_per_epoch(recipe)
    recipe = recipe.model_copy(update={"epochs": epochs, "numerics": numerics})
    measure = measure_fit if args.way == "fit" else measure_bare
    return measure(recipe, data, args.device, args.warmup_steps)


def _recipe(args: argparse.Namespace) -> "Recipe":
    """The one-cycle AdamW recipe that studies begin with."""
    from automl.recipe import Recipe

    values: dict[str, Any] = {"backbone": args.backbone, "pretrained": False, "image_size": args.image_size}
    return Recipe.from_mapping(values | {"batch_size": args.batch_size, "clip_norm": 1.0})


def _numerics(args: argparse.Namespace) -> list[str]:
    """As flags: what was asked for, else what a study would take."""
    precision, memory_format = args.precision, args.memory_format
    if precision is None or memory_format is None:
        from automl.devices import keep_freed_memory
        from automl.training.precision import best_numerics

        if args.device == "cpu":
            keep_freed_memory()
        timing = best_numerics(_recipe(args), 2, args.device)
        precision, memory_format = precision or timing.precision, memory_format or timing.memory_format
    return ["--precision", precision, "--memory-format", memory_format]


def _parser() -> argparse.ArgumentParser:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of one training (default 40)")
    parser.add_argument("--warmup-steps", type=int, default=5, help="first steps the loop's clock leaves out")
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each kind (default 5)")
    parser.add_argument("--data", type=Path, help="folder or label file (default: the demo)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="default: the fastest")
    parser.add_argument("--memory-format", choices=["contiguous", "channels_last"], help="default: the fastest")
    parser.add_argument("--plain", action="store_true", help="the bare loop's process is left as Python starts it")
    parser.add_argument("--way", choices=_WAYS, help=argparse.SUPPRESS)  # what a child process is told
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Trains in turn, each time in a fresh process, and prints the comparison."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    args = parser.parse_args(arguments)
    if not 0 < args.warmup_steps < args.steps:
        parser.error(f"--warmup-steps must be between 0 and --steps, got {args.warmup_steps} of {args.steps}")
    if args.way:
        print(json.dumps(asdict(_train(args))))
        return
    numerics = _numerics(args)
    print(f"{args.backbone} {args.image_size} px, batch {args.batch_size}, {args.device}, {' '.join(numerics[1::2])}")
    rounds: list[dict[str, Measured]] = []
    for number in range(args.rounds):
        found = {}
        for way in _WAYS if number % 2 == 0 else _WAYS[::-1]:
            command = [sys.executable, __file__, *arguments, *numerics, "--way", way]
            output = subprocess.check_output(command, text=True)
            found[way] = Measured(**json.loads(output.splitlines()[-1]))
        rounds.append(found)
        speeds = ", ".join(f"{way} {found[way].loop_images_per_second:.1f}" for way in _WAYS)
        print(f"round {number + 1}: {speeds} images/s", flush=True)
    print("\n".join(compare(rounds)))


if __name__ == "__main__":
    main()
