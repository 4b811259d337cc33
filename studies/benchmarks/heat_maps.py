"""Do heat maps show where a picture was forged? Pictures of which one quadrant was forged, and the map's mass in it.

    python studies/benchmarks/heat_maps.py --data DIR --weights-dir WEIGHTS

A network learns real pictures (128 px, from DIR, which holds genuine ones) against the same with one of their four
quadrants forged, by the demo's kinds of forgery: blended with a changed copy of itself, or made small and large again
as a generator would. Then other pictures are forged in one quadrant, and each map's share in that quadrant is measured:
.25 is chance, and what an empty map counts. With `--out` the trained model folder and the first forged pictures are
kept, for `automl inspect`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from automl.backbones.input import InputSpec, read_preprocessing
from automl.backbones.weights import find_weights, make_model
from automl.data.demo import forge_patch
from automl.inspection.heat_maps import make_heat_maps, make_occlusion_maps, measure_agreement
from automl.media.images import read_pixels
from automl.models.folder import Labels, ModelFolder, read_members, write_model
from automl.recipe import Recipe
from automl.training.evaluation import Normalize, Predictor
from automl.training.metrics import compute_metric

SIDE, QUADRANT = 128, 64
KINDS = ("blend", "generated")


def main() -> None:
    """Trains, measures and prints."""
    arguments = read_arguments()
    torch.manual_seed(0)
    files = sorted(file for file in arguments.data.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if arguments.only:
        names = {line.split(",")[0] for line in arguments.only.read_text().splitlines() if line.endswith(",0")}
        files = [file for file in files if file.name in names]
    np.random.default_rng(0).shuffle(files)
    needed = arguments.train + arguments.test
    assert len(files) >= needed, f"{len(files)} pictures in {arguments.data}, {needed} are needed"
    pictures = np.stack([cut_picture(file) for file in files[:needed]])
    recipe = Recipe(backbone=arguments.backbone, image_size=SIDE)
    network = make_model(recipe, 2, find_weights(arguments.backbone, arguments.weights_dir, hub=False))
    inputs = InputSpec.from_preprocessing(read_preprocessing(network), recipe, SIDE)
    normalize = Normalize(inputs, recipe.numerics, torch.device("cpu"))
    if arguments.model:
        network = ModelFolder.load(read_members(arguments.model)[0][0])
    else:
        train_network(network, normalize, pictures[: arguments.train], arguments.epochs)
    real = pictures[arguments.train :]
    rng = np.random.default_rng(1)
    forged, quadrants = zip(*(forge_quadrant(picture, rng) for picture in real), strict=True)
    images = to_tensor(np.stack(forged))
    scores = Predictor(network, inputs, recipe.numerics, "cpu").predict_batch(torch.cat([to_tensor(real), images]))
    labels = np.repeat([0, 1], len(real))
    print(f"{arguments.backbone}, {len(real)} forged pictures, AUC {compute_metric('auc', labels, scores.numpy()):.3f}")
    seen = scores[len(real) :, 1].numpy() > 0.5
    maps = {}
    for name, make_maps in (("Grad-CAM", make_heat_maps), ("occlusion", make_occlusion_maps)):
        start = time.process_time()
        maps[name] = make_maps(network, normalize(images), 1)
        seconds = (time.process_time() - start) / len(images)
        shares = np.array([measure_share(heat, quadrant) for heat, quadrant in zip(maps[name], quadrants, strict=True)])
        print(
            f"{name}: mean share {shares.mean():.3f} ± {1.96 * shares.std(ddof=1) / len(shares) ** 0.5:.3f}, of the "
            f"{seen.sum()} that the network takes for forged {shares[seen].mean():.3f}; hottest quadrant right in "
            f"{np.mean([find_quadrant(heat) == own for heat, own in zip(maps[name], quadrants, strict=True)]):.2f}; "
            f"{int((maps[name].max(axis=(1, 2)) == 0).sum())} maps empty; {seconds:.3f} s of a core each",
            flush=True,
        )
    agreements = [measure_agreement(one, other) for one, other in zip(*maps.values(), strict=True)]
    print(f"rank correlation of the two: median {np.nanmedian(agreements):.2f}")
    if arguments.out:
        labels_of = Labels(("real", "forged"), 1, (0.5, 0.5), "file", 0)
        write_model(arguments.out / "model", network, recipe, inputs, labels_of, {"metric": "auc"}, "# Benchmark\n")
        (arguments.out / "pictures").mkdir(exist_ok=True)
        for number, (one, other, quadrant) in enumerate(zip(real[:12], forged, quadrants, strict=False)):
            Image.fromarray(one).save(arguments.out / "pictures" / f"{number:02d}-real.png")
            Image.fromarray(other).save(arguments.out / "pictures" / f"{number:02d}-forged-quadrant-{quadrant}.png")


def read_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder of genuine pictures")
    parser.add_argument("--only", type=Path, help="a table of file,label whose files with label 0 are genuine")
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--train", type=int, default=300, help="pictures to learn from")
    parser.add_argument("--test", type=int, default=120, help="pictures to measure on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path, help="the model of an earlier --out: nothing is trained")
    return parser.parse_args()


def cut_picture(file: Path) -> np.ndarray:
    """Reads the middle square of a picture, (128, 128, 3) uint8."""
    image = Image.fromarray(read_pixels(file, 256))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))


def forge_quadrant(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Forges one quadrant of a picture: the picture, and which one (0: top left, 1: top right, 2, 3: below them)."""
    quadrant = int(rng.integers(4))
    rows, columns = find_span(quadrant)
    forged = picture.copy()
    forged[rows, columns] = forge_patch(picture[rows, columns], KINDS[int(rng.integers(len(KINDS)))], rng)
    return forged, quadrant


def find_span(quadrant: int) -> tuple[slice, slice]:
    """Finds the rows and columns of a quadrant."""
    top, left = (QUADRANT * part for part in divmod(quadrant, 2))
    return slice(top, top + QUADRANT), slice(left, left + QUADRANT)


def measure_share(heat: np.ndarray, quadrant: int) -> float:
    """Measures the share of a map's mass that lies in a quadrant; .25 of an empty one."""
    return float(heat[find_span(quadrant)].sum() / heat.sum()) if heat.max() else 0.25


def find_quadrant(heat: np.ndarray) -> int:
    """Finds the quadrant with most of a map's mass."""
    return int(np.argmax([measure_share(heat, quadrant) for quadrant in range(4)]))


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Makes (N, 3, S, S) of (N, S, S, 3)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def train_network(network: torch.nn.Module, normalize: Normalize, real: np.ndarray, epochs: int) -> None:
    """Trains a network on real pictures against forgeries of the same, made anew each epoch."""
    rng, batch = np.random.default_rng(2), 16  # of each class
    steps = epochs * (len(real) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.2)
    network.to(memory_format=torch.channels_last)
    for epoch in range(epochs):
        network.train()
        order, losses = rng.permutation(len(real)), []
        for first in range(0, len(real) - batch + 1, batch):
            pictures = real[order[first : first + batch]]
            pictures = pictures[:, :, ::-1] if rng.random() < 0.5 else pictures
            forged = np.stack([forge_quadrant(picture, rng)[0] for picture in pictures])
            images = normalize(to_tensor(np.concatenate([pictures, forged])))
            labels = torch.arange(2).repeat_interleave(batch)
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}", flush=True)
    network.eval()


if __name__ == "__main__":
    main()
