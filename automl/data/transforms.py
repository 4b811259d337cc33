"""From a cached image to the network's input: the crop and every augmentation of a recipe.

Built on torchvision.transforms.v2. What is chosen for speed, with times in ms for a 224 px image on one CPU thread:

- The window is cut out of the (perhaps memory-mapped) array first, so only its pixels are read and resized.
- It is resized as a uint8 tensor in channels-last strides with antialiasing (0.3; as a PIL image: 1.1).
- The policies run on a PIL image (AutoAugment 0.6, RandAugment 1.7, TrivialAugment 0.8; on a tensor 1.3, 3.2, 1.9),
  except AugMix, whose mixing is faster on a tensor (6; 8).
- H.264 is written and read in memory by PyAV, on one thread (3; JPEG: 0.8).
- Pictures of sound: what is done to them are a few tensor operations (shift, gain 0.1 each, masks 0.2, noise 1.1).
- An operation of probability 0 is not built at all.

Images stay uint8: normalisation is the training loop's, on the device, and a quarter of the bytes travel.
All randomness is torch's global generator, so that seeding it before a call makes the result reproducible.
Self-blending changes the label, so it is the data set's (`automl.data.self_blend`), not done here.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop as RandomResizedCropV1
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from automl.errors import RecipeError
from automl.media.images import MIDDLE
from automl.media.opening import require
from automl.media.video import conversion
from automl.recipe.augmentation import (
    Affine,
    Augmentation,
    AugMix,
    AutoAugment,
    Color,
    Crop,
    NativeCrop,
    NoAffine,
    NoColor,
    NoPolicy,
    Policy,
    RandAugment,
    RandomResizedCrop,
    TrivialAugment,
)

Pixels = npt.NDArray[np.uint8]
"""An RGB image, (H, W, 3) uint8."""

Transform = Callable[[Pixels], torch.Tensor]
"""From (H, W, 3) uint8 to (3, S, S) uint8."""

Step = Callable[[torch.Tensor], torch.Tensor]
"""From (3, S, S) uint8 to the same."""

MEAN = (124, 116, 104)
"""ImageNet's mean colour: what is erased or moved out of the picture is about zero once normalised."""

CODEC_CRF = (23, 40)
"""Best and worst quality of the video codec, as x264 counts it; those of FaceForensics++ (Rössler et al. 2019)."""

NOISE_DB = (-60.0, -15.0)
"""Level of the faintest and of the loudest floor of noise; 0 is white."""

SOUND_RANGE_DB = 80.0
"""From black to white of a picture of sound: the default of `Mel`."""

INTERPOLATIONS = {
    "nearest": v2.InterpolationMode.NEAREST,
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "lanczos": v2.InterpolationMode.BICUBIC,  # tensors have no Lanczos; bicubic is the nearest to it
}


def train_transform(augmentation: Augmentation, image_size: int, interpolation: str = "bicubic") -> Transform:
    """Makes the transformation of one training image.

    The order: crop, flips, geometry, colour, policy, sound (shift, gain, noise), then what a file goes through on its
    way (blur, scaling, video codec, JPEG), then masks and erasing.

    Args:
        augmentation: What to do, and how likely.
        image_size: Side S of the result, px.
        interpolation: Of the resizing to S, as timm names it: bicubic, bilinear, nearest or lanczos.

    Returns:
        A picklable function from (H, W, 3) uint8 to a contiguous (3, S, S) uint8 tensor. It draws from torch's
        global generator only.

    Raises:
        RecipeError: If the interpolation is unknown.
        DataError: If the video codec is asked for and PyAV is not installed.
    """
    steps = [
        *_sometimes(augmentation.horizontal_flip, F.horizontal_flip),
        *_sometimes(augmentation.vertical_flip, F.vertical_flip),
        *_affine(augmentation.affine),
        *_color(augmentation.color),
        *_sometimes(augmentation.grayscale, v2.Grayscale(num_output_channels=3)),
        *_policy(augmentation.policy),
        *_sound(augmentation),
        *_sometimes(augmentation.blur, v2.RandomChoice([v2.GaussianBlur(kernel) for kernel in (3, 5, 7)])),
        *_sometimes(augmentation.downscale, _DownUp(augmentation.downscale_min, image_size)),
        *_codec(augmentation.codec),
        *_sometimes(augmentation.jpeg, _Jpeg(augmentation.jpeg_min_quality)),
        *_masks(augmentation.time_mask, augmentation.frequency_mask),
        *_sometimes(augmentation.erasing, v2.RandomErasing(p=1, value=MEAN)),
    ]
    crop = augmentation.crop
    return _Pipeline(crop, _window(crop, random=True), image_size, _mode(interpolation), tuple(steps))


