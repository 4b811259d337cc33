"""Best validation AUC over time: a plain Optuna script, and automl, on the same data, networks and cores.

    python studies/benchmarks/peers.py --data ffdi/ --weights-dir weights/ --minutes 40
    python studies/benchmarks/peers.py --data ffdi/ --weights-dir weights/ --minutes 40 --who automl

The first is what someone would write for a competition without automl, and nothing of automl is imported for it: TPE,
a median pruner fed once an epoch, a torchvision data set and transforms, timm networks. The second is `automl search`
with its defaults. Both print the best validation AUC of all validations of all trials so far, at 5, 10, 15, 20 and
40 minutes since the script began, start-up included.

The data are in the FFDI layout (`trainset/`, `trainset_label.txt`, `valset/`, `valset_label.txt`), two classes. The
plain script trains on the whole training set, automl on nine tenths of it: its holdout is set aside.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    import torch

__all__ = ["Watcher", "best_at", "main"]

Found = list[tuple[float, float]]
"""(seconds since the start, AUC)"""

BACKBONES = ("mobilenetv2_100", "tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
MINUTES = (5, 10, 15, 20, 40)


# --- the plain script ---------------------------------------------------------------------------------------------


def read_labels(root: Path, split: str) -> list[tuple[str, int]]:
    """(path, label) pairs of `trainset` or `valset`."""
    with (root / f"{split}_label.txt").open(newline="", encoding="utf-8") as file:
        return [(str(root / split / row["img_name"]), int(row["target"])) for row in csv.DictReader(file)]


class Images:
    """A map-style data set of image files, as torchvision reads them."""

    def __init__(self, rows: list[tuple[str, int]], transform: Any) -> None:
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> "tuple[torch.Tensor, int]":
        from torchvision.datasets.folder import default_loader

        path, label = self.rows[index]
        return self.transform(default_loader(path)), label


def loaders(trial: "optuna.Trial", args: argparse.Namespace, model: Any) -> "tuple[Any, Any]":
    """Training and validation batches, float images normalised for the network."""
    import timm
    import torch
    from torchvision.transforms import v2

    size = trial.suggest_categorical("image_size", [128, 160, 192, 224])
    cfg = timm.data.resolve_model_data_config(model)
    normalise = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(cfg["mean"], cfg["std"])]
    crops = {"resize": v2.Resize((size, size)), "random": v2.RandomResizedCrop(size, scale=(0.5, 1.0))}
    train = [crops[trial.suggest_categorical("crop", list(crops))], v2.RandomHorizontalFlip()]
    if trial.suggest_categorical("policy", ["none", "rand"]) == "rand":
        train.append(v2.RandAugment())

    batch = trial.suggest_categorical("batch_size", [16, 32, 64])
    common = {"batch_size": batch, "num_workers": args.loaders}
    training = Images(read_labels(args.data, "trainset"), v2.Compose([*train, *normalise]))
    validation = Images(read_labels(args.data, "valset"), v2.Compose([v2.Resize((size, size)), *normalise]))
    return (
        torch.utils.data.DataLoader(training, shuffle=True, drop_last=True, **common),
        torch.utils.data.DataLoader(validation, **common),
    )


def validate(model: Any, batches: Any, device: str) -> float:
    """AUC on the validation set."""
    import torch
    from sklearn.metrics import roc_auc_score

    model.eval()
    labels, scores = [], []
    with torch.inference_mode():
        for images, targets in batches:
            scores += model(images.to(device)).softmax(1)[:, 1].tolist()
            labels += targets.tolist()
    return float(roc_auc_score(labels, scores))


def train(trial: "optuna.Trial", args: argparse.Namespace, found: Found) -> float:
    """One trial; appends (seconds since the start, AUC) of every epoch to `found`."""
    import optuna
    import timm
    import torch

    name = trial.suggest_categorical("backbone", BACKBONES)
    weights = {"file": str(args.weights_dir / f"{name}.safetensors")}
    model = timm.create_model(name, pretrained=True, num_classes=2, pretrained_cfg_overlay=weights).to(args.device)
    training, validation = loaders(trial, args, model)
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    decay = trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True)
    if trial.suggest_categorical("optimizer", ["adamw", "sgd"]) == "adamw":
        optimizer: Any = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9, weight_decay=decay, nesterov=True)
    epochs = trial.suggest_int("epochs", 2, 8)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * len(training))
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=trial.suggest_float("smoothing", 0.0, 0.2))
    auc = 0.5
    for epoch in range(epochs):
        model.train()
        for images, labels in training:
            if time.monotonic() > args.deadline:
                trial.study.stop()
                raise optuna.TrialPruned("out of time")
            loss = criterion(model(images.to(args.device)), labels.to(args.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        auc = validate(model, validation, args.device)
        seconds = time.monotonic() - args.began
        found.append((seconds, auc))
        print(f"{seconds / 60:5.1f} min  trial {trial.number}  {name}  epoch {epoch + 1}/{epochs}  AUC {auc:.4f}")
        trial.report(auc, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return auc


def plain(args: argparse.Namespace, found: Found) -> int:
    """Searches until the time is up; returns the number of trials."""
    import optuna

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=args.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    study.optimize(lambda trial: train(trial, args, found), timeout=60 * args.minutes)
    return len(study.trials)


# --- automl -------------------------------------------------------------------------------------------------------


class Watcher:
    """A reporter that looks into the study every two seconds and notes the best AUC."""

    def __init__(self, began: float, found: Found) -> None:
        self.began, self.found, self._looked = began, found, 0.0

    def print_line(self, line: str) -> None:
        """Prints the line with the time."""
        print(f"{(time.monotonic() - self.began) / 60:5.1f} min  {line}", flush=True)

    def bar(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Draws nothing."""
        self.print_line(what)
        return nullcontext(lambda _done, _total: None)

    def tick(self, result: Any, deadline: float | None, stopping: bool) -> None:  # noqa: ARG002
        """Looks, if the last look is long enough ago."""
        now = time.monotonic()
        if now - self._looked < 2:
            return
        self._looked = now
        trials = result.study.get_trials(deepcopy=False)
        best = max((value for trial in trials for value in trial.intermediate_values.values()), default=None)
        if best is not None and (not self.found or best > self.found[-1][1]):
            self.found.append((now - self.began, best))
            self.print_line(f"AUC {best:.4f}")


