import numpy as np
import pandas as pd
import pytest
from PIL import Image

from automl.data.dataset import Dataset
from automl.data.picture_shapes import cut_off_note, mostly_long, picture_sizes
from tests.fixtures.clips import HEIGHT, WIDTH, write_video

TALL, SQUARE, CAMERA = (80, 480), (100, 100), (640, 480)


def dataset(paths, media="image"):
    rows = pd.DataFrame({"path": list(map(str, paths)), "name": [path.name for path in paths]})
    return Dataset(paths[0].parent, "folder", rows, ("a", "b"), None, 1, (), "x", media)


@pytest.mark.parametrize(
    ("sizes", "note", "long"),
    [
        ([TALL] * 38 + [SQUARE] * 2, "38 of 40 images are longer than 7:5; their middle square leaves out 83 %", True),
        ([CAMERA] * 40, None, False),
        ([(480, 640)] * 40, None, False),
        ([(1920, 1080)] * 4, "4 of 4 images are longer than 7:5; their middle square leaves out 44 %", True),
        ([CAMERA] * 30 + [(1500, 1000)] * 10, "10 of 40 images are longer than 7:5; their middle square", False),
        ([SQUARE] * 39 + [TALL], None, False),
        ([(2480, 3508)] * 9, "leaves out 29 %", True),  # pages of A4
        ([], None, False),
    ],
)
def test_long_pictures_are_told_and_most_of_them_decide(sizes, note, long):
    found = cut_off_note(sizes)
    assert found is None if note is None else note in found
    assert mostly_long(sizes) is long


def test_sizes_are_read_upright_and_what_cannot_be_read_is_left_out(tmp_path):
    picture = Image.new("RGB", (60, 20))
    picture.save(tmp_path / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(tmp_path / "b.jpg", exif=turned)
    (tmp_path / "c.png").write_text("no image")
    assert picture_sizes(dataset([tmp_path / name for name in ("a.png", "b.jpg", "c.png")])) == [(60, 20), (20, 60)]


def test_of_many_images_some_are_looked_at(tmp_path):
    paths = [tmp_path / f"{k:04}.png" for k in range(600)]
    for k, path in enumerate(paths):
        Image.fromarray(np.zeros((1, k // 300 + 1), dtype=np.uint8)).save(path)
    sizes = picture_sizes(dataset(paths))
    assert 190 <= len(sizes) <= 256
    assert sizes.count((2, 1)) == len(sizes) / 2


def test_of_videos_it_is_the_frames_and_sounds_have_none(tmp_path):
    write_video(tmp_path / "x.mp4", degrees=90)
    assert picture_sizes(dataset([tmp_path / "x.mp4"], "video")) == [(WIDTH, HEIGHT)]
    assert picture_sizes(dataset([tmp_path / "x.mp4"], "sound")) == []
