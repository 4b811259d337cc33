"""Trains many recipes for a short time each, and keeps every learning curve: the evidence for the known-good recipes.

    python studies/benchmarks/recipes/train_recipes.py --faces ffdi_faces/ --hymenoptera hymenoptera/ \
        --weights-dir weights/ --device cuda --jobs 16 --minutes 7 --out rows.jsonl

Each line of the result is one training with `automl.training.fit`: what was changed against the centre (a recipe known
to be good), the recipe's main values, and the metrics after each validation, on the holdout, and with flips. The list
is in order of interest, so that a run that is cut short by `--minutes` has the questions asked first answered; a run
goes on where the file ends. Curves are counted in epochs, which do not depend on the machine: what an epoch costs on a
machine is another measurement (`epoch_costs.py`), and `winners.py` joins the two.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

BACKBONES = ("mobilenetv2_100", "tf_efficientnet_lite0", "tf_efficientnet_lite2")
CENTRE: dict[str, Any] = {
    "backbone": BACKBONES[0],
    "image_size": 224,
    "augmentation": {"crop": {"name": "squash"}, "horizontal_flip": 0.5},
    "optimizer": {"name": "adamw"},
    "learning_rate": 2e-3,
    "layer_decay": 0.9,
    "weight_decay": 1e-3,
    "clip_norm": 1.0,
    "schedule": {"name": "cosine", "warmup": 0.1},
    "batch_size": 16,
    "epochs": 5,
}
QUICK: dict[str, Any] = {  # what `quick` was until issue 13
    "augmentation": {"crop": {"name": "native"}},
    "learning_rate": 1e-3,
    "layer_decay": 1.0,
    "weight_decay": 1e-2,
    "schedule": {"name": "one_cycle", "warmup": 0.3},
}
JITTER = {"name": "jitter", "probability": 0.8, "brightness": 0.2, "contrast": 0.2, "saturation": 0.1, "hue": 0.0}

Change = dict[str, Any]
"""Of the centre; a nested mapping."""


def _augmented(**values: Any) -> Change:
    return {"augmentation": values}


OPTIONS: dict[str, Change] = {
    "lr 5e-4": {"learning_rate": 5e-4},
    "lr 1e-3": {"learning_rate": 1e-3},
    "lr 4e-3": {"learning_rate": 4e-3},
    "lr 8e-3": {"learning_rate": 8e-3},
    "layer decay .8": {"layer_decay": 0.8},
    "layer decay 1": {"layer_decay": 1.0},
    "batch 8": {"batch_size": 8},
    "batch 8, lr 1e-3": {"batch_size": 8, "learning_rate": 1e-3},
    "batch 32": {"batch_size": 32},
    "batch 32, lr 4e-3": {"batch_size": 32, "learning_rate": 4e-3},
    "batch 64, lr 4e-3": {"batch_size": 64, "learning_rate": 4e-3},
    "native crop": _augmented(crop={"name": "native"}),
    "random crop .5": _augmented(crop={"name": "random_resized", "min_scale": 0.5, "max_aspect": 1.0}),
    "random crop .8": _augmented(crop={"name": "random_resized", "min_scale": 0.8, "max_aspect": 1.0}),
    "one-cycle .1": {"schedule": {"name": "one_cycle", "warmup": 0.1}},
    "one-cycle .3": {"schedule": {"name": "one_cycle", "warmup": 0.3}},
    "wsd .4": {"schedule": {"name": "wsd", "warmup": 0.05, "decay": 0.4}},
    "decay 1e-2": {"weight_decay": 1e-2},
    "decay 5e-2": {"weight_decay": 5e-2},
    "head × 3": {"head_lr_factor": 3.0},
    "head × 10": {"head_lr_factor": 10.0},
    "EMA .98": {"ema_decay": 0.98},
    "EMA .995": {"ema_decay": 0.995},
    "smoothing .1": {"loss": {"name": "cross_entropy", "smoothing": 0.1}},
    "focal": {"loss": {"name": "focal", "gamma": 2.0}},
    "mixup": {"mixing": {"name": "mixup", "alpha": 0.2, "probability": 0.5}},
    "cutmix": {"mixing": {"name": "cutmix", "alpha": 1.0, "probability": 0.5}},
    "JPEG .1": _augmented(jpeg=0.1),
    "JPEG .5": _augmented(jpeg=0.5),
    "jitter": _augmented(color=JITTER),
    "erasing": _augmented(erasing=0.25),
    "trivial": _augmented(policy={"name": "trivial"}),
    "rand": _augmented(policy={"name": "rand", "operations": 2, "magnitude": 9}),
    "drop path .1": {"drop_path": 0.1},
    "160 px": {"image_size": 160},
    "192 px": {"image_size": 192},
    "256 px": {"image_size": 256},
    "SGD .03": {"optimizer": {"name": "sgd"}, "learning_rate": 0.03, "weight_decay": 1e-4},
    "Lion 2e-4": {"optimizer": {"name": "lion"}, "learning_rate": 2e-4, "weight_decay": 1e-2},
    "NAdamW": {"optimizer": {"name": "nadamw"}},
    "beta2 .99": {"optimizer": {"name": "adamw", "beta2": 0.99}},
    "no clipping": {"clip_norm": 0.0},
    "frozen .5": {"freeze_epochs": 0.5},
}
"""One thing changed at a time."""

LONG = ("lr 1e-3", "lr 4e-3", "layer decay 1", "random crop .5", "EMA .995", "mixup", "JPEG .1", "jitter", "trivial")
LONG += ("erasing", "drop path .1", "decay 5e-2", "batch 32, lr 4e-3", "native crop", "256 px")
"""The options whose effect may change with the length of a run."""


def list_runs() -> Iterator[dict[str, Any]]:
    """Lists the runs in order of interest: what is trained on, how it is called, what is changed, which seed."""

    def run(label: str, change: Change, data: str = "faces", images: int = 0, seed: int = 0) -> dict[str, Any]:
        return {"data": data, "images": images, "label": label, "change": change, "seed": seed}

    for seed in (0, 1):
        for epochs in (5, 1, 2, 3, 8, 12, 20):
            yield run(f"centre, {epochs} epochs", {"epochs": epochs}, seed=seed)
        for epochs in (3, 8, 20):
            yield run(f"quick until 13, {epochs} epochs", QUICK | {"epochs": epochs}, seed=seed)
        for label, change in OPTIONS.items():
            yield run(label, change, seed=seed)
        for label in LONG:
            yield run(f"{label}, 12 epochs", OPTIONS[label] | {"epochs": 12}, seed=seed)
        for backbone in BACKBONES[1:]:
            for rate in (2e-3, 1e-3, 4e-3):
                for epochs in (2, 5, 12):
                    change = {"backbone": backbone, "learning_rate": rate, "epochs": epochs}
                    yield run(f"{backbone}, lr {rate:g}, {epochs} epochs", change, seed=seed)
            for label in ("layer decay 1", "random crop .8", "EMA .98", "drop path .1", "one-cycle .3"):
                yield run(f"{backbone}, {label}", OPTIONS[label] | {"backbone": backbone}, seed=seed)
        for data, images, lengths in (("faces", 200, (5, 12, 25)), ("hymenoptera", 0, (2, 5, 12))):
            for backbone in BACKBONES[:2]:
                for epochs in lengths:
                    change = {"backbone": backbone, "epochs": epochs}
                    yield run(f"{backbone}, {epochs} epochs", change, data, images, seed)
            for label in ("lr 5e-4", "lr 1e-3", "lr 4e-3", "layer decay 1", "random crop .5", "EMA .98", "jitter"):
                yield run(f"{label}, {lengths[1]} epochs", OPTIONS[label] | {"epochs": lengths[1]}, data, images, seed)
            quick = QUICK | {"epochs": lengths[1]}
            yield run(f"quick until 13, {lengths[1]} epochs", quick, data, images, seed)
    for number in range(1000):  # drawn at random from the shipped space: what samplers and pruners are replayed on
        yield run(f"random {number}", {"random": number}, seed=number)


def list_second_round() -> Iterator[dict[str, Any]]:
    """Lists what the first round left open: the rate at two lengths, and continuing a run instead of a longer one."""
    runs = []
    for seed in (0, 1):
        for epochs in (12, 4.5):
            for rate in (5e-4, 7e-4, 1e-3):
                runs.append((f"lr {rate:g}, {epochs:g} epochs", {"learning_rate": rate, "epochs": epochs}, seed))
            for scale in (0.5, 1.0) if epochs == 12 else ():
                change = {"learning_rate": 7e-4, "epochs": 12, "restarts": (4.5 / 12,), "restart_scale": scale}
                runs.append((f"4.5 epochs continued to 12, scale {scale:g}", change, seed))
        for rate in (7e-4, 1e-3, 2e-3):
            change = {"backbone": BACKBONES[1], "learning_rate": rate, "epochs": 6}
            runs.append((f"{BACKBONES[1]}, lr {rate:g}, 6 epochs", change, seed))
    for label, change, seed in runs:
        yield {"data": "faces", "images": 0, "label": f"round 2: {label}", "change": change, "seed": seed}


def make_values(change: Change) -> dict[str, Any]:
    """Makes the values of a recipe: the centre with a change, or drawn from the shipped space of images."""
    if "random" in change:
        import optuna

        from automl.space.space import load_space

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=change["random"]))
        values = load_space("image").suggest_recipe(study.ask(), backbones=len(BACKBONES), self_blend=False)
        return values | {"backbone": BACKBONES[values["backbone"]]}
    augmentation = CENTRE["augmentation"] | change.get("augmentation", {})
    return CENTRE | change | {"augmentation": augmentation}


class Trainer:
    """Trains runs in one process, on data that were decoded before."""

    def __init__(self, folders: dict[str, Path], weights_dir: Path, device: str, precision: str) -> None:
        import torch

        torch.set_num_threads(1 if device != "cpu" else 2)
        self.folders, self.weights_dir, self.device, self.precision = folders, weights_dir, device, precision
        self.open: dict[tuple[str, int], Any] = {}

    def open_data(self, name: str, images: int) -> Any:
        """Opens a data set, or so many of its training images; its validation and holdout are the whole one's."""
        from automl.data.cache import build_cache
        from automl.data.dataset import open_dataset
        from automl.data.loader import ImageData
        from automl.spec import DataSpec

        if (name, images) not in self.open:
            dataset = open_dataset(DataSpec(path=self.folders[name]), seed=0)
            cache = build_cache(dataset, 256)
            if images:
                train = dataset.samples[dataset.samples["split"] == "train"]
                kept = train.groupby("label").sample(images // len(dataset.classes), random_state=0).index
                samples = dataset.samples.copy()
                samples.loc[train.index.difference(kept), "split"] = "unused"
                dataset = replace(dataset, samples=samples)
            self.open[name, images] = ImageData(dataset, cache)
        return self.open[name, images]

    def __call__(self, run: dict[str, Any]) -> dict[str, Any]:
        """Trains one run; returns it with its curve."""
        from automl.backbones.weights import Weights
        from automl.recipe import Numerics, Recipe
        from automl.training import schedule
        from automl.training.evaluation import split_probabilities
        from automl.training.fit import fit
        from automl.training.metrics import all_metrics

        data = self.open_data(run["data"], run["images"])
        schedule.RESTART_SCALE = run["change"].pop("restart_scale", 0.5)
        numerics = Numerics(precision=self.precision, memory_format="channels_last")
        recipe = Recipe.from_mapping(make_values(run["change"]) | {"seed": run["seed"], "numerics": numerics})
        weights = Weights("file", self.weights_dir / f"{recipe.backbone}.safetensors")
        started = time.perf_counter()
        try:
            result = fit(recipe, data, weights=weights, device=self.device)
        except Exception as exc:
            return run | {"error": f"{type(exc).__name__}: {exc}"[:200]}
        seconds = time.perf_counter() - started
        metric = "auc" if "auc" in result.history[-1].metrics else "accuracy"

        def score(split: str) -> float:
            args = result.model, recipe, data, split, result.preprocessing, self.device
            return float(all_metrics(data.labels(split), split_probabilities(*args), data.positive)[metric])

        holdout = score("holdout")
        result.model.register_forward_pre_hook(lambda _, inputs: (inputs[0].flip(-1),))
        args = result.model, recipe, data, "validation", result.preprocessing, self.device
        flipped = (split_probabilities(*args) + result.probabilities) / 2
        curve = [
            {"epoch": round(e.epoch, 3), "loss": round(e.train_loss, 4), "nll": round(e.metrics.get("log_loss", 0), 4)}
            | {"metric": round(e.metrics[metric], 5)}
            for e in result.history
        ]
        return run | {
            "recipe": make_values(run["change"]),
            "metric": metric,
            "curve": curve,
            "final": curve[-1]["metric"],
            "holdout": round(holdout, 5),
            "flips": round(float(all_metrics(data.labels("validation"), flipped, data.positive)[metric]), 5),
            "seconds": round(seconds, 1),
        }


_trainer: Trainer


def _start(*args: Any) -> None:
    global _trainer
    _trainer = Trainer(*args)


def _train(run: dict[str, Any]) -> dict[str, Any]:
    return _trainer(run)


def main() -> None:
    """Trains what is not in the file yet, until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--hymenoptera", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--round", type=int, default=1, choices=(1, 2))
    parser.add_argument("--out", type=Path, default=Path("rows.jsonl"))
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    folders = {"faces": args.faces, "hymenoptera": args.hymenoptera}
    trainer_args = folders, args.weights_dir, args.device, args.precision
    first = Trainer(*trainer_args)
    for name in folders:
        first.open_data(name, 0)  # decoded once, before the processes start
    done = set()
    if args.out.exists():
        for line in args.out.read_text().splitlines():
            row = json.loads(line)
            done.add((row["data"], row["images"], row["label"], row["seed"]))
    listed = list_runs() if args.round == 1 else list_second_round()
    runs = [r for r in listed if (r["data"], r["images"], r["label"], r["seed"]) not in done]
    context = multiprocessing.get_context("spawn")
    finished = 0
    with args.out.open("a") as file, context.Pool(args.jobs, _start, trainer_args) as pool:
        pending = pool.imap_unordered(_train, runs)
        while (left := deadline - time.monotonic()) > 0:
            try:
                row = pending.next(timeout=left)
            except StopIteration:
                break
            except multiprocessing.TimeoutError:
                break
            file.write(json.dumps(row) + "\n")
            file.flush()
            finished += 1
            print(row["data"], row["images"], row["label"], row["seed"], row.get("final", row.get("error")), flush=True)
        pool.terminate()
    print(f"{finished} trainings in {args.minutes:g} minutes with {args.jobs} processes of {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