def automl_search(args: argparse.Namespace, found: Found) -> int:
    """Searches with automl's defaults; returns the number of trials."""
    from automl.study.search import search

    watcher = Watcher(args.began, found)
    with tempfile.TemporaryDirectory(prefix="automl-peers-") as folder:
        result = search(
            args.data,
            gpu_mem="16GB",
            trials=args.trials,
            timeout=60 * args.minutes,
            confirm=0,
            runs=folder,
            reporter=watcher,
            weights_dir=args.weights_dir,
            metric="auc",
            seed=args.seed,
            device=args.device,
        )
        return len(result.trials)


# --- both ---------------------------------------------------------------------------------------------------------


def best_at(found: Found, minutes: tuple[int, ...] = MINUTES) -> Iterator[tuple[int, float | None]]:
    """The best AUC until each number of minutes; None where there was none yet."""
    for minute in minutes:
        yield minute, max((auc for seconds, auc in found if seconds <= 60 * minute), default=None)


def _parser() -> argparse.ArgumentParser:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder in the FFDI layout")
    parser.add_argument("--weights-dir", type=Path, required=True, help="folder of safetensors files")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--who", choices=["optuna", "automl"], default="optuna")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--trials", type=int, default=30, help="automl's trials at most (default 30)")
    parser.add_argument("--loaders", type=int, default=2, help="processes that load the plain script's images")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Searches until the time is up and prints the best AUC over time."""
    args = _parser().parse_args(arguments)
    args.began = time.monotonic()
    args.deadline = args.began + 60 * args.minutes
    found: Found = []
    trials = (automl_search if args.who == "automl" else plain)(args, found)
    print(f"\n{args.who}: {trials} trials")
    for minute, auc in best_at(found, tuple(m for m in MINUTES if m <= args.minutes)):
        print(f"best AUC at {minute:2d} min: {'–' if auc is None else f'{auc:.3f}'}")


if __name__ == "__main__":
    main()
