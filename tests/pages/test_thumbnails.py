import base64
import io

import numpy as np
from PIL import Image

from automl.pages.thumbnails import make_thumbnails
from tests.fixtures.clips import number_of, picture, write_video


def test_a_clip_shows_its_first_frame_and_what_cannot_be_read_is_left_out(tmp_path):
    write_video(tmp_path / "a.mp4")
    Image.new("RGB", (400, 200), "red").save(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("no image")
    paths = [str(tmp_path / name) for name in ("a.mp4", "b.png", "c.png", "d.mp4")]
    made = make_thumbnails(paths)
    assert list(made) == paths[:2]
    images = [Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))) for text in made.values()]
    assert images[1].size == (160, 80)
    assert number_of(np.asarray(images[0].resize(picture(0).shape[1::-1]))) == 0
