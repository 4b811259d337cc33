"""AutoGluon MultiModal's own hyperparameter search, in its own environment; nothing of automl is imported.

    python -m venv ag && ag/bin/pip install autogluon.multimodal==1.6.3

Bayesian search with ASHA on Ray over learning rate, batch, length and the backbones of the folder, two trials at a time
on two cores, else its defaults. The weights are given as local folders, as timm's `local-dir:` wants them. AutoGluon
logs each validation of each trial; `compare.py` reads the scores from what it prints.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import timm
import torch
from safetensors.torch import load_file


def write_backbones(weights_dir: Path, target: Path) -> list[str]:
    """Writes each file of weights as the folder that AutoGluon takes: `pytorch_model.bin` and `config.json`."""
    folders = []
    for path in sorted(weights_dir.glob("*.safetensors")):
        folder = target / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        model = timm.create_model(path.stem, num_classes=0)  # AutoGluon puts a head of its own on it
        weights, wanted, cfg = load_file(path), model.state_dict(), model.pretrained_cfg
        torch.save({name: weights[name] for name in wanted}, folder / "pytorch_model.bin")
        kept = {key: cfg[key] for key in ("input_size", "mean", "std", "crop_pct", "interpolation", "num_classes")}
        kept |= {"first_conv": cfg["first_conv"], "classifier": cfg["classifier"]}
        known = {"architecture": path.stem, "num_classes": 1000, "num_features": model.num_features}
        text = json.dumps(known | {"pretrained_cfg": kept})
        (folder / "config.json").write_text(text)
        folders.append(str(folder))
    return folders


def main() -> None:
    """Searches until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "validation", "holdout", "weights-dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="where models and logs are written")
    args = parser.parse_args()

    from autogluon.multimodal import MultiModalPredictor
    from ray import tune

    tables = {name: pd.read_csv(getattr(args, name)) for name in ("train", "validation", "holdout")}
    backbones = write_backbones(args.weights_dir, args.folder / "backbones")
    predictor = MultiModalPredictor(
        label="label", problem_type="binary", eval_metric="roc_auc", path=str(args.folder / "models"), verbosity=3
    )
    predictor.fit(
        train_data=tables["train"],
        tuning_data=tables["validation"],
        time_limit=60 * args.minutes,
        seed=args.seed,
        hyperparameters={
            "model.names": ["timm_image"],
            "model.timm_image.checkpoint_name": tune.choice(backbones),
            "optim.lr": tune.loguniform(1e-4, 1e-2),
            "optim.max_epochs": tune.choice([5, 10]),
            "env.batch_size": tune.choice([16, 32, 64]),
            "env.num_workers": 0,
            "env.num_workers_inference": 0,
        },
        hyperparameter_tune_kwargs={"searcher": "bayes", "scheduler": "ASHA", "num_trials": 6},
    )
    print(f"HOLDOUT {predictor.evaluate(tables['holdout'], metrics=['roc_auc'])['roc_auc']:.5f}", flush=True)


if __name__ == "__main__":
    main()
