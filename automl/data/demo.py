"""The embedded demo: real photographs against forgeries made from them, with nothing to download.

The photographs are those inside the wheels of scikit-image and scikit-learn whose licence is known to be free. From
each, square windows are cut at random and brought to 64 px; half stay as they are (`real`), half are forged (`fake`) in
one of three ways:

- `generated`: halved or quartered, and doubled again the way a generator's last layers do it (nearest plus a small
  convolution, or a transposed convolution), which leaves a periodic trace (Odena et al. 2016,
  "Deconvolution and Checkerboard Artifacts"; Zhang et al. 2019, arXiv:1907.06515), then sharpened back to the
  detail it had (four ninths of the forgeries);
- `swap`: such a generated copy blended into the photograph under a mask, as a face swap is (four ninths);
- `blend`: self-blending alone (`automl.data.self_blend`; a ninth), the hardest.

So that nothing cheaper than these traces tells the classes apart, both are cut, resized, recoloured, given noise
and written alike: windows are reduced by a random factor first, real ones as well. `group` is the
photograph, and no photograph may lie on both sides of a split.
"""

import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from scipy.ndimage import correlate1d

from automl.data.self_blend import random_mask, self_blend
from automl.errors import DataError
from automl.files import cache_dir

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]

SIDE = 64  # px
PAIRS = 72  # real and fake patches of each photograph
KINDS = (*("generated", "swap") * 4, "blend")  # in turn


@dataclass(frozen=True)
class Photo:
    """A photograph inside another package's wheel."""

    package: str
    path: str
    licence: str
    source: str

    @property
    def group(self) -> str:
        """The photograph's short name."""
        return Path(self.path).stem

    def read_image(self) -> Image.Image:
        """Reads it from the installed package; DataError if the package, or the file in it, is not there."""
        spec = find_spec(self.package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (file := Path(folder) / self.path).is_file():
                with Image.open(file) as image:
                    return image.convert("RGB")
        raise DataError(
            f"the demo needs {self.path} of the package {self.package}, which is not installed here: "
            f"reinstall scikit-image and scikit-learn, or give --data"
        )


PHOTOS = (
    Photo("skimage", "data/astronaut.png", "public domain", "NASA, Great Images: Eileen Collins, flic.kr/p/r9qvLn"),
    Photo("skimage", "data/brick.png", "CC0", "CC0Textures, Bricks25"),
    Photo("skimage", "data/camera.png", "CC0", "Lav Varshney"),
    Photo("skimage", "data/chelsea.png", "CC0", "Stefan van der Walt"),
    Photo("skimage", "data/clock_motion.png", "public domain", "Stefan van der Walt"),
    Photo("skimage", "data/coffee.png", "CC0", "Rachel Michetti, courtesy of Pikolo Espresso Bar"),
    Photo("skimage", "data/coins.png", "no known copyright restrictions", "Brooklyn Museum Collection, image 51611"),
    Photo("skimage", "data/grass.png", "CC0", "DeviantArt, linolafett, Grass-01"),
    Photo("skimage", "data/gravel.png", "CC0", "CC0Textures, Gravel04"),
    Photo("skimage", "data/hubble_deep_field.jpg", "public domain (NASA)", "HubbleSite, release 2012-37"),
    Photo("skimage", "data/ihc.png", "no known copyright restrictions", "CMMI, colonic glands under a microscope"),
    Photo("skimage", "data/retina.jpg", "CC0", "Mikael Häggström, doi:10.15347/wjm/2014.008"),
    Photo("skimage", "data/rocket.jpg", "public domain", "SpaceX, flickr.com/photos/spacexphotos/16511594820"),
    Photo("sklearn", "datasets/images/china.jpg", "CC BY 2.0", "flickr.com/photos/danielbuechele/6061409035"),
    Photo("sklearn", "datasets/images/flower.jpg", "CC BY 2.0", "flickr.com/photos/vultilion/6056698931"),
)
"""Left out although shipped: the motorcycle pair (Middlebury: no licence given), moon (no source given)."""


def demo_dataset(cache: Path | None = None) -> Path:
    """Makes the demo data set once, in automl's cache folder or another one, and finds it from then on.

    Returns:
        The folder `demo-v1` with `real/*.png`, `fake/*.png` (64 px, RGB), `labels.csv` (columns file, label, group) and
        `SOURCES.md` (licences). It appears only when it is whole; of two processes making it at once, one wins.

    Raises:
        DataError: If the photographs are missing, or the folder cannot be written.
    """
    folder = (cache or cache_dir()) / "demo-v1"
    if (folder / "labels.csv").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".demo-v1."))
        try:
            _write_patches(making)
            making.chmod(0o755)  # mkdtemp's is for its owner alone
            try:
                making.rename(folder)
            except OSError:
                if not (folder / "labels.csv").is_file():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    except OSError as exc:
        raise DataError(f"cannot make the demo in {folder}: {exc}; set AUTOML_CACHE to a folder that can be") from exc
    return folder


