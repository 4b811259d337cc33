"""From a cached image to the network's input: the crop and every augmentation of a recipe.

Built on torchvision.transforms.v2. What is chosen for speed, with times in ms for a 224 px image on one CPU thread:

- The window is cut out of the (perhaps memory-mapped) array first, so only its pixels are read and resized.
- It is resized as a uint8 tensor in channels-last strides with antialiasing (0.3; as a PIL image: 1.1).
- The policies run on a PIL image (AutoAugment 0.6, RandAugment 1.7, TrivialAugment 0.8; on a tensor 1.3, 3.2, 1.9),
  except AugMix, whose mixing is faster on a tensor (6; 8).
- H.264 is written and read in memory by PyAV, on one thread (3; JPEG: 0.8).
- Pictures of sound: what is done to them are a few tensor operations (shift, gain 0.1 each, masks 0.2, noise 1.1).

Images stay uint8: normalisation is the training loop's, on the device, and a quarter of the bytes travel.
A field of the recipe's `Augmentation` has its step in `_STEPS`, in the order in which they are done.
All randomness is torch's global generator, so that seeding it before a call makes the result reproducible.
Self-blending changes the label, so it is the data set's (`automl.data.self_blend`), not done here.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
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
from automl.media.video import choose_conversion
from automl.recipe.augmentation import Augmentation, Crop

Pixels = npt.NDArray[np.uint8]  # an RGB image, (H, W, 3)
Transform = Callable[[Pixels], torch.Tensor]  # from (H, W, 3) uint8 to (3, S, S) uint8
Step = Callable[[torch.Tensor], torch.Tensor]  # from (3, S, S) uint8 to the same
Window = Callable[[int, int, int], tuple[int, int, int, int]]
"""From height, width and image size to (top, left, height, width) of what is cut out."""

MEAN = (124, 116, 104)  # ImageNet's mean colour: what is erased or moved out is about zero once normalised
CODEC_CRF = (23, 40)  # best and worst quality, as x264 counts; those of FaceForensics++ (Rössler et al. 2019)
NOISE_DB = (-60.0, -15.0)  # level of the faintest and of the loudest floor of noise; 0 is white
SOUND_RANGE_DB = 80.0  # from black to white of a picture of sound: the default of `Mel`
_BRIGHTNESS, _CONTRAST = 0, 1  # as torchvision numbers the parts of its colour jitter
_LUMA = np.array([0.2989, 0.587, 0.114])  # torchvision's weights of red, green and blue in grey
INTERPOLATIONS = {name: v2.InterpolationMode(name) for name in ("nearest", "bilinear", "bicubic")}
INTERPOLATIONS["lanczos"] = v2.InterpolationMode.BICUBIC  # tensors have no Lanczos; bicubic is the nearest to it


def train_transform(augmentation: Augmentation, image_size: int, interpolation: str = "bicubic") -> "Pipeline":
    """Makes the transformation of one training image.

    The order: crop, flips, geometry, colour, policy, sound (shift, gain, noise), then what a file goes through on its
    way (blur, scaling, video codec, JPEG), then masks and erasing.

    Args:
        augmentation: What to do, and how likely.
        image_size: Side S of the result, px.
        interpolation: Of the resizing to S, as timm names it: bicubic, bilinear, nearest or lanczos.

    Returns:
        A picklable function from (H, W, 3) uint8 to a contiguous (3, S, S) uint8 tensor.

    Raises:
        RecipeError: If the interpolation, the crop, or a branch of an augmentation is unknown.
        DataError: If the video codec is asked for and PyAV is not installed.
    """
    steps = [step for make_step in _STEPS.values() if (step := make_step(augmentation, image_size))]
    crop = augmentation.crop
    return Pipeline(crop, _choose_window(crop, training=True), image_size, _find_mode(interpolation), tuple(steps))


def eval_transform(augmentation: Augmentation, image_size: int, interpolation: str = "bicubic") -> "Pipeline":
    """Makes the transformation of one image that is scored: the crop alone, from the middle, nothing random.

    Of the crops, `resize` and `random_resized` bring the short side to `image_size`; `native` cuts the middle window
    out without resizing, and resizes only images that are smaller than it. `squash` brings both sides to `image_size`
    and cuts nothing off, in training either.

    Arguments, result and RecipeError are those of `train_transform`.
    """
    crop = augmentation.crop
    return Pipeline(crop, _choose_window(crop, training=False), image_size, _find_mode(interpolation), ())


def shown_part(image: Pixels, crop: Crop) -> Pixels:
    """Returns what a crop is taken of, of an image (H, W, 3): all of it for `squash`, else its middle of 1:2."""
    top, left, height, width = _find_middle(image.shape[0], image.shape[1], crop)
    return image[top : top + height, left : left + width]


def _find_middle(height: int, width: int, crop: Crop) -> tuple[int, int, int, int]:
    """Finds (top, left, height, width) of what a crop is taken of."""
    longest = max(height, width) if crop.name == "squash" else MIDDLE * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return top, left, min(height, longest), min(width, longest)


@dataclass(frozen=True)
class Pipeline:
    """Cuts a window out, brings it to the image size, and applies the steps."""

    crop: Crop
    window: Window
    image_size: int
    interpolation: v2.InterpolationMode
    steps: tuple[Step, ...]

    @property
    def cuts_alike(self) -> bool:
        """Whether an image is cut the same each time; what is random comes after it."""
        return self.window is _cut_nothing or (
            isinstance(self.window, partial) and self.window.func is _cut_square and not self.window.args[1]
        )

    def __call__(self, image: Pixels) -> torch.Tensor:
        """Cuts and applies the steps."""
        return self.finish(self.cut(image))

    def find_window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Finds what is cut out of an image: (top, left, height, width) in its pixels."""
        top, left, tall, wide = _find_middle(height, width, self.crop)
        inner_top, inner_left, cut_height, cut_width = self.window(tall, wide, self.image_size)
        return top + inner_top, left + inner_left, cut_height, cut_width

    def cut(self, image: Pixels) -> torch.Tensor:
        """Cuts the window out of an image and brings it to the image size: (3, S, S) uint8."""
        top, left, height, width = self.find_window(image.shape[0], image.shape[1])
        # The copy: a view would warn that the cache cannot be written, and make the resizing read strided rows.
        cut = image[top : top + height, left : left + width].copy()
        x = torch.from_numpy(cut).permute(2, 0, 1)  # (3, h, w) in channels-last strides, the fast way to resize
        if (height, width) != (self.image_size, self.image_size):
            x = F.resize(x, [self.image_size, self.image_size], interpolation=self.interpolation, antialias=True)
        return x

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """Applies the steps to what `cut` returned, which stays as it is."""
        for step in self.steps:
            x = step(x)
        return x.contiguous()


