"""A network's input: what the weights of a backbone expect, and how a media file becomes it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from automl.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone's weights expect of their input."""

    mean: tuple[float, float, float]
    """Per channel, of values in [0, 1]."""
    std: tuple[float, float, float]
    interpolation: str
    fixed_size: bool = False
    """Whether the network takes images of one size only, as most transformers do."""


@dataclass(frozen=True)
class InputSpec:
    """How a media file becomes the network's input when it is scored; stored in model folders by these names."""

    decode_size: int
    """Pixels of the short side that a file is decoded to; smaller ones are not enlarged (`data.cache`)."""
    image_size: int
    """Pixels per side of what the network sees (`evaluation_size`)."""
    mean: tuple[float, float, float]
    """Per channel, of values in [0, 1]."""
    std: tuple[float, float, float]
    interpolation: str

    @classmethod
    def from_preprocessing(cls, preprocessing: Preprocessing, recipe: Recipe, decode_size: int) -> "InputSpec":
        """Describes the input of a network that was trained with a recipe, on files decoded to `decode_size` pixels."""
        size = evaluation_size(recipe, preprocessing, decode_size)
        return cls(decode_size, size, preprocessing.mean, preprocessing.std, preprocessing.interpolation)


def read_preprocessing(model: "nn.Module") -> Preprocessing:
    """Reads from a timm model what its weights expect of their input."""
    from timm.data.config import resolve_model_data_config

    cfg = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    fixed = bool(getattr(model, "pretrained_cfg", {}).get("fixed_input_size", False))
    return Preprocessing(tuple(cfg["mean"]), tuple(cfg["std"]), cfg["interpolation"], fixed)


def evaluation_size(recipe: Recipe, preprocessing: Preprocessing, largest: int) -> int:
    """Returns the pixels per side of an evaluated image.

    It is the recipe's image size, except for native crops: a window of a face is not the face, so a network that
    takes any size is shown up to twice the side of the windows it learned from. Nothing is resized in either, so
    objects keep the size they had in training (the mismatch that Touvron et al. 2019, arXiv:1906.06423, mend).
    """
    if recipe.augmentation.crop.name != "native" or preprocessing.fixed_size:
        return recipe.image_size
    return max(recipe.image_size, min(largest, 2 * recipe.image_size))