def _write_patches(folder: Path) -> None:
    """Writes the pictures, their labels and their sources."""
    for name in ("real", "fake"):
        (folder / name).mkdir()
    rows = ["file,label,group"]
    for number, photo in enumerate(PHOTOS):
        image = photo.read_image()
        rng = np.random.default_rng([2022, number])
        for index in range(2 * PAIRS):
            kind = KINDS[index % len(KINDS)] if index < PAIRS else "real"
            patch = make_patch(image, kind, rng)
            label = "real" if kind == "real" else "fake"
            file = f"{label}/{photo.group}-{index:03d}" + (f"-{kind}.png" if label == "fake" else ".png")
            Image.fromarray(patch).save(folder / file, compress_level=1)
            rows.append(f"{file},{label},{photo.group}")
    head = "# Sources\n\nAll patches are cut from these photographs and changed (`automl/data/demo.py`).\n\n"
    lines = [f"| {photo.package}/{photo.path} | {photo.licence} | {photo.source} |" for photo in PHOTOS]
    lines = ["| photograph | licence | source |", "|---|---|---|", *lines, ""]
    origin = "Licences as given in the docstrings of skimage.data and in sklearn/datasets/images/README.txt."
    (folder / "SOURCES.md").write_text(head + "\n".join([*lines, origin, ""]), encoding="utf-8")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


# --- patches ----------------------------------------------------------------------------------------------------


def make_patch(photo: Image.Image, kind: str, rng: np.random.Generator) -> Pixels:
    """Cuts a patch, (64, 64, 3) uint8, out of a photograph of at least 128 px a side, and forges it.

    `kind` is `real` (not forged), `blend`, `generated` or `swap`; `rng` decides everything else.
    """
    patch = _cut_window(photo, rng)
    gray = bool((patch == patch[..., :1]).all())
    forged = forge_patch(patch, kind, rng)
    if gray:  # a forgery in colour would be no riddle
        forged = np.asarray(Image.fromarray(forged).convert("L").convert("RGB"))
    return _vary_colors(forged, gray, rng)


def _cut_window(photo: Image.Image, rng: np.random.Generator) -> Pixels:
    """Cuts a window of random size and place, turned over at random, brings it to the side, and shifts its colours."""
    for _ in range(20):  # a window with something in it: sky and black borders show no trace of anything
        side = int(rng.integers(64, 129))
        left, top = int(rng.integers(photo.width - side + 1)), int(rng.integers(photo.height - side + 1))
        kind = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)[int(rng.integers(2))]
        window = photo.resize((SIDE, SIDE), kind, box=(left, top, left + side, top + side))
        pixels = np.asarray(window)
        if pixels.astype(np.float32).mean(-1).std() > 12:
            break
    return np.ascontiguousarray(pixels[:, :: int(rng.choice([-1, 1]))])


