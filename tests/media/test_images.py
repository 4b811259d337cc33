import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from automl.data.transforms import shown_part
from automl.errors import DataError
from automl.media.images import LONGEST, image_size, probe_image, read_pixels, read_rgb, shrink_size
from automl.recipe.augmentation import ResizeCrop

GRADIENT = np.tile(np.arange(256, dtype=np.uint8), (32, 1))


def pixels(path, **options):
    return np.asarray(read_rgb(path, **options)).astype(int)


def test_gray_of_8_and_16_bits_is_the_same_picture(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / "8.png")
    Image.fromarray(GRADIENT.astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(GRADIENT.astype(np.uint16) * 257).save(tmp_path / "16.tif")
    Image.fromarray(GRADIENT.astype(np.float32) / 255).save(tmp_path / "float.tif")
    expected = np.repeat(GRADIENT[..., None], 3, axis=2)
    for name in ("8.png", "16.png", "16.tif", "float.tif"):
        assert (pixels(tmp_path / name) == expected).all(), name


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "RGBA", "LA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    color = Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode)
    color.save(tmp_path / f"x.{suffix}")
    image = read_rgb(tmp_path / f"x.{suffix}")
    assert (image.mode, image.size) == ("RGB", (20, 10))
    assert (np.asarray(image) > 240).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_every_format_opens_and_tells_its_size(tmp_path, suffix):
    Image.new("RGB", (24, 16), (200, 30, 30)).save(tmp_path / f"x.{suffix}")
    assert np.abs(pixels(tmp_path / f"x.{suffix}") - (200, 30, 30)).max() < 12
    assert image_size(tmp_path / f"x.{suffix}") == (24, 16)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_the_invisible_is_white_whatever_color_hides_below(tmp_path, suffix):
    image = Image.new("RGBA", (8, 8), (10, 200, 30, 0))
    image.paste((255, 0, 0, 255), (0, 0, 4, 8))
    image.save(tmp_path / f"x.{suffix}", lossless=True)
    found = pixels(tmp_path / f"x.{suffix}")
    assert (found[:, 6:] == 255).all()
    assert np.abs(found[:, :2] - (255, 0, 0)).max() < 3


def test_transparent_palette_and_color_key(tmp_path):
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png", transparency=1)
    Image.new("RGB", (8, 8), (0, 0, 255)).save(tmp_path / "key.png", transparency=(0, 0, 255))
    assert (pixels(tmp_path / "p.png") == 255).all()
    assert (pixels(tmp_path / "key.png") == 255).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_exif_rotation_is_applied(tmp_path, suffix):
    image = Image.new("RGB", (40, 20), "red")
    image.paste((0, 0, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: the left half is the top
    image.save(tmp_path / f"x.{suffix}", exif=exif)
    found = pixels(tmp_path / f"x.{suffix}")
    assert found.shape == (40, 20, 3)
    assert found[5, 10, 2] > 200 > 60 > found[5, 10, 0]
    assert image_size(tmp_path / f"x.{suffix}") == (20, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_no_harm(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", exif=b"Exif\x00\x00MM\x00*garbage")
    assert read_rgb(tmp_path / "x.jpg").size == (8, 8)
    assert image_size(tmp_path / "x.jpg") == (8, 8)


def test_a_large_jpeg_is_drafted_and_a_near_one_is_untouched(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (512, 640, 3), dtype=np.uint8)).save(tmp_path / "x.jpg")
    assert read_rgb(tmp_path / "x.jpg", short_side=64).size == (160, 128)  # at least twice what is asked
    near = pixels(tmp_path / "x.jpg", short_side=257)
    assert (near == pixels(tmp_path / "x.jpg")).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_a_truncated_file_is_an_error(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="cannot read"):
        read_rgb(path)


def test_what_is_no_image_is_an_error(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("text.jpg", "empty.png", "folder.png", "missing.png"):
        with pytest.raises(DataError, match=name):
            read_rgb(tmp_path / name)
        with pytest.raises(DataError, match=name):
            image_size(tmp_path / name)


def scaled(path):
    """The gray that became of a file, and what is said of it."""
    found = pixels(path)
    assert (found == found[..., :1]).all()
    return found[..., 0], probe_image(path).scaling


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (GRADIENT.astype(np.uint16), "more than 8 bits: 255 is white"),
        (np.rint(GRADIENT / 255 * 4095).astype(np.uint16), "more than 8 bits: 4095 is white"),
        (GRADIENT.astype(np.uint16) * 257, ""),
        (GRADIENT.astype(np.int32) * 257, ""),
        (GRADIENT.astype(np.int32) * 100_000, "more than 8 bits: each file is scaled to its own range"),
        (
            GRADIENT.astype(np.int32) * 16 - 1024,
            "more than 8 bits, some negative: each file is scaled to its own range",
        ),
        (GRADIENT.astype(np.float32) / 255, "floating point: 1 is white"),
        (GRADIENT.astype(np.float32), "floating point: 255 is white"),
        (GRADIENT.astype(np.float32) * 40, "floating point: each file is scaled to its own range"),
        (GRADIENT.astype(np.float32) / 1e6, "floating point: each file is scaled to its own range"),
        (
            GRADIENT.astype(np.float32) / 127.5 - 1,
            "floating point, some negative: each file is scaled to its own range",
        ),
    ],
)
def test_more_than_8_bits_become_the_same_picture_and_are_told(tmp_path, values, said):
    Image.fromarray(values).save(tmp_path / "x.tif")
    found, told = scaled(tmp_path / "x.tif")
    assert (found == GRADIENT).all()
    assert told == said


def png_of_16_bits(values):
    """RGB, which Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_16_bits(values, order):
    height, width, _ = values.shape
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, values.size * 2)]
    data = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        data += struct.pack(f"{order}HHI" + ("HH" if short else "I"), tag, kind, count, value, *([0] if short else []))
    return data + struct.pack(f"{order}IHHH", 0, 16, 16, 16) + values.astype(f"{order}u2").tobytes()


@pytest.mark.parametrize("full", [255, 4095, 65_535])
def test_rgb_of_more_than_8_bits_is_scaled_alike(tmp_path, full):
    expected = np.stack([GRADIENT, GRADIENT[:, ::-1], np.full_like(GRADIENT, 90)], axis=-1)
    values = np.rint(expected / 255 * full).astype(np.uint16)
    files = {
        "x.png": png_of_16_bits(values),
        "le.tif": tiff_of_16_bits(values, "<"),
        "be.tif": tiff_of_16_bits(values, ">"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert (pixels(tmp_path / name) == expected).all(), name
        assert probe_image(tmp_path / name).scaling == ("" if full == 65_535 else f"more than 8 bits: {full} is white")


def test_a_broken_pixel_does_not_darken_the_others(tmp_path):
    values = np.rint(GRADIENT / 255 * 4095).astype(np.uint16)
    values[5, 5] = 65_535
    Image.fromarray(values).save(tmp_path / "x.png")
    found, _ = scaled(tmp_path / "x.png")
    assert found[5, 5] == 255
    assert np.delete(found, 5, axis=0).tolist() == np.delete(GRADIENT, 5, axis=0).tolist()


def test_what_is_not_finite_does_not_spoil_the_rest(tmp_path):
    values = GRADIENT.astype(np.float32) / 255
    values[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "x.tif")
    found, said = scaled(tmp_path / "x.tif")
    assert found[0, :3].tolist() == [0, 255, 0]
    assert (found[1:] == GRADIENT[1:]).all()
    assert said == "floating point: 1 is white"


@pytest.mark.parametrize(
    ("value", "gray"), [(np.uint16(0), 0), (np.uint16(40_000), 156), (np.int32(-5), 0), (np.float32(np.nan), 0)]
)
def test_a_picture_of_one_value(tmp_path, value, gray):
    Image.fromarray(np.full((9, 7), value)).save(tmp_path / "x.tif")
    found, said = scaled(tmp_path / "x.tif")
    assert (found == gray).all()
    assert not said


def test_lab_is_converted(tmp_path):
    Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (255, 128, 128)]).save(tmp_path / "x.tif")
    assert (pixels(tmp_path / "x.tif") > 250).all()


def test_what_is_found_in_a_file(tmp_path):
    Image.new("RGB", (24, 16)).save(tmp_path / "x.jpg")
    assert probe_image(tmp_path / "x.jpg") == (24, 16, "")


@pytest.mark.parametrize("factor", [0.4, 0.7])  # Pillow raises beyond twice its limit and only warns below
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_and_a_large_photograph_is_read(tmp_path, monkeypatch, factor, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.new("L", (100, 100)).save(path, progressive=True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(100 * 100 * factor))
    for read in (read_rgb, image_size, probe_image):
        if factor > 0.5:
            read(path)
        else:
            with pytest.raises(DataError, match=rf"x\.{suffix}: 100×100 .* megapixels, the limit"):
                read(path)


def test_a_jpeg_counts_with_the_pixels_that_are_decoded(tmp_path, monkeypatch):
    Image.new("RGB", (400, 200)).save(tmp_path / "x.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert image_size(tmp_path / "x.jpg") == (400, 200)
    assert probe_image(tmp_path / "x.jpg") == (400, 200, "")
    assert read_rgb(tmp_path / "x.jpg", short_side=50).size == (200, 100)
    with pytest.raises(DataError, match="limit"):
        read_rgb(tmp_path / "x.jpg")


# --- the pixels that networks are shown -------------------------------------------------------------------------


def before(image, size):
    """What was read of an image when it was cut to 1:2 first."""
    width, height = image.size
    longest = 2 * min(width, height)
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    width, height = min(width, longest), min(height, longest)
    scale = min(1.0, size / min(width, height))
    box = (left, top, left + width, top + height)
    return np.asarray(image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC, box=box))


@pytest.mark.parametrize("size", [16, 33, 80, 224])
@pytest.mark.parametrize("shape", [(90, 120), (301, 200), (80, 160), (101, 205), (480, 80), (407, 51), (9, 70)])
def test_the_middle_of_any_image_is_what_it_was_when_the_ends_were_cut_off(tmp_path, shape, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    image.save(tmp_path / "x.png")
    found, expected = read_pixels(tmp_path / "x.png", size), before(image, size)
    difference = np.abs(shown_part(found, ResizeCrop()).astype(int) - expected)
    assert difference.max() <= 1, "Pillow keeps a box in single precision"
    assert (difference > 0).mean() < 0.002
    if max(shape) <= 2 * min(shape):
        assert found.shape == expected.shape  # ordinary pictures cost what they did


@pytest.mark.parametrize("shape", [(480, 80), (80, 480), (300, 90), (2000, 40), (40, 2000), (3000, 3)])
def test_nothing_is_cut_off_and_the_pixels_are_bounded(tmp_path, shape):
    size, ends = 32, max(1, max(shape) // 16)
    picture = np.full((*shape, 3), 90, dtype=np.uint8)
    along = picture if shape[0] > shape[1] else picture.swapaxes(0, 1)
    along[:ends], along[-ends:] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(picture).save(tmp_path / "x.png")
    found = read_pixels(tmp_path / "x.png", size)
    assert found.shape[:2] == shrink_size(*shape[::-1], size)[::-1]
    assert found.shape[0] * found.shape[1] <= 1.1 * LONGEST * size**2
    assert (found.shape[0] > found.shape[1]) == (shape[0] > shape[1])
    first, last = (found[0], found[-1]) if shape[0] > shape[1] else (found[:, 0], found[:, -1])
    assert (first == (255, 0, 0)).all()
    assert (last == (0, 0, 255)).all()
