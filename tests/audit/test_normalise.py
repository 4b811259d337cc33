import csv
import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automl.audit import normalise as module
from automl.audit.audit import audit_dataset
from automl.audit.copied_files import FRAME_RATE
from automl.audit.image_files import read_image_properties
from automl.audit.normalise import Shape, normalise_dataset
from automl.data.dataset import open_dataset
from automl.errors import DataError, SpecError
from automl.media.images import image_size, read_pixels
from automl.media.info import probe_media
from automl.media.sound import read_sound
from automl.media.video import iterate_frames
from automl.spec import DataSpec
from tests.fixtures.clips import number_of, tone, write_sound, write_video


@contextmanager
def no_bar(label):
    yield lambda _done, _total: None


def copy(dataset, folder, size=None, seconds=None):
    return normalise_dataset(dataset, folder, Shape(size, seconds), no_bar)


def open_folder(folder, **data):
    return open_dataset(DataSpec(path=folder, **data), 0)


@pytest.fixture
def images(tmp_path):
    """Images of two classes that differ in their kind; some of the fakes belong together."""
    random, folder = np.random.default_rng(0), tmp_path / "data"
    for label, ending in (("fake", "png"), ("real", "jpg")):
        (folder / label).mkdir(parents=True)
        for k in range(12):
            picture = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80 + k, 60))
            picture.save(folder / label / f"{k}.{ending}")
    (folder / "groups.csv").write_text("file,group\n" + "".join(f"fake/{k}.png,g{k // 2}\n" for k in range(4)))
    return folder


@pytest.fixture
def sounds(tmp_path):
    random, folder = np.random.default_rng(0), tmp_path / "voices"
    for label, floor in (("fake", 1e-4), ("real", 5e-3)):
        (folder / label).mkdir(parents=True)
        for k in range(10):
            beat = np.cos(2 * np.pi * 3 * np.arange(24_000) / 16_000) > 0
            sound = 0.1 * random.standard_normal(24_000) * beat + floor * random.standard_normal(24_000)
            write_sound(folder / label / f"{k}.wav", sound[None].astype(np.float32), 16_000)
    return folder


