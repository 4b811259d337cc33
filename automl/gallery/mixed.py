"""Mixup and CutMix pairs with their labels, and samples as a recipe as a whole shows them to the network."""

from collections.abc import Sequence

import torch

from automl.backbones.input import Preprocessing
from automl.data.loader import ImageData
from automl.gallery.augmented import Studio, to_pixels
from automl.gallery.levels import list_numbers
from automl.gallery.pictures import Picture, Row, name_label
from automl.recipe import Recipe
from automl.recipe.learning import CutMix, Mixup
from automl.recipe.recipe import Numerics
from automl.space.nodes import Branches, Constant
from automl.training.evaluation import Normalize
from automl.training.loss import soft_targets
from automl.training.mixing import Mix, make_mixing

_DRAWS = 16
_NEARLY_ALL = 0.9
_TOGETHER = 4
"""Samples of a batch: a batch is mixed as a whole, or not at all."""
_PREPROCESSING = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
"""ImageNet's; what is mixed and then shown is the same with any other."""
_KINDS: dict[str, type[Mixup | CutMix]] = {"mixup": Mixup, "cutmix": CutMix}


def show_pairs(mixing: Branches, studio: Studio, labels: Sequence[int], classes: Sequence[str]) -> list[Row]:
    """Shows each mixing on two subjects; `labels` are theirs, and a batch needs two."""
    if len(studio.cut_images) < 2:
        return []
    images, rows = torch.stack(list(studio.cut_images)), []
    for name, branch in mixing.branches.items():
        if name not in _KINDS:
            continue
        alphas = list_numbers(branch.children.get("alpha", Constant(_KINDS[name]().alpha)))
        often = [round(100 * share) for share in list_numbers(branch.children.get("probability", Constant(1.0)))]
        mix = make_mixing(_KINDS[name](alpha=max(alphas), probability=1), len(classes), 0)
        drawn = [_mix_batch(mix, images, torch.tensor(labels), len(classes), step) for step in range(_DRAWS)]
        shares = [float(targets[0].max()) for _, targets in drawn]
        chosen = [min(range(_DRAWS), key=lambda draw: abs(shares[draw] - near)) for near in (0.9, 0.75, 0.5)]
        mixed = [_make_picture(*drawn[number], 0, classes, f"after {name}") for number in dict.fromkeys(chosen)]
        plain = [
            Picture(
                to_pixels(image), f"{name_label(classes[label])}, as it is", f"A sample of {name_label(classes[label])}"
            )
            for image, label in zip(studio.cut_images, labels, strict=True)
        ]
        batches = f"{min(often)} to {max(often)}" if len(set(often)) > 1 else f"{often[0]}"
        alpha = f"{min(alphas):g} to {max(alphas):g}, shown at {max(alphas):g}" if len(alphas) > 1 else f"{alphas[0]:g}"
        kept = sum(share > _NEARLY_ALL for share in shares)
        draws = f"{kept} of {_DRAWS} draws keep more than {100 * _NEARLY_ALL:.0f} % of one sample"
        text = f"in {batches} % of the batches; alpha {alpha}; {draws}"
        rows.append(Row(name, text, (tuple(plain), tuple(mixed))))
    return rows


def show_training(recipe: Recipe, data: ImageData, samples: int, first: int) -> tuple[tuple[Picture, ...], int]:
    """Shows samples as training sees them: cut, augmented, perhaps forged from real ones, and mixed.

    They are those of some batches of training on these data alone, of four samples each; normalised and mixed as
    training does it, and brought back to colours.

    Args:
        recipe: What is done to them.
        data: The samples.
        samples: How many.
        first: Number of the first batch.

    Returns:
        The pictures, and the number of the batch that would come next.
    """
    recipe = recipe.model_copy(update={"batch_size": _TOGETHER})
    mix, classes = make_mixing(recipe.mixing, data.classes, recipe.seed), data.samples.classes
    steps = range(first, first - (-samples // data.batch_size(recipe)))
    pictures: list[Picture] = []
    batches = data.train_batches(recipe, _PREPROCESSING.interpolation, steps.start, steps.stop)
    for step, (images, labels) in zip(steps, batches, strict=True):
        shown, targets = _mix_batch(mix, images, labels, data.classes, step)
        pictures += [
            _make_picture(shown, targets, number, classes, "as training sees it") for number in range(len(shown))
        ]
    return tuple(pictures[:samples]), steps.stop


def _mix_batch(
    mix: Mix, images: torch.Tensor, labels: torch.Tensor, classes: int, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalises and mixes a batch as training does, then undoes the normalisation: (B, 3, S, S) uint8, targets."""
    normalise = Normalize(_PREPROCESSING, Numerics(), torch.device("cpu"))
    inputs, targets = mix(normalise(images), soft_targets(labels, classes), step)
    mean, std = (255 * torch.tensor([_PREPROCESSING.mean, _PREPROCESSING.std])).view(2, 1, 3, 1, 1)
    return (inputs * std + mean).round().clamp(0, 255).to(torch.uint8), targets


def _make_picture(
    images: torch.Tensor, targets: torch.Tensor, number: int, classes: Sequence[str], what: str
) -> Picture:
    """Makes the picture of one image of a batch, with its label."""
    label = describe_label(targets[number].tolist(), classes)
    return Picture(to_pixels(images[number]), label, f"A sample {what}, label {label}")


def describe_label(shares: Sequence[float], classes: Sequence[str]) -> str:
    """Writes a label: `real`, or `70 % fake, 30 % real`, the largest share first."""
    known = sorted(((share, name) for share, name in zip(shares, classes, strict=True) if share > 0), reverse=True)
    if len(known) == 1:
        return name_label(known[0][1])
    return ", ".join(f"{_write_share(share)} % {name_label(name)}" for share, name in known)


def _write_share(share: float) -> str:
    """Writes a share in percent; what is nearly nothing, or nearly all, is not rounded to that."""
    percent = 100 * share
    return f"{percent:.0f}" if 1 <= percent <= 99 else "less than 1" if percent < 1 else "more than 99"