# --- windows ----------------------------------------------------------------------------------------------------


def _choose_window(crop: Crop, training: bool) -> Window:
    """Chooses what is cut out of an image; nothing is random where it is scored."""
    match crop.name:
        case "squash":
            return _cut_nothing
        case "random_resized" if training:
            return partial(_cut_random_area, crop.min_scale, crop.max_aspect)
        case "resize" | "native" | "random_resized":
            return partial(_cut_square, crop.name == "native", training)
        case _:
            raise _unknown_branch("crop", crop)


def _cut_nothing(height: int, width: int, image_size: int) -> tuple[int, int, int, int]:
    """Takes all there is."""
    del image_size
    return 0, 0, height, width


def _cut_square(native: bool, random: bool, height: int, width: int, image_size: int) -> tuple[int, int, int, int]:
    """Takes the largest square, or (native) one of at most the image size; anywhere, or in the middle."""
    side = min(height, width, image_size) if native else min(height, width)
    if not random:
        return (height - side) // 2, (width - side) // 2, side, side
    return _draw_integer(height - side), _draw_integer(width - side), side, side


def _cut_random_area(
    min_scale: float, max_aspect: float, height: int, width: int, image_size: int
) -> tuple[int, int, int, int]:
    """Takes a part of random area and aspect (Szegedy et al. 2015), as torchvision draws it."""
    del image_size
    shape_only = torch.empty(()).expand(3, height, width)  # (3, H, W) without its memory
    params = RandomResizedCropV1.get_params(shape_only, [min_scale, 1.0], [1 / max_aspect, max_aspect])
    return cast(tuple[int, int, int, int], tuple(params))


