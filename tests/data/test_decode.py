import numpy as np
import pytest
from PIL import Image

from automl.data.decode import image_size, read_rgb
from automl.errors import DataError

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


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), "red")
    image.paste((0, 0, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: the left half is the top
    image.save(tmp_path / "x.jpg", exif=exif)
    found = pixels(tmp_path / "x.jpg")
    assert found.shape == (40, 20, 3)
    assert found[5, 10, 2] > 200 > 60 > found[5, 10, 0]
    assert image_size(tmp_path / "x.jpg") == (20, 40)


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


@pytest.mark.parametrize("factor", [0.4, 0.7])  # Pillow raises beyond twice its limit and only warns below
def test_a_bomb_is_refused(tmp_path, monkeypatch, factor):
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(100 * 100 * factor))
    for read in (read_rgb, image_size):
        with pytest.raises(DataError, match=r"x\.png.*pixels"):
            read(tmp_path / "x.png")


def test_only_image_decoders_see_a_file(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(DataError):
        read_rgb(tmp_path / "x.jpg")