def eval_transform(augmentation: Augmentation, image_size: int, interpolation: str = "bicubic") -> Transform:
    """Makes the transformation of one image that is scored: the crop alone, from the middle, nothing random.

    Of the crops, `resize` and `random_resized` bring the short side to `image_size`; `native` cuts the middle window
    out without resizing, and resizes only images that are smaller than it. `squash` brings both sides to `image_size`
    and cuts nothing off, in training either.

    Args:
        augmentation: The one the network was trained with; only its crop counts.
        image_size: Side S of the result, px.
        interpolation: Of the resizing to S, as timm names it: bicubic, bilinear, nearest or lanczos.

    Returns:
        A picklable function from (H, W, 3) uint8 to a contiguous (3, S, S) uint8 tensor.

    Raises:
        RecipeError: If the interpolation is unknown.
    """
    crop = augmentation.crop
    return _Pipeline(crop, _window(crop, random=False), image_size, _mode(interpolation), ())


def shown_part(image: Pixels, crop: Crop) -> Pixels:
    """The part of an image (H, W, 3) that a crop is taken of: `squash` sees all of it, others its middle of 1:2."""
    if crop.name == "squash":
        return image
    height, width, _ = image.shape
    longest = MIDDLE * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return image[top : top + longest, left : left + longest]


@dataclass(frozen=True)
class _Pipeline:
    """Cuts a window out, brings it to the image size, and applies the steps."""

    crop: Crop
    window: "_Whole | _Square | _RandomResized"
    image_size: int
    interpolation: v2.InterpolationMode
    steps: tuple[Step, ...]

    def __call__(self, image: Pixels) -> torch.Tensor:
        image = shown_part(image, self.crop)
        top, left, height, width = self.window(image.shape[0], image.shape[1], self.image_size)
        # The copy: a view would warn that the cache cannot be written, and make the resizing read strided rows.
        cut = image[top : top + height, left : left + width].copy()
        x = torch.from_numpy(cut).permute(2, 0, 1)  # (3, h, w) in channels-last strides, the fast way to resize
        if (height, width) != (self.image_size, self.image_size):
            x = F.resize(x, [self.image_size, self.image_size], interpolation=self.interpolation, antialias=True)
        for step in self.steps:
            x = step(x)
        return x.contiguous()


# --- windows ----------------------------------------------------------------------------------------------------


def _window(crop: Crop, random: bool) -> "_Whole | _Square | _RandomResized":
    if crop.name == "squash":
        return _Whole()
    if random and isinstance(crop, RandomResizedCrop):
        return _RandomResized(crop.min_scale, crop.max_aspect)
    return _Square(random, native=isinstance(crop, NativeCrop))


@dataclass(frozen=True)
class _Whole:
    """All there is."""

    def __call__(self, height: int, width: int, image_size: int) -> tuple[int, int, int, int]:
        del image_size
        return 0, 0, height, width


@dataclass(frozen=True)
class _Square:
    """The largest square, or (native) one of at most the image size; anywhere, or in the middle."""

    random: bool
    native: bool

    def __call__(self, height: int, width: int, image_size: int) -> tuple[int, int, int, int]:
        side = min(height, width, image_size) if self.native else min(height, width)
        if not self.random:
            return (height - side) // 2, (width - side) // 2, side, side
        return _randint(height - side), _randint(width - side), side, side


