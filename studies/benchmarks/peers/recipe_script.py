"""One good recipe, written by hand in plain PyTorch: what a search has to beat; nothing of automl is imported.

mobilenetv2_100, the whole image at 224 px, flips, batch 16, AdamW 2e-3 with layer decay .9, weight decay 1e-3, the norm
clipped at 1, a cosine over 5 epochs with 10 % warm-up, channels_last. Prints as `optuna_script.py` does.
"""

import argparse
import math
from pathlib import Path

import timm
import torch
from optuna_script import Images, normalise, score
from timm.optim import param_groups_layer_decay
from torchvision.transforms import v2

BACKBONE, SIZE, BATCH, EPOCHS, RATE, WARMUP = "mobilenetv2_100", 224, 16, 5, 2e-3, 0.1


def main() -> None:
    """Trains once."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "validation", "holdout", "weights-dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0, help="not heeded: it is one recipe")
    parser.add_argument("--loaders", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    weights = {"file": str(args.weights_dir / f"{BACKBONE}.safetensors")}
    model = timm.create_model(BACKBONE, pretrained=True, num_classes=2, pretrained_cfg_overlay=weights)
    torch.nn.init.zeros_(model.get_classifier().weight)
    torch.nn.init.zeros_(model.get_classifier().bias)
    model.to(memory_format=torch.channels_last)
    transform = v2.Compose([v2.Resize((SIZE, SIZE)), v2.RandomHorizontalFlip(), *normalise(model)])
    batches = torch.utils.data.DataLoader(
        Images(args.train, transform), batch_size=BATCH, num_workers=args.loaders, shuffle=True, drop_last=True
    )
    groups = param_groups_layer_decay(model, weight_decay=1e-3, layer_decay=0.9)
    for group in groups:
        group["lr"] = RATE * group["lr_scale"]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    rates = [group["lr"] for group in optimizer.param_groups]
    steps, step = EPOCHS * len(batches), 0
    warm = round(WARMUP * steps)
    for epoch in range(EPOCHS):
        model.train()
        for images, labels in batches:
            factor = (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = factor * rate
            loss = torch.nn.functional.cross_entropy(
                model(images.contiguous(memory_format=torch.channels_last)), labels
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
        if epoch in (EPOCHS - 2, EPOCHS - 1):
            print(f"SCORE {score(model, args.validation, SIZE, args):.5f} epoch {epoch + 1}", flush=True)
    print(f"HOLDOUT {score(model, args.holdout, SIZE, args):.5f}", flush=True)


if __name__ == "__main__":
    main()