def read_table(folder):
    with (folder / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def rows_of(dataset):
    """(class, split, group or alone) of each sample, by the name of the file it was made of."""
    samples = dataset.samples
    groups = samples["group"].where(samples["group"] != samples["path"], "")
    labels = [dataset.classes[label] for label in samples["label"]]
    return sorted(zip(samples["name"].map(os.path.basename), labels, samples["split"], groups, strict=True))


def test_images_become_alike_and_keep_labels_groups_and_splits(images, tmp_path):
    dataset = open_folder(images)
    assert audit_dataset(dataset, 100).findings
    made = copy(dataset, tmp_path / "copy")
    assert (made.written, made.kept, made.unreadable) == (24, 0, ())
    again = open_folder(tmp_path / "copy")
    table = {row["file"]: row["copied_from"] for row in read_table(tmp_path / "copy")}
    names = again.samples["name"].map(table).map(os.path.basename)
    assert again.format == "table"
    assert rows_of(dataset) == rows_of(open_with_names(again, names))
    assert (again.classes, again.real_class_name, again.grouped) == (("fake", "real"), "real", True)
    values = [read_image_properties(path) for path in again.samples["path"]]
    alike = ("container", "ending", "quality", "quantisation", "subsampling", "exif", "density", "encoder")
    assert {tuple(value[key] for key in alike) for value in values} == {
        ("JPEG", ".jpg", 95, values[0]["quantisation"], "4:4:4", "no", values[0]["density"], None)
    }
    assert sorted({value["width"] for value in values}) == list(range(80, 92))


def open_with_names(dataset, names):
    dataset.samples["name"] = names
    return dataset


def test_one_size_for_all(images, tmp_path):
    copy(open_folder(images), tmp_path / "copy", size=32)
    sizes = {image_size(path) for path in (tmp_path / "copy/files").glob("*.jpg")}
    assert sizes == {(32, 32)}


def test_pixels_are_nearly_the_same(images, tmp_path):
    dataset = open_folder(images)
    copy(dataset, tmp_path / "copy")
    table = {row["copied_from"]: row["file"] for row in read_table(tmp_path / "copy")}
    before, after = (read_pixels(path, 60) for path in (images / "fake/3.png", tmp_path / "copy" / table["fake/3.png"]))
    assert np.abs(before.astype(float) - after).mean() < 2


def test_it_goes_on_where_it_was(images, tmp_path, monkeypatch):
    dataset, folder = open_folder(images), tmp_path / "copy"
    decode, stop = module.decode_files, []

    def interrupt(function, items, ahead):
        for result in decode(function, items, ahead=1):
            stop.append(result)
            if len(stop) == 7:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(module, "decode_files", interrupt)
    with pytest.raises(KeyboardInterrupt):
        copy(dataset, folder)
    monkeypatch.undo()
    there = {path.name: path.stat().st_mtime_ns for path in (folder / "files").glob("*.jpg")}
    assert 7 <= len(there) < 24
    assert not (folder / "labels.csv").exists()
    made = copy(dataset, folder)
    assert (made.written, made.kept) == (24 - len(there), len(there))
    assert {name: (folder / "files" / name).stat().st_mtime_ns for name in there} == there
    assert len(open_folder(folder).samples) == 24
    (images / "fake/0.png").touch()
    assert copy(dataset, folder).written == 1
    assert not list((folder / "files").glob(".*"))


def test_a_damaged_file_is_left_out_by_name(images, tmp_path):
    (images / "real/bad.jpg").write_text("no image")
    made = copy(open_folder(images), tmp_path / "copy")
    assert made.unreadable == (("real/bad.jpg", "not an image"),)
    assert len(open_folder(tmp_path / "copy").samples) == 24


def test_a_class_without_readable_files_is_an_error(images, tmp_path):
    for path in (images / "real").iterdir():
        path.write_text("no image")
    with pytest.raises(DataError, match="no file of class real can be read, such as not an image"):
        copy(open_folder(images), tmp_path / "copy")


def test_mistakes(images, sounds, tmp_path):
    dataset = open_folder(images)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").touch()
    for folder, shape, error, words in (
        (images / "copy", Shape(), SpecError, "lie in each other"),
        (images, Shape(), SpecError, "lie in each other"),
        (tmp_path, Shape(), SpecError, "lie in each other"),
        (other / "mine.txt", Shape(), SpecError, "is a file"),
        (other, Shape(), DataError, "is not empty"),
        (tmp_path / "new", Shape(size=3), SpecError, "--normalise-size 3"),
        (tmp_path / "new", Shape(seconds=2), SpecError, "--normalise-seconds is for videos and sounds"),
    ):
        with pytest.raises(error, match=words):
            normalise_dataset(dataset, folder, shape, no_bar)
    assert not (tmp_path / "new").exists()
    with pytest.raises(SpecError, match="--normalise-size is for pictures"):
        normalise_dataset(open_folder(sounds), tmp_path / "new", Shape(64), no_bar)


def test_a_copy_may_lie_beside_its_label_file(images, tmp_path):
    rows = [f"{path.relative_to(images)},{path.parent.name}" for path in sorted(images.glob("*/*"))]
    (images / "labels.csv").write_text("\n".join(["file,label", *rows]))
    assert copy(open_folder(images / "labels.csv"), images / "copy").written == 24
    with pytest.raises(DataError, match="is not empty"):
        copy(open_folder(images / "labels.csv"), images)


def test_another_kind_of_copy_is_refused(images, tmp_path):
    copy(open_folder(images), tmp_path / "copy")
    with pytest.raises(DataError, match=r"copy of another kind \(size: None, now 64\)"):
        copy(open_folder(images), tmp_path / "copy", size=64)
    (tmp_path / "copy/.normalised.json").write_text("{")
    with pytest.raises(DataError, match=r"normalised.json is damaged"):
        copy(open_folder(images), tmp_path / "copy")


def test_sounds_become_alike(sounds, tmp_path):
    dataset = open_folder(sounds)
    assert "noise_floor" in {row.kind.key for row in audit_dataset(dataset, 100).findings}
    made = copy(dataset, tmp_path / "copy", seconds=1)
    assert len(made.levels) == 14
    again = open_folder(tmp_path / "copy")
    audit = audit_dataset(again, 100)
    assert not audit.findings
    assert {"loudness (RMS)", "sample rate", "sound codec", "silence at the beginning", "duration"} <= set(
        audit.constant
    )
    path = again.samples["path"][0]
    before = read_sound(path, 16_000)
    Path(path).unlink()
    copy(dataset, tmp_path / "copy", seconds=1)
    assert (read_sound(path, 16_000) == before).all()  # the noise is seeded
    stored = json.loads((tmp_path / "copy/.normalised.json").read_text())
    assert stored["levels"] == list(made.levels)


def test_videos_become_alike(tmp_path):
    folder = tmp_path / "data"
    for label, options in (
        ("fake", {"codec": "mpeg4", "sound": tone(2, 16_000), "pixel_format": "yuv420p"}),
        ("real", {"codec": "libx264", "pixel_format": "yuv444p", "options": {"brand": "mp42"}}),
    ):
        (folder / label).mkdir(parents=True)
        for k in range(4):
            write_video(folder / label / f"{k}.mp4", **options)
    dataset = open_folder(folder, holdout_fraction=0)
    copy(dataset, tmp_path / "copy", seconds=1.5)
    for row in read_table(tmp_path / "copy"):
        path = tmp_path / "copy" / row["file"]
        info = probe_media(path)
        video = info.video
        assert (info.container, video.codec, video.pixel_format) == ("matroska,webm", "h264", "yuv420p")
        assert (video.width, video.height, video.frames_per_second) == (64, 48, FRAME_RATE)
        assert info.duration_seconds == pytest.approx(1.5, abs=0.03)
        assert (info.audio is not None) == (row["label"] == "fake")
        if info.audio:
            assert (info.audio.codec, info.audio.sample_rate_hz, info.audio.channels) == ("pcm_s16le", 16_000, 1)
        shown = list(iterate_frames(path))
        assert len(shown) == 38
        # ten a second became twenty-five: each is shown when it was, to half a frame, and its colours are the same
        for seconds, pixels in shown:
            number = number_of(pixels)
            assert number / 10 - 0.02 <= seconds <= number / 10 + 0.12
        left = shown[0][1][30:42, 6:26].reshape(-1, 3).mean(axis=0)
        assert left == pytest.approx([220, 30, 30], abs=12)