def _draw_integer(highest: int) -> int:
    """Draws a whole number from 0 to the highest."""
    return int(torch.randint(highest + 1, ()).item()) if highest > 0 else 0


def _find_mode(interpolation: str) -> v2.InterpolationMode:
    """Returns torchvision's name of an interpolation."""
    if interpolation not in INTERPOLATIONS:
        raise RecipeError(f"unknown interpolation {interpolation!r}: use one of {', '.join(INTERPOLATIONS)}")
    return INTERPOLATIONS[interpolation]


def _unknown_branch(field: str, part: Any) -> RecipeError:
    """Makes the error for a branch of a recipe that has no step here."""
    return RecipeError(f"augmentation.{field}: {part.name!r} has no step in automl.data.transforms")


# --- steps ------------------------------------------------------------------------------------------------------


def _sometimes(probability: float, step: Any) -> Step | None:
    """Makes a step that is done with a probability; None for 0."""
    if probability == 0:
        return None
    return cast(Step, step) if probability == 1 else partial(_apply_sometimes, probability, step)


def _apply_sometimes(probability: float, step: Step, x: torch.Tensor) -> torch.Tensor:
    """Applies a step with a probability."""
    return step(x) if torch.rand(()).item() < probability else x


def _branch_step(field: str, branch: Any) -> Step | None:
    """Makes the step of a branch of a recipe, done with its probability; None for the branch `none`."""
    if branch.name == "none":
        return None
    if (field, branch.name) not in _BRANCHES:
        raise _unknown_branch(field, branch)
    return _sometimes(getattr(branch, "probability", 1), _BRANCHES[field, branch.name](branch))


def _apply_to_pil(policy: Callable[[Any], Any], x: torch.Tensor) -> torch.Tensor:
    """Applies a policy to a PIL image."""
    return cast(torch.Tensor, F.pil_to_tensor(policy(F.to_pil_image(x))))


def _jitter_color(jitter: v2.ColorJitter, x: torch.Tensor) -> torch.Tensor:
    """Applies torchvision's colour jitter; brightness and contrast alone as one table of 256 values.

    Each of the two is linear in a pixel, but for the mean grey that contrast keeps, which every fifth pixel of every
    fifth row tells. So an image is read and written once, where torchvision does so a dozen times, as floats. What is
    drawn is the same, and a pixel differs from torchvision's by a step or two.
    """
    drawn = jitter.make_params([])
    brightness, contrast = drawn["brightness_factor"], drawn["contrast_factor"]
    if drawn["saturation_factor"] is not None or drawn["hue_factor"] is not None:
        return cast(torch.Tensor, jitter.transform(x, drawn))
    import cv2

    table = np.arange(256, dtype=np.float64)
    for kind in drawn["fn_idx"].tolist():
        if kind == _BRIGHTNESS and brightness is not None:
            table = np.floor(np.clip(brightness * table, 0, 255))
        elif kind == _CONTRAST and contrast is not None:
            means = table[x[:, 2::5, 2::5].numpy()].mean((1, 2))
            grey = float(_LUMA @ means) - 0.5  # torchvision's are rounded down
            table = np.floor(np.clip(contrast * table + (1 - contrast) * grey, 0, 255))
    pixels = (x if x.is_contiguous() else x.permute(1, 2, 0).contiguous()).numpy()  # as it lies in memory
    changed = torch.from_numpy(cv2.LUT(pixels.reshape(-1, pixels.shape[-1]), table.astype(np.uint8)))
    return changed.view(x.shape) if x.is_contiguous() else changed.view(*x.shape[1:], 3).permute(2, 0, 1)


