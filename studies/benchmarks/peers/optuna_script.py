"""A plain Optuna script, as a good engineer writes one in an hour for a competition; nothing of automl is imported.

TPE, a median pruner fed once an epoch, torchvision data sets and transforms, timm networks, one-cycle learning rates.
`compare.py` starts it. It prints `SCORE <AUC>` after every validation, and `HOLDOUT <AUC>` of the best weights at the
end. The tables have the columns path and label (0 or 1).
"""

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import timm
import torch
from sklearn.metrics import roc_auc_score
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2


class Images:
    """A map-style data set of image files, as torchvision reads them."""

    def __init__(self, table: Path, transform: Any) -> None:
        rows = pd.read_csv(table)
        self.rows = list(zip(rows["path"], rows["label"], strict=True))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.rows[index]
        return self.transform(default_loader(path)), int(label)


def score(model: Any, table: Path, size: int, args: argparse.Namespace) -> float:
    """Computes the AUC on a table's images."""
    batches = torch.utils.data.DataLoader(
        Images(table, v2.Compose([v2.Resize((size, size)), *normalise(model)])), batch_size=32, num_workers=args.loaders
    )
    model.eval()
    labels, scores = [], []
    with torch.inference_mode():
        for images, targets in batches:
            scores += model(images).softmax(1)[:, 1].tolist()
            labels += targets.tolist()
    return float(roc_auc_score(labels, scores))


def normalise(model: Any) -> list[Any]:
    """Returns the transforms from an image to the network's input."""
    cfg = timm.data.resolve_model_data_config(model)
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(cfg["mean"], cfg["std"])]


class Objective:
    """Trains one trial, and keeps the best weights of all."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.best, self.kept = args, 0.0, None

    def __call__(self, trial: optuna.Trial) -> float:
        """Draws, trains and validates after every epoch."""
        args = self.args
        names = sorted(path.stem for path in args.weights_dir.glob("*.safetensors"))
        name = trial.suggest_categorical("backbone", names)
        weights = {"file": str(args.weights_dir / f"{name}.safetensors")}
        model = timm.create_model(name, pretrained=True, num_classes=2, pretrained_cfg_overlay=weights)
        size = trial.suggest_categorical("image_size", [128, 160, 192, 224])
        crops = {"resize": v2.Resize((size, size)), "random": v2.RandomResizedCrop(size, scale=(0.5, 1.0))}
        train = [crops[trial.suggest_categorical("crop", list(crops))], v2.RandomHorizontalFlip()]
        if trial.suggest_categorical("policy", ["none", "rand"]) == "rand":
            train.append(v2.RandAugment())
        batches = torch.utils.data.DataLoader(
            Images(args.train, v2.Compose([*train, *normalise(model)])),
            batch_size=trial.suggest_categorical("batch_size", [16, 32, 64]),
            num_workers=args.loaders,
            shuffle=True,
            drop_last=True,
        )
        learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
        decay = trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True)
        if trial.suggest_categorical("optimizer", ["adamw", "sgd"]) == "adamw":
            optimizer: Any = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=decay)
        else:
            optimizer = torch.optim.SGD(
                model.parameters(), learning_rate, momentum=0.9, weight_decay=decay, nesterov=True
            )
        epochs = trial.suggest_int("epochs", 2, 8)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * len(batches))
        criterion = torch.nn.CrossEntropyLoss(label_smoothing=trial.suggest_float("smoothing", 0.0, 0.2))
        auc = 0.5
        for epoch in range(epochs):
            model.train()
            for images, labels in batches:
                if time.monotonic() > args.deadline:
                    trial.study.stop()
                    raise optuna.TrialPruned("out of time")
                loss = criterion(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            auc = score(model, args.validation, size, args)
            print(f"SCORE {auc:.5f} trial {trial.number} {name} epoch {epoch + 1} of {epochs}", flush=True)
            if auc > self.best:
                self.best, self.kept = auc, (copy.deepcopy(model), size)
            trial.report(auc, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return auc


def main() -> None:
    """Searches until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "validation", "holdout", "weights-dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--loaders", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.deadline = time.monotonic() + 60 * args.minutes
    torch.manual_seed(args.seed)
    objective = Objective(args)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=args.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    study.optimize(objective, timeout=60 * args.minutes)
    if objective.kept:
        print(f"HOLDOUT {score(objective.kept[0], args.holdout, objective.kept[1], args):.5f}", flush=True)


if __name__ == "__main__":
    main()
