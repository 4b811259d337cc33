"""The cache of clips: several images a file, or none."""

import shutil

import numpy as np
import pandas as pd
import pytest

from automl.data.cache import build_cache
from automl.data.dataset import Dataset
from automl.errors import DataError
from automl.files import cache_dir
from automl.views.parameters import Frame, Mel
from automl.views.registry import view_images
from tests.fixtures import damaged as stand_ins
from tests.fixtures.view_clips import moving_face, tone, write_clip

SIZE = 24


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of 12, 3 and 1 frames, two of them with sound; a text file; a sound."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "long.mkv", moving_face(12), tone(1.2))
    write_clip(folder / "short.mkv", moving_face(3), tone(0.3))
    write_clip(folder / "still.mkv", moving_face(1))
    write_clip(folder / "sound.mkv", sound=tone(0.8, 300))
    (folder / "text.mp4").write_text("no clip\n" * 50)
    return folder


def dataset(folder, names, splits=None, labels=None):
    samples = pd.DataFrame({"path": [str(folder / name) for name in names], "name": names})
    samples["label"] = labels or [k % 2 for k in range(len(names))]
    samples["group"], samples["split"] = samples["path"], splits or "holdout"
    return Dataset(folder, "table", samples, ("0", "1"), 0, 1, (), "clips", "video")


def test_each_file_has_the_images_its_view_makes(clips):
    names = ["still.mkv", "long.mkv", "text.mp4", "sound.mkv", "short.mkv"]
    view, seen = Frame(count=4), []
    cache = build_cache(dataset(clips, names), SIZE, lambda *done: seen.append(done), view)
    assert cache.counts.tolist() == [1, 4, 0, 0, 3]
    assert cache.readable.tolist() == [True, True, False, False, True]
    assert seen[-1] == (5, 5)
    for row in (0, 1, 4):
        wanted = view_images(view, clips / names[row], SIZE).pixels
        assert all((cache.image(row, k) == wanted[k]).all() for k in range(len(wanted)))
    reasons = dict(cache.unreadable)
    assert reasons["sound.mkv"] == "it has no video track"
    assert reasons["text.mp4"].startswith("not a video or sound file")
    with pytest.raises(DataError, match="sample 4 has 3 images, and no number 3"):
        cache.image(4, 3)
    with pytest.raises(DataError, match="sample 2 has 0 images"):
        cache.image(2)


def test_views_have_caches_of_their_own_and_normalisation_has_none(clips):
    data = dataset(clips, ["long.mkv"])
    folders = set()
    for view in (Frame(count=2), Frame(count=3), Mel(seconds=0.5), Mel(seconds=0.5, n_mels=64)):
        folders.add(build_cache(data, SIZE, view=view).folder)
    assert len(folders) == len(list((cache_dir() / "images").iterdir())) == 4
    again = build_cache(data, SIZE, lambda *_: pytest.fail("decoded again"), Frame(count=2, normalize="dataset"))
    assert again.folder in folders


def test_an_interrupted_build_goes_on(clips):
    names = ["short.mkv", "text.mp4", "long.mkv", "still.mkv"]
    data, view = dataset(clips, names), Frame(count=2)

    def stop(done, _total):
        if done == 2:
            raise LookupError

    with pytest.raises(LookupError):
        build_cache(data, SIZE, stop, view)
    (folder,) = (cache_dir() / "images").iterdir()
    # what was decoded is in the journal only every two seconds: as if they had passed
    found = build_cache(data, SIZE, view=view)
    assert found.folder == folder
    assert found.counts.tolist() == [2, 0, 2, 1]
    assert (found.image(2, 1) == view_images(view, clips / "long.mkv", SIZE).pixels[1]).all()


def test_a_view_without_anything_says_what_there_is(clips):
    with pytest.raises(
        DataError, match=r"none of the 1 videos of .* is anything for the view mel; the first(.|\n)*still"
    ):
        build_cache(dataset(clips, ["still.mkv"]), SIZE, view=Mel(seconds=0.5))


def test_clips_are_validated_without_an_image_but_not_trained_on(clips):
    names = ["long.mkv", "short.mkv", "sound.mkv", "text.mp4", "still.mkv"]
    data = dataset(clips, names, ["validation"] * 4 + ["train"], [0, 1, 0, 1, 0])
    with pytest.raises(DataError, match=r"3 of 5 videos have something for the view frame; at least 2 .*1 in train"):
        build_cache(data, SIZE, view=Frame(count=2))
    train = ["long.mkv", "short.mkv", "still.mkv", "long2.mkv", "sound.mkv"]
    (clips / "long2.mkv").write_bytes((clips / "long.mkv").read_bytes())
    data = dataset(clips, train, ["train"] * 4 + ["validation"], [0, 1, 0, 1, 0])
    assert build_cache(data, SIZE, view=Frame(count=2)).counts.tolist() == [2, 2, 1, 2, 0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("raise.mkv", "ZeroDivisionError: who divides?"), ("exit.mkv", "its decoder ended (exit code 9)")],
)
def test_a_decoder_that_breaks_costs_one_file(clips, monkeypatch, name, reason):
    shutil.copy(clips / "long.mkv", clips / name)
    monkeypatch.setattr("automl.data.cache.view_images", stand_ins.view_images)
    for _ in range(2):  # decoded, and opened again
        cache = build_cache(dataset(clips, [name, "short.mkv"]), SIZE, view=Frame(count=2))
        assert cache.counts.tolist() == [0, 2]
        ((listed, why),) = cache.unreadable
        assert (listed, why.partition("; to try it again")[0]) == (name, reason)
        assert np.asarray(cache.image(1)).shape == (SIZE, SIZE, 3)