def _code_jpeg(min_quality: int, x: torch.Tensor) -> torch.Tensor:
    """Writes and reads the image as JPEG; by Pillow, because torchvision's JPEG is deprecated since 0.29."""
    file = io.BytesIO()
    F.to_pil_image(x).save(file, "JPEG", quality=min_quality + _draw_integer(100 - min_quality))
    return cast(torch.Tensor, F.pil_to_tensor(Image.open(file)))


def _codec_step(probability: float) -> Step | None:
    """Makes the step of the video codec."""
    if probability:
        require("av")  # missing, it is missed here and not in the loader's processes
    return _sometimes(probability, partial(code_h264, *CODEC_CRF))


def code_h264(best_crf: int, worst_crf: int, x: torch.Tensor) -> torch.Tensor:
    """Writes and reads an image (3, H, W) uint8 as the only frame of a video: an intra frame of libx264, yuv420p.

    Its quality is drawn from `best_crf` to `worst_crf`, as x264 counts; without PyAV that is a DataError.
    `zerolatency`, because x264's lookahead gives few bits to a frame that no other one refers to: 4 dB at crf 23.
    """
    av = require("av")
    _, height, width = x.shape
    even = np.pad(x.permute(1, 2, 0).numpy(), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = even.shape[1], even.shape[0], "yuv420p"
    encoder.time_base, encoder.thread_count = Fraction(1, 25), 1
    crf = best_crf + _draw_integer(worst_crf - best_crf)
    encoder.options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    how: dict[str, Any] = {"interpolation": choose_conversion(), "threads": 1}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even)).reformat(format="yuv420p", **how)
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    (frame,) = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    decoded = frame.reformat(format="rgb24", **how).to_ndarray()
    return torch.from_numpy(decoded[:height, :width]).permute(2, 0, 1)


def _scale_down_and_up(min_factor: float, image_size: int, x: torch.Tensor) -> torch.Tensor:
    """Scales the image down and up again, each time with an interpolation drawn at random."""
    factor = min_factor + (1 - min_factor) * torch.rand(()).item()
    modes = (v2.InterpolationMode.NEAREST, v2.InterpolationMode.BILINEAR, v2.InterpolationMode.BICUBIC)
    for side in (max(1, round(image_size * factor)), image_size):
        x = F.resize(x, [side, side], interpolation=modes[_draw_integer(len(modes) - 1)], antialias=True)
    return x


# --- steps for pictures of sound: time from left to right, low tones at the bottom, white is loud -----------------


def _shift_time(share: float, x: torch.Tensor) -> torch.Tensor:
    """Moves the sound in time; what leaves on one side enters on the other."""
    most = int(share * x.shape[2])
    return x.roll(_draw_integer(2 * most) - most, 2)


def _change_gain(share: float, x: torch.Tensor) -> torch.Tensor:
    """Makes the sound louder or fainter: decibels are steps of brightness."""
    steps = round((2 * torch.rand(()).item() - 1) * share * 255)
    return (x.to(torch.int16) + steps).clamp(0, 255).to(torch.uint8)


def add_noise(faintest_db: float, loudest_db: float, x: torch.Tensor) -> torch.Tensor:
    """Adds to a picture (3, H, W) uint8 the power of steady noise, equally loud in every band, uniform in decibels.

    The spectrogram of Gaussian noise is the square of Gaussian numbers, averaged where bands and windows overlap. Here
    3 px of frequency and 2 of time are, so the power is chi-square distributed with 6 degrees of freedom. It fluctuates
    by 2.7 dB, and neighbours correlate by 0.7 and 0.5; white noise in the `mel` view's 224 px pictures: 2.8 dB (from
    3.5 at the bottom to 1.5 at the top), 0.8 and 0.5. That white noise also gets 10 dB louder towards the top, because
    the bands get wider, is left out: noise outdoors and indoors falls with frequency.
    """
    _, height, width = x.shape
    level_db = faintest_db + (loudest_db - faintest_db) * torch.rand(()).item()
    power = torch.randn(height + 2, width + 1).square()
    power = power[:, 1:] + power[:, :-1]
    power = (power[2:] + power[1:-1] + power[:-2]) * (10 ** (level_db / 10) / 6)  # (H, W), white is 1
    step = SOUND_RANGE_DB / 255 * math.log(10) / 10  # of brightness, in the natural logarithm of power
    total = ((x.float() - 255) * step).exp() + power  # logaddexp: four times as slow
    return (total.log() / step + 255).round().clamp(max=255).to(torch.uint8)


