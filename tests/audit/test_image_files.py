import numpy as np
import pytest
from PIL import Image

from automl.audit.image_files import estimate_quality, read_image_properties
from automl.errors import DataError


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("quality", [30, 50, 60, 75, 85, 90, 95, 98, 100])
def test_the_quality_is_what_was_asked_for(tmp_path, picture, quality):
    picture.save(tmp_path / "a.jpg", quality=quality)
    assert read_image_properties(str(tmp_path / "a.jpg"))["quality"] == quality


def test_files_without_tables_have_no_quality(tmp_path, picture):
    picture.save(tmp_path / "a.png")
    assert "quality" not in read_image_properties(str(tmp_path / "a.png"))
    assert estimate_quality({}) is None


def test_a_turned_photograph_has_the_size_that_is_shown(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "Camera 1.0\0"
    picture.save(tmp_path / "a.jpg", exif=exif.tobytes())
    values = read_image_properties(str(tmp_path / "a.jpg"))
    assert (values["width"], values["height"], values["aspect"]) == (30, 40, 0.75)
    assert (values["encoder"], values["exif"]) == ("Camera 1.0", "yes")
    assert values["bytes_per_pixel"] == round((tmp_path / "a.jpg").stat().st_size / 1200, 4)


def test_broken_tags_lose_nothing_else(tmp_path, picture):
    picture.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    values = read_image_properties(str(tmp_path / "a.jpg"))
    # Pillow cannot open it with them, and so it is read without
    assert (values["container"], values["exif"], values["encoder"]) == ("JPEG", "no", None)


def test_no_image(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(DataError, match="not an image"):
        read_image_properties(str(tmp_path / "a.jpg"))
