"""Operations on images: each takes an RGB image and gives one."""

import math
from io import BytesIO
from typing import Annotated, ClassVar, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from pydantic import Field

from automl.degradations.step import Step
from automl.schema import Fraction

Picture = Image.Image


class ImageStep(Step):
    """An operation on images."""

    def change_image(self, image: Picture, random: np.random.Generator) -> Picture:
        """Returns the changed image, of mode RGB as `image` is."""
        raise NotImplementedError(f"{self.operation} changes no image")


class ImageCodec(ImageStep):
    """Lossy compression. As the last step, its bytes are the file: nothing is compressed twice."""

    def encode_image(self, image: Picture) -> bytes:
        """Returns the compressed file."""
        raise NotImplementedError(f"{self.operation} encodes no image")

    def change_image(self, image: Picture, _random: np.random.Generator) -> Picture:
        """Compresses and decodes."""
        return Image.open(BytesIO(self.encode_image(image))).convert("RGB")


class Jpeg(ImageCodec):
    """JPEG as Pillow writes it: the tables of ITU-T T.81, K.1 scaled by the quality, colours at half the resolution."""

    ending: ClassVar[str | None] = ".jpg"
    operation: Literal["jpeg"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)]

    def encode_image(self, image: Picture) -> bytes:
        """Returns a JPEG file."""
        return _save_bytes(image, "JPEG", quality=self.quality)


class Webp(ImageCodec):
    """Lossy WebP."""

    ending: ClassVar[str | None] = ".webp"
    operation: Literal["webp"] = "webp"
    quality: Annotated[int, Field(ge=0, le=100)]

    def encode_image(self, image: Picture) -> bytes:
        """Returns a WebP file."""
        return _save_bytes(image, "WEBP", quality=self.quality)


class Rescale(ImageStep):
    """Changes the size by a factor (bicubic, antialiased)."""

    operation: Literal["rescale"] = "rescale"
    factor: Annotated[float, Field(gt=0, le=4)]

    def change_image(self, image: Picture, _random: np.random.Generator) -> Picture:
        """Returns an image of `factor` times the width and height, rounded, at least one pixel."""
        return _resize(image, *(max(1, round(side * self.factor)) for side in image.size))


class DownUp(ImageStep):
    """Shrinks by a factor and enlarges to the size it was (bicubic, antialiased): the details are gone."""

    operation: Literal["down_up"] = "down_up"
    factor: Annotated[float, Field(gt=0, lt=1)]

    def change_image(self, image: Picture, _random: np.random.Generator) -> Picture:
        """Returns an image of the same size."""
        return _resize(_resize(image, *(max(1, round(side * self.factor)) for side in image.size)), *image.size)


class Blur(ImageStep):
    """Gaussian blur; `sigma` in pixels of the file."""

    operation: Literal["blur"] = "blur"
    sigma: Annotated[float, Field(gt=0, le=100)]

    def change_image(self, image: Picture, _random: np.random.Generator) -> Picture:
        """Returns the blurred image; Pillow approximates the Gaussian by three box filters."""
        return image.filter(ImageFilter.GaussianBlur(self.sigma))


class Sharpen(ImageStep):
    """Unsharp mask: adds `amount` times the difference to a Gaussian blur of `sigma` pixels."""

    operation: Literal["sharpen"] = "sharpen"
    amount: Annotated[float, Field(gt=0, le=5)]
    sigma: Annotated[float, Field(gt=0, le=100)] = 1.0

    def change_image(self, image: Picture, _random: np.random.Generator) -> Picture:
        """Returns the sharpened image."""
        return image.filter(ImageFilter.UnsharpMask(self.sigma, round(100 * self.amount), threshold=0))


class ImageNoise(ImageStep):
    """Gaussian noise of its own in each pixel and channel; `sigma` in levels of 0 to 255."""

    operation: Literal["noise"] = "noise"
    sigma: Annotated[float, Field(gt=0, le=255)]

    def change_image(self, image: Picture, random: np.random.Generator) -> Picture:
        """Returns the noisy image, clipped to 0..255."""
        pixels = np.asarray(image, dtype=np.float32)
        noisy = pixels + np.float32(self.sigma) * random.standard_normal(pixels.shape, dtype=np.float32)
        return Image.fromarray(np.rint(noisy).clip(0, 255).astype(np.uint8))


class Crop(ImageStep):
    """Cuts a share off the width and off the height.

    Attributes:
        share: What is cut off of each.
        left: How much of that is cut at the left; the rest at the right.
        top: How much of that is cut at the top; the rest at the bottom.
    """

    operation: Literal["crop"] = "crop"
    share: Annotated[float, Field(gt=0, lt=1)]
    left: Fraction = 0.5
    top: Fraction = 0.5

    def change_image(self, image: Picture, _random: np.random.Generator) -> Picture:
        """Returns the part that is left, of at least one pixel."""
        width, height = (max(1, round(side * (1 - self.share))) for side in image.size)
        left, top = math.floor((image.width - width) * self.left), math.floor((image.height - height) * self.top)
        return image.crop((left, top, left + width, top + height))


class Shift(ImageStep):
    """Cuts columns off the left and rows off the top, so that blocks of 8 pixels of a second JPEG lie elsewhere."""

    operation: Literal["shift"] = "shift"
    columns: Annotated[int, Field(ge=0, le=64)] = 0
    rows: Annotated[int, Field(ge=0, le=64)] = 0

    def change_image(self, image: Picture, _random: np.random.Generator) -> Picture:
        """Returns the image without them, of at least one pixel."""
        return image.crop((min(self.columns, image.width - 1), min(self.rows, image.height - 1), *image.size))


class Brightness(ImageStep):
    """Multiplies all values by a factor and clips them: below 1 is darker."""

    operation: Literal["brightness"] = "brightness"
    factor: Annotated[float, Field(gt=0, le=10)]

    def change_image(self, image: Picture, _random: np.random.Generator) -> Picture:
        """Returns the darker or brighter image."""
        return ImageEnhance.Brightness(image).enhance(self.factor)


AnyImageStep = Annotated[
    Jpeg | Webp | Rescale | DownUp | Blur | Sharpen | ImageNoise | Crop | Shift | Brightness,
    Field(discriminator="operation"),
]


def encode_png(image: Picture) -> bytes:
    """Returns a PNG file."""
    return _save_bytes(image, "PNG", compress_level=1)  # twice as fast as 6, a few percent larger


def _resize(image: Picture, width: int, height: int) -> Picture:
    """Returns the image at a size, resampled bicubically; Pillow widens the filter where it shrinks."""
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _save_bytes(image: Picture, kind: str, **options: int) -> bytes:
    """Returns the file that Pillow writes."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
