import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from automl.data import cache as cache_module
from automl.data.cache import build_cache
from automl.data.dataset import Dataset
from automl.errors import AutomlError, DataError
from automl.files import cache_dir
from automl.media.images import read_rgb
from automl.views.frame import Frame
from automl.views.mel import Mel
from tests.fixtures import damaged as stand_ins
from tests.fixtures.real_names import image_dataset
from tests.fixtures.view_clips import moving_face, tone, write_clip


def pictures(folder, n=12, size=(40, 30)):
    rng = np.random.default_rng(0)
    paths = [folder / f"{k:04}.png" for k in range(n)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return paths


def folders():
    return sorted((cache_dir() / "images").iterdir())


def test_small_images_are_stored_as_they_are(tmp_path):
    paths = pictures(tmp_path)
    cache = build_cache(image_dataset(paths), 64)
    for row, path in enumerate(paths):
        assert (cache.image(row) == np.asarray(read_rgb(path))).all()
    assert cache.readable.all()
    assert not cache.unreadable
    assert not cache.image(0).flags.writeable


@pytest.mark.parametrize(
    ("size", "stored"), [((300, 200), (24, 16)), ((200, 300), (16, 24)), ((300, 50), (96, 16)), ((9, 45), (9, 45))]
)
def test_short_side_is_resized_and_nothing_cut_off(tmp_path, size, stored):
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "x.png")
    image = build_cache(image_dataset([tmp_path / "x.png"]), 16).image(0)
    assert image.shape == (stored[1], stored[0], 3)
    assert (image == (9, 99, 199)).all()


def test_the_ends_are_kept(tmp_path):
    image = Image.new("RGB", (300, 100), "red")
    image.paste((0, 0, 255), (50, 0, 250, 100))
    image.save(tmp_path / "x.png")
    found = build_cache(image_dataset([tmp_path / "x.png"]), 50).image(0)
    assert (found[:, 29:-29] == (0, 0, 255)).all()
    assert (found[:, [0, -1]] == (255, 0, 0)).all()


def test_rows_in_any_order_share_one_cache(tmp_path):
    paths = pictures(tmp_path)
    one = build_cache(image_dataset(paths), 16)
    other = build_cache(image_dataset([*paths[::-1], paths[0]]), 16)
    assert len(folders()) == 1
    assert (one.image(2) == other.image(len(paths) - 3)).all()
    assert (one.image(0) == other.image(len(paths))).all()


def test_a_changed_file_or_size_is_decoded_anew(tmp_path):
    paths = pictures(tmp_path)
    before = build_cache(image_dataset(paths), 16).image(0).copy()
    build_cache(image_dataset(paths), 8)
    Image.new("RGB", (40, 30), "red").save(paths[0])
    assert (build_cache(image_dataset(paths), 16).image(0) != before).any()
    assert len(folders()) == 3


def test_unreadable_files_are_listed_and_skipped(tmp_path):
    paths = pictures(tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:500])
    paths[5].unlink()
    for _ in range(2):  # decoded, and opened again
        cache = build_cache(image_dataset(paths, "holdout"), 16)
        assert np.flatnonzero(~cache.readable).tolist() == [3, 5]
        assert [name for name, _ in cache.unreadable] == ["0003.png", "0005.png"]
        assert cache.unreadable[1][1] == "no such file"
        assert cache.image(4).shape == (16, 21, 3)
        with pytest.raises(DataError, match="sample 3"):
            cache.image(3)


def test_nothing_readable_is_an_error(tmp_path):
    paths = [tmp_path / f"{k}.jpg" for k in range(7)]
    for path in paths:
        path.write_text("no image")
    for _ in range(2):
        with pytest.raises(DataError, match=r"none of the 7 images.*\n  0.jpg: not an image"):
            build_cache(image_dataset(paths), 16)


def test_too_few_readable_samples_of_a_class_are_an_error(tmp_path):
    paths = pictures(tmp_path, 8)
    for path in paths[1:7:2]:
        path.write_text("no image")
    with pytest.raises(DataError, match="class 'b' has 1 in train"):
        build_cache(image_dataset(paths), 16)


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    paths = pictures(tmp_path)
    build_cache(image_dataset(paths), 16, lambda done, total: seen.append((done, total)))
    assert seen == [(k, 12) for k in range(1, 13)]
    build_cache(image_dataset(paths), 16, lambda *_: pytest.fail("nothing is left to do"))


def test_a_worker_maps_the_file_instead_of_copying_it(tmp_path):
    cache = build_cache(image_dataset(pictures(tmp_path, 30, (100, 100))), 100)
    message = pickle.dumps(cache)
    assert len(message) < 20_000
    assert (pickle.loads(message).image(7) == cache.image(7)).all()