def _mask_bands(time: float, frequency: float, x: torch.Tensor) -> torch.Tensor:
    """Blanks two bands of time and two of frequency with the picture's mean (SpecAugment, arXiv:1904.08779)."""
    mean = x.float().mean((1, 2), keepdim=True).round().to(torch.uint8)  # (3, 1, 1)
    masked = x.clone()
    for share, axis in ((time, 2), (frequency, 1)):
        for _ in range(2):
            width = _draw_integer(int(share * x.shape[axis]))
            masked.narrow(axis, _draw_integer(x.shape[axis] - width), width).copy_(mean)
    return masked


_FILLED: dict[str, Any] = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": MEAN}

_BRANCHES: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("affine", "random"): lambda affine: v2.RandomAffine(
        degrees=affine.rotate_degrees,
        translate=(affine.translate, affine.translate) if affine.translate else None,
        shear=affine.shear_degrees or None,
        **_FILLED,
    ),
    ("color", "jitter"): lambda color: partial(
        _jitter_color, v2.ColorJitter(color.brightness, color.contrast, color.saturation, color.hue)
    ),
    ("policy", "auto"): lambda _: partial(_apply_to_pil, v2.AutoAugment(**_FILLED)),
    ("policy", "rand"): lambda policy: partial(
        _apply_to_pil, v2.RandAugment(policy.operations, policy.magnitude, **_FILLED)
    ),
    ("policy", "trivial"): lambda _: partial(_apply_to_pil, v2.TrivialAugmentWide(**_FILLED)),
    ("policy", "augmix"): lambda policy: v2.AugMix(policy.severity, policy.width, **_FILLED),
}
"""What makes the step of a branch, by the recipe's field and the branch's name."""

_STEPS: dict[str, Callable[[Augmentation, int], Step | None]] = {
    "horizontal_flip": lambda a, _: _sometimes(a.horizontal_flip, F.horizontal_flip),
    "vertical_flip": lambda a, _: _sometimes(a.vertical_flip, F.vertical_flip),
    "affine": lambda a, _: _branch_step("affine", a.affine),
    "color": lambda a, _: _branch_step("color", a.color),
    "grayscale": lambda a, _: _sometimes(a.grayscale, v2.Grayscale(num_output_channels=3)),
    "policy": lambda a, _: _branch_step("policy", a.policy),
    "time_shift": lambda a, _: partial(_shift_time, a.time_shift) if a.time_shift else None,
    "gain": lambda a, _: partial(_change_gain, a.gain) if a.gain else None,
    "noise": lambda a, _: _sometimes(a.noise, partial(add_noise, *NOISE_DB)),
    "blur": lambda a, _: _sometimes(a.blur, v2.RandomChoice([v2.GaussianBlur(kernel) for kernel in (3, 5, 7)])),
    "downscale": lambda a, size: _sometimes(a.downscale, partial(_scale_down_and_up, a.downscale_min, size)),
    "codec": lambda a, _: _codec_step(a.codec),
    "jpeg": lambda a, _: _sometimes(a.jpeg, partial(_code_jpeg, a.jpeg_min_quality)),
    "time_mask": lambda a, _: (
        partial(_mask_bands, a.time_mask, a.frequency_mask) if a.time_mask or a.frequency_mask else None
    ),
    "erasing": lambda a, _: _sometimes(a.erasing, v2.RandomErasing(p=1, value=MEAN)),
}
"""What makes the step of a field, in the order in which the steps are done; None where it is not to be done."""

NOT_STEPS = ("crop", "self_blend", "jpeg_min_quality", "downscale_min", "frequency_mask")
"""The other fields of `Augmentation`: the window, what the data set does, and parameters of other fields' steps."""