@dataclass(frozen=True)
class _RandomResized:
    """A part of random area and aspect (Szegedy et al. 2015), as torchvision draws it."""

    min_scale: float
    max_aspect: float

    def __call__(self, height: int, width: int, image_size: int) -> tuple[int, int, int, int]:
        del image_size
        shape_only = torch.empty(()).expand(3, height, width)  # (3, H, W) without its memory
        ratio = [1 / self.max_aspect, self.max_aspect]
        params = RandomResizedCropV1.get_params(shape_only, [self.min_scale, 1.0], ratio)
        return cast(tuple[int, int, int, int], tuple(params))


def _randint(highest: int) -> int:
    return int(torch.randint(highest + 1, ()).item()) if highest > 0 else 0


# --- steps ------------------------------------------------------------------------------------------------------


def _sometimes(probability: float, step: Any) -> list[Step]:
    if probability == 0:
        return []
    return [cast(Step, step) if probability == 1 else _Sometimes(probability, step)]


@dataclass(frozen=True)
class _Sometimes:
    probability: float
    step: Step

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(x) if torch.rand(()).item() < self.probability else x


def _affine(affine: Affine) -> list[Step]:
    if isinstance(affine, NoAffine):
        return []
    step = v2.RandomAffine(
        degrees=affine.rotate_degrees,
        translate=(affine.translate, affine.translate) if affine.translate else None,
        shear=affine.shear_degrees or None,
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=MEAN,
    )
    return _sometimes(affine.probability, step)


def _color(color: Color) -> list[Step]:
    if isinstance(color, NoColor):
        return []
    return _sometimes(color.probability, v2.ColorJitter(color.brightness, color.contrast, color.saturation, color.hue))


def _policy(policy: Policy) -> list[Step]:
    common: dict[str, Any] = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": MEAN}
    match policy:
        case NoPolicy():
            return []
        case AutoAugment():
            return [_OnPil(v2.AutoAugment(**common))]
        case RandAugment():
            return [_OnPil(v2.RandAugment(policy.operations, policy.magnitude, **common))]
        case TrivialAugment():
            return [_OnPil(v2.TrivialAugmentWide(**common))]
        case AugMix():
            return [cast(Step, v2.AugMix(policy.severity, policy.width, **common))]


@dataclass(frozen=True)
class _OnPil:
    """Runs a policy where it is fastest."""

    policy: Callable[[Any], Any]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return _from_pil(self.policy(_to_pil(x)))


@dataclass(frozen=True)
class _Jpeg:
    """Writes and reads the image as JPEG; by Pillow, because torchvision's JPEG is deprecated since 0.29."""

    min_quality: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        file = io.BytesIO()
        _to_pil(x).save(file, "JPEG", quality=self.min_quality + _randint(100 - self.min_quality))
        return _from_pil(Image.open(file))


def _codec(probability: float) -> list[Step]:
    if probability:
        require("av")  # missing, it is missed here and not in the loader's processes
    return _sometimes(probability, _H264(*CODEC_CRF))


@dataclass(frozen=True)
class _H264:
    """Writes and reads the image as the only frame of a video: an intra frame of libx264, yuv420p.

    `zerolatency`, because x264's lookahead gives few bits to a frame that no other one refers to: 4 dB at crf 23.
    """

    best_crf: int
    worst_crf: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        av = require("av")
        _, height, width = x.shape
        even = np.pad(x.permute(1, 2, 0).numpy(), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = even.shape[1], even.shape[0], "yuv420p"
        encoder.time_base, encoder.thread_count = Fraction(1, 25), 1
        crf = self.best_crf + _randint(self.worst_crf - self.best_crf)
        encoder.options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency"}
        decoder = av.CodecContext.create("h264", "r")
        decoder.thread_count = 1
        how: dict[str, Any] = {"interpolation": conversion(), "threads": 1}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even)).reformat(format="yuv420p", **how)
        packets = [*encoder.encode(frame), *encoder.encode(None)]
        (frame,) = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
        decoded = frame.reformat(format="rgb24", **how).to_ndarray()
        return torch.from_numpy(decoded[:height, :width]).permute(2, 0, 1)


