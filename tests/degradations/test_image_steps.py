from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from automl.degradations.copies import degrade_file
from automl.degradations.degradation import ImageDegradation, choose_degradations
from automl.media.images import read_rgb

SIZE = (160, 120)


@pytest.fixture
def photo(tmp_path):
    """A PNG with details of all sizes."""
    random = np.random.default_rng(3)
    pixels = np.zeros((SIZE[1], SIZE[0], 3))
    for step in (1, 4, 16):
        part = random.uniform(20, 60, (SIZE[1] // step + 1, SIZE[0] // step + 1, 3))
        pixels += part.repeat(step, 0).repeat(step, 1)[: SIZE[1], : SIZE[0]]
    path = tmp_path / "photo.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def degrade(photo, tmp_path):
    def apply(name, source=photo, folder="copies"):
        return degrade_file(source, choose_degradations([name], medium="image")[0], tmp_path / folder)

    return apply


def read(path):
    return np.asarray(read_rgb(path)).astype(float)


def detail(path):
    """The energy of what changes from one pixel to the next."""
    return float(np.square(np.diff(read(path), axis=1)).mean())


@pytest.mark.parametrize("quality", [90, 70, 50, 30])
def test_jpeg_is_what_pillow_writes_at_that_quality(quality, photo, degrade):
    buffer = BytesIO()
    Image.open(photo).save(buffer, "JPEG", quality=quality)
    copy = degrade(f"jpeg-{quality}")
    assert copy.suffix == ".jpg"
    with Image.open(copy) as image, Image.open(buffer) as expected:
        assert (image.format, image.size) == ("JPEG", SIZE)
        assert image.quantization == expected.quantization
    assert copy.read_bytes() == buffer.getvalue()  # compressed once


def test_webp_is_smaller_at_the_lower_quality(degrade):
    copies = [degrade("webp-75"), degrade("webp-40")]
    for copy in copies:
        with Image.open(copy) as image:
            assert (image.format, image.size, copy.suffix) == ("WEBP", SIZE, ".webp")
    assert copies[1].stat().st_size < 0.9 * copies[0].stat().st_size


@pytest.mark.parametrize(("weak", "strong"), [("down-up-2", "down-up-4"), ("blur-1", "blur-2")])
def test_details_go_and_the_size_stays(weak, strong, photo, degrade):
    copies = degrade(weak), degrade(strong)
    assert [read_rgb(copy).size for copy in copies] == [SIZE, SIZE]
    assert detail(copies[1]) < 0.6 * detail(copies[0]) < 0.3 * detail(photo)
    assert read(copies[1]).mean() == pytest.approx(read(photo).mean(), abs=1)


@pytest.mark.parametrize("sigma", [5, 15])
def test_noise_has_its_strength(sigma, photo, degrade):
    noise = read(degrade(f"noise-{sigma}")) - read(photo)
    assert noise.std() == pytest.approx(sigma, rel=0.03)
    assert abs(noise.mean()) < 0.2
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03


def test_noise_is_the_files_own_and_the_same_each_time(photo, degrade, tmp_path):
    first, again = degrade("noise-5"), degrade("noise-5", folder="others")
    assert first.read_bytes() == again.read_bytes()
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    assert degrade("noise-5", other).read_bytes() != first.read_bytes()
    elsewhere = tmp_path / "moved" / photo.name
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(photo.read_bytes())
    assert degrade("noise-5", elsewhere).read_bytes() == first.read_bytes()
    # of another name, other noise
    weak, strong = (read(degrade(name)) - read(photo) for name in ("noise-5", "noise-15"))
    assert abs(np.corrcoef(weak.ravel(), strong.ravel())[0, 1]) < 0.03


@pytest.mark.parametrize(("name", "box"), [("crop-10", (12, 3, 156, 111)), ("crop-25", (32, 9, 152, 99))])
def test_a_crop_is_that_part(name, box, photo, degrade):
    left, top, right, bottom = box
    assert np.array_equal(read(degrade(name)), read(photo)[top:bottom, left:right])


@pytest.mark.parametrize(("name", "factor"), [("darker", 0.6), ("brighter", 1.5)])
def test_brightness_is_multiplied(name, factor, photo, degrade):
    expected = (read(photo) * factor).clip(0, 255)
    assert np.abs(read(degrade(name)) - expected).max() <= 1


def test_a_screenshot_has_another_size_and_no_loss(degrade):
    copy = degrade("screenshot")
    with Image.open(copy) as image:
        assert (image.format, image.size) == ("PNG", (133, 100))


def test_a_screenshot_is_a_little_sharper_than_plain_scaling(photo, tmp_path, degrade):
    plain = ImageDegradation.model_validate({"name": "plain", "steps": [{"operation": "rescale", "factor": 0.83}]})
    ratio = detail(degrade("screenshot")) / detail(degrade_file(photo, plain, tmp_path))
    assert 1.1 < ratio < 2


def test_a_second_jpeg_has_its_own_tables_and_other_blocks(photo, degrade):
    copy = degrade("jpeg-twice")
    with Image.open(copy) as image:
        assert image.size == (round((160 - 3) * 0.95), round((120 - 5) * 0.95))
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=60)
        assert image.quantization == Image.open(buffer).quantization
    # the first one has left its marks: without it, the copy would be another one
    steps = choose_degradations(["jpeg-twice"])[0].steps[1:]
    once = degrade_file(photo, ImageDegradation(name="jpeg-once", steps=steps), copy.parent)
    assert 0.5 < np.abs(read(copy) - read(once)).mean() < 10


def test_an_orientation_is_applied(photo, degrade, tmp_path):
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo).save(turned, exif=exif, quality=95)
    copy = degrade("darker", turned)
    with Image.open(copy) as image:
        assert image.size == SIZE[::-1]
        assert not image.getexif()
    assert np.abs(read(copy) - 0.6 * read(turned)).max() <= 1


@pytest.mark.parametrize("name", [item.name for item in choose_degradations(["*"], medium="image")])
def test_one_pixel_stays_an_image(name, tmp_path, degrade):
    path = tmp_path / "dot.png"
    Image.new("L", (1, 1), 200).save(path)
    assert read_rgb(degrade(name, path)).size == (1, 1)
