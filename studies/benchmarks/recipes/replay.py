"""Replays samplers on what `trainings.jsonl` says, in minutes instead of weeks.

    python studies/benchmarks/recipes/replay.py --seeds 30

A recipe of the shipped space gets the metric that the table's one-at-a-time effects add up to: the rate (layer decay
and optimizer are factors of it), length, crop, policy, mixing, masks, size, network; what was not measured has no
effect but for the assumptions that are marked below. A trial costs its epochs times its pixels times its network; one
that is far behind costs a quarter, as the pruner ends it. Compared is what the best observed trial is worth without
noise when so much was spent, in units of twelve epochs of mobilenetv2_100 at 224 px. It is a model: it ranks samplers
on a landscape of the measured shape, and predicts nothing of a real search.
"""

import argparse
import statistics
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna

from automl.space.space import load_space
from automl.spec import StudySpec
from automl.study.samplers import make_sampler

UNITS = (1.0, 2.0, 4.0, 8.0, 16.0)
NOISE = 0.006
COSTS = (1.8, 1.3, 1.0, 2.0)
"""Of a step of the pool's networks, best score first, by timing: lite1, lite0, mobilenetv2_100, lite2."""
QUALITY = (0.0, 0.004, 0.0, 0.005)

# log10 of the rate at layer decay .9 and batch 16, after 5 epochs; the ends are assumed
RATES = (-5.0, -4.0, -3.3, -3.0, -2.7, -2.4, -2.1, -1.5)
AT_RATE = (0.75, 0.93, 0.967, 0.966, 0.956, 0.924, 0.669, 0.5)
DECAY = {0.75: 0.45, 0.9: 1.0, 1.0: 2.5}
OPTIMIZER = {
    "sgd": (1 / 15, -0.015),
    "adam": (1.0, 0.0),
    "adamw": (1.0, 0.0),
    "nadamw": (1.0, 0.004),
    "lion": (10, 0.006),
}
EPOCHS, AT_EPOCHS = (1, 2, 3, 5, 8, 12, 20), (-0.11, -0.045, -0.016, 0.0, 0.008, 0.014, 0.015)
SIZES = {128: -0.03, 160: -0.012, 192: -0.009, 224: 0.0, 256: 0.006}
POLICIES = {"none": 0.0, "trivial": -0.047, "rand": -0.021, "auto": -0.03, "augmix": -0.02}  # the last two assumed
MIXING = {"none": 0.0, "mixup": 0.004, "cutmix": 0.011}
SCHEDULES = {"cosine": 0.0, "one_cycle": -0.005, "wsd": -0.01, "step": -0.01}  # the last one assumed


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    args = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore")
    print(" " * 32, "  ".join(f"{f'{unit:g} units':14}" for unit in UNITS))
    for name, known in (
        ("random", True),
        ("qmc", True),
        ("gp", True),
        ("tpe", True),
        ("random", False),
        ("tpe", False),
    ):
        curves = [replay(name, seed, known=known) for seed in range(args.seeds)]
        means = [statistics.mean(column) for column in zip(*curves, strict=True)]
        errors = [statistics.stdev(column) / len(column) ** 0.5 for column in zip(*curves, strict=True)]
        label = f"{name}{'' if known else ', no known-good recipes'}"
        cells = "  ".join(f"{mean:.4f} ±{error:.4f}" for mean, error in zip(means, errors, strict=True))
        print(f"{label:32} {cells}", flush=True)


def replay(sampler: str, seed: int, *, known: bool) -> list[float]:
    """Replays one search; returns the best trial's worth at each of `UNITS`."""
    space, study = load_space("image"), optuna.create_study(direction="maximize")
    spec = StudySpec.from_mapping({"sampler": sampler, "seed": seed, "budget": {"trials": 60}})
    random = np.random.default_rng(seed)
    enqueued = space.find_known_good_params({"best": 0, "fastest": 2, "affordable": 1}) if known else []
    for params in enqueued:
        study.enqueue_trial(params)
    spent, best, worth, curve = 0.0, 0.0, 0.5, list[float]()
    number = 0
    while len(curve) < len(UNITS):
        study.sampler = make_sampler(spec, number, len(enqueued))
        trial = study.ask()
        recipe = space.suggest_recipe(trial, backbones=4, self_blend=False)
        true = judge(recipe)
        seen = true + random.normal(0, NOISE)
        cost = recipe["epochs"] / 12 * (recipe["image_size"] / 224) ** 2 * COSTS[recipe["backbone"]]
        spent += cost if seen > best - 0.03 else cost / 4
        while len(curve) < len(UNITS) and spent > UNITS[len(curve)]:
            curve.append(worth)
        study.tell(trial, seen)
        if seen > best:
            best, worth = seen, true
        number += 1
    return curve


def judge(recipe: dict[str, Any]) -> float:
    """Adds the effects of a recipe up."""
    factor, bonus = OPTIMIZER[recipe["optimizer"]["name"]]
    rate = recipe["learning_rate"] * factor * DECAY[recipe["layer_decay"]] * (16 / recipe["batch_size"]) ** 0.5
    metric = float(np.interp(np.log10(rate), RATES, AT_RATE)) + bonus
    epochs = recipe["epochs"]
    metric += float(np.interp(np.log(epochs), np.log(EPOCHS), AT_EPOCHS))
    a, short = recipe["augmentation"], min(1.0, (5 / epochs) ** 0.5)
    metric += short * POLICIES[a["policy"]["name"]]
    if a["crop"]["name"] == "native":
        metric -= 0.0085 * short
    if a["crop"]["name"] == "random_resized":
        metric -= 0.021 * (1 - a["crop"]["min_scale"]) / 0.5 * short
    metric -= 0.016 * a["jpeg"] + 0.036 * a["erasing"] * short + 0.12 * recipe["drop_path"] * short
    metric += SIZES[recipe["image_size"]] + MIXING[recipe["mixing"]["name"]] + SCHEDULES[recipe["schedule"]["name"]]
    metric += 0.005 * (recipe["ema_decay"] > 0) + 0.007 * (recipe["loss"]["name"] == "focal")
    metric -= 0.022 * (recipe["head_lr_factor"] == 10)
    return min(0.99, max(0.5, metric + QUALITY[recipe["backbone"]]))


if __name__ == "__main__":
    main()