def _to_pil(x: torch.Tensor) -> Image.Image:
    return Image.fromarray(x.permute(1, 2, 0).contiguous().numpy())


def _from_pil(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@dataclass(frozen=True)
class _DownUp:
    """Scales the image down and up again, each time with an interpolation drawn at random."""

    min_factor: float
    image_size: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        factor = self.min_factor + (1 - self.min_factor) * torch.rand(()).item()
        small = max(1, round(self.image_size * factor))
        for side in (small, self.image_size):
            x = F.resize(x, [side, side], interpolation=_MODES[_randint(len(_MODES) - 1)], antialias=True)
        return x


_MODES = (v2.InterpolationMode.NEAREST, v2.InterpolationMode.BILINEAR, v2.InterpolationMode.BICUBIC)


def _mode(interpolation: str) -> v2.InterpolationMode:
    try:
        return INTERPOLATIONS[interpolation]
    except KeyError:
        known = ", ".join(INTERPOLATIONS)
        raise RecipeError(f"unknown interpolation {interpolation!r}: use one of {known}") from None


# --- steps for pictures of sound: time from left to right, low tones at the bottom, white is loud -----------------


def _sound(augmentation: Augmentation) -> list[Step]:
    return [
        *([_TimeShift(augmentation.time_shift)] if augmentation.time_shift else []),
        *([_Gain(augmentation.gain)] if augmentation.gain else []),
        *_sometimes(augmentation.noise, _Noise(*NOISE_DB)),
    ]


@dataclass(frozen=True)
class _TimeShift:
    """Moves the sound in time; what leaves on one side enters on the other."""

    share: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        most = int(self.share * x.shape[2])
        return x.roll(_randint(2 * most) - most, 2)


@dataclass(frozen=True)
class _Gain:
    """Makes the sound louder or fainter: decibels are steps of brightness."""

    share: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        steps = round((2 * torch.rand(()).item() - 1) * self.share * 255)
        return (x.to(torch.int16) + steps).clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class _Noise:
    """Adds the power of steady noise that is equally loud in every band, of a level uniform in decibels.

    The spectrogram of Gaussian noise is the square of Gaussian numbers, averaged where bands and windows overlap. Here
    3 px of frequency and 2 of time are, so the power is chi-square distributed with 6 degrees of freedom. It fluctuates
    by 2.7 dB, and neighbours correlate by 0.7 and 0.5; white noise in the `mel` view's 224 px pictures: 2.8 dB (from
    3.5 at the bottom to 1.5 at the top), 0.8 and 0.5. That white noise also gets 10 dB louder towards the top, because
    the bands get wider, is left out: noise outdoors and indoors falls with frequency.
    """

    faintest_db: float
    loudest_db: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        _, height, width = x.shape
        level_db = self.faintest_db + (self.loudest_db - self.faintest_db) * torch.rand(()).item()
        power = torch.randn(height + 2, width + 1).square()
        power = power[:, 1:] + power[:, :-1]
        power = (power[2:] + power[1:-1] + power[:-2]) * (10 ** (level_db / 10) / 6)  # (H, W), white is 1
        step = SOUND_RANGE_DB / 255 * math.log(10) / 10  # of brightness, in the natural logarithm of power
        total = ((x.float() - 255) * step).exp() + power  # logaddexp: four times as slow
        return (total.log() / step + 255).round().clamp(max=255).to(torch.uint8)


def _masks(time: float, frequency: float) -> list[Step]:
    return [_Masks(time, frequency)] if time or frequency else []


@dataclass(frozen=True)
class _Masks:
    """Blanks two bands of time and two of frequency with the picture's mean (SpecAugment, arXiv:1904.08779)."""

    time: float
    frequency: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.float().mean((1, 2), keepdim=True).round().to(torch.uint8)  # (3, 1, 1)
        masked = x.clone()
        for share, axis in ((self.time, 2), (self.frequency, 1)):
            for _ in range(2):
                width = _randint(int(share * x.shape[axis]))
                masked.narrow(axis, _randint(x.shape[axis] - width), width).copy_(mean)
        return masked