def test_an_interrupted_build_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_BATCH", 4)
    paths = pictures(tmp_path, 30)

    def stop(done, total):
        if done == 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(image_dataset(paths), 16, stop)
    with (folders()[0] / "journal.jsonl").open("a") as journal:
        journal.write("[99, 1")  # a line cut off by a power failure
    seen = []
    cache = build_cache(image_dataset(paths), 16, lambda done, _: seen.append(done))
    assert seen == list(range(17, 31))  # four batches of four were safe
    monkeypatch.setenv("AUTOML_CACHE", str(tmp_path / "fresh"))
    fresh = build_cache(image_dataset(paths), 16)
    assert all((cache.image(row) == fresh.image(row)).all() for row in range(30))


BUILD = """
import sys
from pathlib import Path
from automl.data.cache import build_cache
from tests.fixtures.real_names import image_dataset
cache = build_cache(image_dataset(sorted(Path(sys.argv[1]).glob("*.png"))), 64)
assert "torch" not in sys.modules
print(int(sum(cache.image(row).astype(int).sum() for row in range(len(cache)))))
"""


def start(folder):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", BUILD, str(folder)]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_building_at_once_and_killed_ones_leave_a_sound_cache(tmp_path):
    paths = pictures(tmp_path, 300, (100, 80))
    killed = start(tmp_path)
    deadline = time.monotonic() + 20
    while not list(cache_dir().glob("images/*/journal.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    killed.stdout.close()
    both = [start(tmp_path), start(tmp_path)]
    answers = [process.communicate(timeout=60)[0] for process in both]
    expected = build_cache(image_dataset(paths), 64)
    total = int(sum(expected.image(row).astype(int).sum() for row in range(300)))
    assert answers == [f"{total}\n"] * 2
    assert len(folders()) == 1
    assert not (folders()[0] / "journal.jsonl").exists()


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(cache_module, "disk_usage", lambda _: usage)
    monkeypatch.setattr(cache_module, "read_pixels", lambda *_: pytest.fail("decoded"))
    with pytest.raises(AutomlError, match=r"need about 12\.1kB in .*images.*1kB are free.*AUTOML_CACHE"):
        build_cache(image_dataset(pictures(tmp_path)), 16)


def test_a_disk_that_fills_up_is_told(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AutomlError, match="No space left on device; free some space"):
        build_cache(image_dataset(pictures(tmp_path)), 16)


def test_a_complete_cache_opens_at_once(tmp_path):
    paths = pictures(tmp_path, 1, (8, 8))
    for k in range(1, 2000):
        os.link(paths[0], tmp_path / f"{k:04}.png")
    data = image_dataset(sorted(tmp_path.glob("*.png")))
    build_cache(data, 8)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        build_cache(data, 8)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.1  # 0.03 s on two idle cores


def test_an_image_that_ends_its_decoder_is_listed(tmp_path, monkeypatch):
    paths = [*pictures(tmp_path), tmp_path / "exit.png"]
    shutil.copy(paths[0], paths[-1])
    monkeypatch.setattr(cache_module, "read_pixels", stand_ins.read_pixels)
    for _ in range(2):  # decoded, and opened again
        cache = build_cache(image_dataset(paths, "holdout"), 16)
        ((name, reason),) = cache.unreadable
        assert name == "exit.png"
        assert reason == f"its decoder ended (exit code 9); to try it again, delete {cache.folder}"
        assert cache.counts.tolist() == [1] * 12 + [0]
        assert (cache.image(3) == build_cache(image_dataset(paths[:12]), 16).image(3)).all()


def test_files_that_go_away_stop_the_build_and_it_goes_on_when_they_are_back(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    paths = pictures(tmp_path / "set", n=12)

    def progress(done, _):
        if done == 4:
            (tmp_path / "set").rename(tmp_path / "away")

    monkeypatch.setattr(cache_module, "decode_files", _one_by_one)  # so that some are still to come when it goes
    with pytest.raises(AutomlError, match="was there and is gone; if its disk"):
        build_cache(image_dataset(paths), 16, progress)
    (tmp_path / "away").rename(tmp_path / "set")
    assert build_cache(image_dataset(paths), 16).readable.all()


def _one_by_one(function, items, ahead):
    for item in items:
        try:
            yield function(item)
        except DataError as exc:
            yield exc


def test_a_file_that_was_never_there_is_listed(tmp_path):
    paths = pictures(tmp_path, n=6)
    paths[2].unlink()
    found = build_cache(image_dataset(paths, "holdout"), 16)
    assert [(Path(name).name, reason) for name, reason in found.unreadable] == [(paths[2].name, "no such file")]


def test_heic_is_tried_again_once_its_decoder_is_there(tmp_path, monkeypatch):
    paths = [*pictures(tmp_path, n=6), tmp_path / "x.heic"]
    paths[-1].write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    build_cache(image_dataset(paths, "holdout"), 16)
    monkeypatch.setattr(cache_module, "find_spec", lambda _: True)
    build_cache(image_dataset(paths, "holdout"), 16)
    assert len(list((cache_dir() / "images").iterdir())) == 2


# --- clips: several images a file, or none ---------------------------------------------------------------------------

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


def clip_dataset(folder, names, splits=None, labels=None):
    samples = pd.DataFrame({"path": [str(folder / name) for name in names], "name": names})
    samples["label"] = labels or [k % 2 for k in range(len(names))]
    samples["group"], samples["split"] = samples["path"], splits or "holdout"
    return Dataset(folder, "table", samples, ("0", "1"), 0, 1, (), "clips", "video")


def test_each_file_has_the_images_its_view_makes(clips):
    names = ["still.mkv", "long.mkv", "text.mp4", "sound.mkv", "short.mkv"]
    view, seen = Frame(count=4), []
    cache = build_cache(clip_dataset(clips, names), SIZE, lambda *done: seen.append(done), view)
    assert cache.counts.tolist() == [1, 4, 0, 0, 3]
    assert cache.readable.tolist() == [True, True, False, False, True]
    assert seen[-1] == (5, 5)
    for row in (0, 1, 4):
        wanted = view.make_images(clips / names[row], SIZE).pixels
        assert all((cache.image(row, k) == wanted[k]).all() for k in range(len(wanted)))
    reasons = dict(cache.unreadable)
    assert reasons["sound.mkv"] == "it has no video track"
    assert reasons["text.mp4"].startswith("not a video or sound file")
    with pytest.raises(DataError, match="sample 4 has 3 images, and no number 3"):
        cache.image(4, 3)
    with pytest.raises(DataError, match="sample 2 has 0 images"):
        cache.image(2)


@pytest.mark.slow
def test_views_have_caches_of_their_own_and_normalisation_has_none(clips):
    data = clip_dataset(clips, ["long.mkv"])
    folders = set()
    for view in (Frame(count=2), Frame(count=3), Mel(seconds=0.5), Mel(seconds=0.5, n_mels=64)):
        folders.add(build_cache(data, SIZE, view=view).folder)
    assert len(folders) == len(list((cache_dir() / "images").iterdir())) == 4
    again = build_cache(data, SIZE, lambda *_: pytest.fail("decoded again"), Frame(count=2, normalize="dataset"))
    assert again.folder in folders


def test_an_interrupted_build_of_clips_goes_on(clips):
    names = ["short.mkv", "text.mp4", "long.mkv", "still.mkv"]
    data, view = clip_dataset(clips, names), Frame(count=2)

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
    assert (found.image(2, 1) == view.make_images(clips / "long.mkv", SIZE).pixels[1]).all()


def test_a_view_without_anything_says_what_there_is(clips):
    with pytest.raises(
        DataError, match=r"none of the 1 videos of .* has anything for the view mel; the first(.|\n)*still"
    ):
        build_cache(clip_dataset(clips, ["still.mkv"]), SIZE, view=Mel(seconds=0.5))


def test_clips_are_validated_without_an_image_but_not_trained_on(clips):
    names = ["long.mkv", "short.mkv", "sound.mkv", "text.mp4", "still.mkv"]
    data = clip_dataset(clips, names, ["validation"] * 4 + ["train"], [0, 1, 0, 1, 0])
    with pytest.raises(DataError, match=r"3 of 5 videos have something for the view frame; at least 2 .*1 in train"):
        build_cache(data, SIZE, view=Frame(count=2))
    train = ["long.mkv", "short.mkv", "still.mkv", "long2.mkv", "sound.mkv"]
    (clips / "long2.mkv").write_bytes((clips / "long.mkv").read_bytes())
    data = clip_dataset(clips, train, ["train"] * 4 + ["validation"], [0, 1, 0, 1, 0])
    assert build_cache(data, SIZE, view=Frame(count=2)).counts.tolist() == [2, 2, 1, 2, 0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("raise.mkv", "ZeroDivisionError: who divides?"), ("exit.mkv", "its decoder ended (exit code 9)")],
)
def test_a_decoder_that_breaks_costs_one_file(clips, monkeypatch, name, reason):
    shutil.copy(clips / "long.mkv", clips / name)
    monkeypatch.setattr("automl.data.cache.make_images", stand_ins.make_images)
    for _ in range(2):  # decoded, and opened again
        cache = build_cache(clip_dataset(clips, [name, "short.mkv"]), SIZE, view=Frame(count=2))
        assert cache.counts.tolist() == [0, 2]
        ((listed, why),) = cache.unreadable
        assert (listed, why.partition("; to try it again")[0]) == (name, reason)
        assert np.asarray(cache.image(1)).shape == (SIZE, SIZE, 3)
