"""What happens to a training image."""

from typing import Annotated, Literal

from pydantic import Field

from automl.schema import Fraction, Part


class ResizeCrop(Part):
    """The image's short side is resized to the image size, and the middle (in training: anywhere) is cut out."""

    name: Literal["resize"] = "resize"


class RandomResizedCrop(Part):
    """A random part of the image, resized to the image size (Szegedy et al. 2015; torchvision v2)."""

    name: Literal["random_resized"] = "random_resized"
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_aspect: Annotated[float, Field(ge=1, le=3)] = 1.3333


class NativeCrop(Part):
    """A random window cut out without resizing, which keeps the traces that resampling wipes out."""

    name: Literal["native"] = "native"


class SquashCrop(Part):
    """All of the image: both its sides are resized to the image size, so that nothing is cut off (timm's `squash`)."""

    name: Literal["squash"] = "squash"


class NoAffine(Part):
    """No affine transformation."""

    name: Literal["none"] = "none"


class RandomAffine(Part):
    """Rotation, shear and translation, each uniform within its limit."""

    name: Literal["random"] = "random"
    probability: Fraction = 0.5
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 10
    shear_degrees: Annotated[float, Field(ge=0, le=45)] = 0
    translate: Fraction = 0


class NoColor(Part):
    """No colour change."""

    name: Literal["none"] = "none"


class ColorJitter(Part):
    """Brightness, contrast, saturation and hue, each uniform within its limit (torchvision v2)."""

    name: Literal["jitter"] = "jitter"
    probability: Fraction = 0.5
    brightness: Fraction = 0.1
    contrast: Fraction = 0.1
    saturation: Fraction = 0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0


class NoPolicy(Part):
    """No augmentation policy."""

    name: Literal["none"] = "none"


class AutoAugment(Part):
    """Cubuk et al. 2019, the ImageNet policy."""

    name: Literal["auto"] = "auto"


class RandAugment(Part):
    """Cubuk et al. 2020."""

    name: Literal["rand"] = "rand"
    operations: Annotated[int, Field(ge=1, le=6)] = 2
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9


class TrivialAugment(Part):
    """Müller & Hutter 2021: one random operation of random strength."""

    name: Literal["trivial"] = "trivial"


class AugMix(Part):
    """Hendrycks et al. 2020."""

    name: Literal["augmix"] = "augmix"
    severity: Annotated[int, Field(ge=1, le=10)] = 3
    width: Annotated[int, Field(ge=1, le=5)] = 3


Crop = Annotated[ResizeCrop | RandomResizedCrop | NativeCrop | SquashCrop, Field(discriminator="name")]
Affine = Annotated[NoAffine | RandomAffine, Field(discriminator="name")]
Color = Annotated[NoColor | ColorJitter, Field(discriminator="name")]
Policy = Annotated[NoPolicy | AutoAugment | RandAugment | TrivialAugment | AugMix, Field(discriminator="name")]


class Augmentation(Part):
    """What happens to one training image; plain numbers are probabilities per image."""

    crop: Crop = ResizeCrop()
    horizontal_flip: Fraction = 0.5
    vertical_flip: Fraction = 0
    affine: Affine = NoAffine()
    color: Color = NoColor()
    grayscale: Fraction = 0
    blur: Fraction = 0
    jpeg: Fraction = 0
    jpeg_min_quality: Annotated[int, Field(ge=1, le=100)] = 40
    downscale: Fraction = 0
    downscale_min: Annotated[float, Field(gt=0, le=1)] = 0.5
    policy: Policy = NoPolicy()
    erasing: Fraction = 0
    self_blend: Fraction = 0
    codec: Fraction = 0
    """Compressed as a frame of a video, by H.264 (needs the `media` extra)."""
    time_mask: Fraction = 0
    """Pictures of sound (SpecAugment, Park et al. 2019): two bands of time are blanked, each at most this wide, as a
    share of the picture."""
    frequency_mask: Fraction = 0
    """The same for two bands of frequency."""
    time_shift: Fraction = 0
    """Pictures of sound are moved around in time by up to this share of their width."""
    noise: Fraction = 0
    """Pictures of sound: a floor of noise is laid under the sound."""
    gain: Annotated[float, Field(ge=0, le=0.5)] = 0
    """Pictures of sound: louder or fainter by up to this share of the range from black to white."""