def forge_patch(patch: Pixels, kind: str, rng: np.random.Generator) -> Pixels:
    """Forges a patch (64, 64, 3) uint8; `kind` as of `make_patch`, and a real one stays as it is."""
    if kind == "real":
        return patch
    if kind == "blend":
        for _ in range(10):  # one that can be seen
            forged = self_blend(patch, rng)
            if np.abs(forged.astype(np.float32) - patch).mean() > 8:
                break
        return forged
    generated = _imitate_generator(patch, rng)
    if kind == "generated":
        return generated
    mask = np.maximum(random_mask(SIDE, SIDE, rng), random_mask(SIDE, SIDE, rng))[..., None]  # (S, S, 1)
    return cast(Pixels, (patch + mask * (generated.astype(np.float32) - patch) + 0.5).clip(0, 255).astype(np.uint8))


def _imitate_generator(patch: Pixels, rng: np.random.Generator) -> Pixels:
    """Makes a patch small and large again as a generator's last one or two layers would."""
    layers = int(rng.integers(1, 3))
    side = SIDE >> layers
    small = Image.fromarray(patch).resize((side, side), Image.Resampling.LANCZOS)
    large = np.asarray(small, np.float32)
    layer = (_double_nearest, _double_transposed)[int(rng.integers(2))]
    for _ in range(layers):
        large = layer(large, rng)
    return _restore_detail(large, patch)


def _double_nearest(small: Values, rng: np.random.Generator) -> Values:
    """Doubles (h, w, 3) by repeating pixels, then a 3 x 3 convolution that smooths the blocks a little."""
    blocks = small.repeat(2, axis=0).repeat(2, axis=1)
    soft = np.array([1, rng.uniform(8, 20), 1])
    smooth = correlate1d(correlate1d(blocks, soft / soft.sum(), axis=0), soft / soft.sum(), axis=1)
    return cast(Values, smooth)


def _double_transposed(small: Values, rng: np.random.Generator) -> Values:
    """Doubles (h, w, 3) by a transposed convolution: stride 2, a 3 x 3 kernel whose overlap is uneven."""
    uneven = rng.choice([-1, 1]) * rng.uniform(0.08, 0.2)
    for axis in (0, 1):
        last = np.take(small, [-1], axis)
        following = np.concatenate([np.take(small, range(1, small.shape[axis]), axis), last], axis)
        pair = np.stack([(1 + uneven) * small, (1 - uneven) * (small + following) / 2], axis=axis + 1)
        shape = list(small.shape)
        shape[axis] *= 2
        small = pair.reshape(shape)
    return small.astype(np.float32)


def _restore_detail(large: Values, patch: Pixels) -> Pixels:
    """Gives the doubled patch the mean, the spread and about the sharpness of the original."""
    blur = ImageFilter.GaussianBlur(1.0)
    original = patch.astype(np.float32)
    smooth = np.asarray(Image.fromarray(large.clip(0, 255).astype(np.uint8)).filter(blur), np.float32)
    detail = large - smooth
    wanted = original - np.asarray(Image.fromarray(patch).filter(blur), np.float32)
    gain = min(float(wanted.std()) / max(float(detail.std()), 1e-3), 2.5)
    sharp = smooth + gain * detail
    spread = original.std((0, 1)) / np.maximum(sharp.std((0, 1)), 1e-3)
    matched = (sharp - sharp.mean((0, 1))) * spread + original.mean((0, 1))
    return cast(Pixels, (matched + 0.5).clip(0, 255).astype(np.uint8))


def _vary_colors(patch: Pixels, gray: bool, rng: np.random.Generator) -> Pixels:
    """Gives every patch, real or forged, the same random colour cast, contrast and a little noise."""
    gains = rng.uniform(0.8, 1.2) * (1 if gray else rng.uniform(0.9, 1.1, 3))
    shift = rng.uniform(-15, 15) + (0 if gray else rng.uniform(-10, 10, 3))
    noise = rng.normal(0, rng.uniform(0, 1), (SIDE, SIDE, 1 if gray else 3))
    values = (patch.astype(np.float32) - 128) * gains + 128 + shift + noise
    return cast(Pixels, (values + 0.5).clip(0, 255).astype(np.uint8))
