import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from automl.data import near_duplicates as copies
from automl.data.dataset import open_dataset
from automl.data.summary import summarise, with_near_copies
from automl.errors import DataError
from automl.spec import DataSpec
from tests.fixtures import damaged as stand_ins
from tests.fixtures.view_clips import SOUND_RATE, tone, write_clip


@pytest.fixture
def folder(tmp_path):
    """Two classes with given splits and images of growing size."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("val", 4)):
        for name in ("fake", "real"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(n):
                pixels = rng.integers(0, 256, (20 + k, 30 + k, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{k}.png")
    return tmp_path


def summary(folder, progress=None):
    return summarise(open_dataset(DataSpec(path=folder, holdout_fraction=0), 0), progress)


def test_the_facts(folder):
    seen = []
    found = summary(folder, lambda done, total: seen.append((done, total)))
    assert found.dataset.format == "folder"
    assert found.dataset.classes == ("fake", "real")
    assert (found.dataset.positive_class_name, found.dataset.real_class_name) == ("fake", "real")
    assert found.counts == {"train": {"fake": 8, "real": 8}, "validation": {"fake": 4, "real": 4}}
    assert found.sizes.width == (30, 32, 37)
    assert found.sizes.height == (20, 22, 27)
    assert seen[-1] == (24, 24)
    assert not found.groups
    assert (found.unreadable, found.leaks, found.conflicts, found.copies, found.problems) == ((), (), (), 0, ())


def test_a_truncated_file_is_found(folder):
    bad = folder / "train" / "real" / "3.png"
    bad.write_bytes(bad.read_bytes()[:900])
    ((name, reason),) = summary(folder).unreadable
    assert name == "train/real/3.png"
    assert "truncated" in reason


def test_a_copy_in_another_split_is_a_leak(folder):
    shutil.copy(folder / "train" / "real" / "3.png", folder / "val" / "real" / "other.png")
    found = summary(folder)
    (leak,) = found.leaks
    assert set(leak.names) == {"train/real/3.png", "val/real/other.png"}
    assert leak.splits == ("train", "validation")
    assert not found.conflicts


def test_a_copy_with_another_label_is_a_conflict(folder):
    shutil.copy(folder / "train" / "real" / "3.png", folder / "train" / "fake" / "other.png")
    found = summary(folder)
    (conflict,) = found.conflicts
    assert conflict.labels == ("fake", "real")
    assert not found.leaks


def test_harmless_copies_are_counted(folder):
    for k in range(2):
        shutil.copy(folder / "train" / "real" / "3.png", folder / "train" / "real" / f"copy{k}.png")
    assert summary(folder).copies == 2


def test_groups_are_counted(tmp_path):
    for k in range(20):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(tmp_path / f"{k}.png")
    lines = "".join(f"{k}.png,{k % 2},g{k // 2}\n" for k in range(20))
    (tmp_path / "labels.csv").write_text("file,label,group\n" + lines)
    found = summary(tmp_path)
    assert sum(found.groups.values()) == 10


# --- videos and sounds ------------------------------------------------------------------------------------------------


def scene(seed, count):
    """Frames of a smooth picture of colours that moves, (60, 80, 3) each."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = np.array(Image.fromarray(colours).resize((80 + count, 60), Image.Resampling.BICUBIC))
    return [picture[:, k : k + 80] for k in range(count)]


@pytest.fixture
def clips(tmp_path):
    """Two classes with given splits and videos of growing length, one of them with sound."""
    for number, place in enumerate(f"{split}/{name}" for split in ("train", "val") for name in ("fake", "real")):
        (tmp_path / place).mkdir(parents=True)
        for k in range(3):
            sound = tone(0.5) if place == "val/real" and k == 0 else None
            write_clip(tmp_path / place / f"{k}.mkv", scene(3 * number + k, 5 + k), sound)
    return tmp_path


def compared(folder, progress=None):
    dataset = open_dataset(DataSpec(path=folder, holdout_fraction=0), 0)
    return with_near_copies(summarise(dataset), progress)


def test_the_facts_of_videos(clips):
    seen = []
    found = summary(clips, lambda done, total: seen.append((done, total)))
    assert found.sizes.width == (80, 80, 80)
    assert found.sizes.height == (60, 60, 60)
    assert seen[-1] == (12, 12)
    assert found.clips.seconds == pytest.approx((0.5, 0.6, 0.7), abs=0.01)
    assert found.clips.frames_per_second == pytest.approx((10, 10))
    assert (found.clips.count, found.clips.pictures, found.clips.sound) == (12, 12, 1)
    assert (found.clips.variable_rate, found.clips.rotated) == (0, 0)
    assert found.clips.sample_rates_hz == (SOUND_RATE,)
    assert (found.unreadable, found.leaks, found.conflicts, found.copies) == ((), (), (), 0)
    assert found.near_copies == found.notes == ()


def test_the_facts_of_sounds(tmp_path):
    for k in range(12):
        (tmp_path / ("a" if k % 2 else "b")).mkdir(exist_ok=True)
        write_clip(tmp_path / ("a" if k % 2 else "b") / f"{k}.wav", sound=tone(0.5 + 0.1 * k, 200 + 50 * k))
    found = summary(tmp_path)
    assert found.sizes is None
    assert found.clips.seconds == pytest.approx((0.5, 1.05, 1.6))
    assert found.clips.frames_per_second is None
    assert (found.clips.count, found.clips.pictures, found.clips.sound) == (12, 0, 12)
    assert found.leaks == ()


def test_images_have_no_facts_of_clips(folder):
    found = summary(folder)
    assert with_near_copies(found) == found
    assert found.clips is None


def test_a_clip_that_cannot_be_read_is_told(clips):
    (clips / "train/real/3.mp4").write_text("no video")
    (clips / "train/real/4.mkv").touch()
    found = summary(clips)
    assert [name for name, _ in found.unreadable] == ["train/real/3.mp4", "train/real/4.mkv"]
    assert all(reason and "\n" not in reason and str(clips) not in reason for _, reason in found.unreadable)
    assert found.clips.count == 12


def test_no_clip_can_be_read(tmp_path):
    for k in range(12):
        (tmp_path / ("a" if k % 2 else "b")).mkdir(exist_ok=True)
        (tmp_path / ("a" if k % 2 else "b") / f"{k}.mp4").write_text("no video")
    found = compared(tmp_path)
    assert len(found.unreadable) == 12
    assert (found.clips.count, found.clips.seconds, found.sizes) == (0, None, None)
    assert (found.near_copies, found.leaks, found.copies) == ((), (), 0)


def test_near_copies_are_found_and_exact_ones_are_not_told_twice(clips):
    shutil.copy(clips / "train/real/0.mkv", clips / "val/real/exact.mkv")
    write_clip(clips / "val/real/near.mkv", [frame[::2, ::2] for frame in scene(4, 6)])
    seen = []
    found = compared(clips, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (14, 14)
    (leak,) = found.leaks
    assert leak.names == ("train/real/0.mkv", "val/real/exact.mkv")
    (near,) = found.near_copies
    assert near.names == ("train/real/1.mkv", "val/real/near.mkv")
    assert found.notes == ()


def test_a_near_copy_of_exact_copies_is_told(clips):
    shutil.copy(clips / "train/real/1.mkv", clips / "val/real/exact.mkv")
    write_clip(clips / "val/real/near.mkv", [frame[::2, ::2] for frame in scene(4, 6)])
    (near,) = compared(clips).near_copies
    assert near.names == ("train/real/1.mkv", "val/real/exact.mkv", "val/real/near.mkv")


def test_what_was_not_compared_is_noted(clips, monkeypatch):
    monkeypatch.setattr(copies, "_MOST_PAIRS", 1)
    assert compared(clips).notes == ("with 12 clips, only the middle image of each was compared to find near copies",)


def test_without_a_cache_the_rest_is_still_shown(clips, monkeypatch):
    (clips / "file").touch()
    monkeypatch.setenv("AUTOML_CACHE", str(clips / "file"))
    found = compared(clips)
    (note,) = found.notes
    assert note.startswith("near copies were not looked for: ")
    assert found.clips.count == 12


def test_what_is_missing_to_read_clips_is_told(clips, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"pip install .* av$"):
        summary(clips)


def test_an_image_that_ends_its_decoder_is_listed(folder, monkeypatch):
    for name in ("exit", "segfault", "raise"):
        shutil.copy(folder / "train/real/1.png", folder / f"train/real/{name}.png")
    monkeypatch.setattr("automl.data.summary.image_content", stand_ins.image_content)
    found = summary(folder)
    assert found.unreadable == (
        ("train/real/exit.png", "its decoder ended (exit code 9)"),
        ("train/real/raise.png", "ZeroDivisionError: who divides?"),
        ("train/real/segfault.png", "its decoder ended (signal 11: SIGSEGV)"),
    )
    assert found.sizes.width == (30, 32, 37)
    assert (found.copies, found.leaks) == (0, ())


def test_a_clip_that_ends_its_decoder_only_when_it_is_compared_is_told(clips, monkeypatch):
    shutil.copy(clips / "train/real/1.mkv", clips / "train/real/exit.mkv")
    monkeypatch.setattr("automl.data.cache.make_images", stand_ins.make_images)
    found = compared(clips)
    assert found.unreadable == ()
    (note,) = found.notes
    what, _, remedy = note.partition("; ")
    assert what == "not decoded to find near copies, 1: train/real/exit.mkv: its decoder ended (exit code 9)"
    assert remedy.startswith("to try it again, delete ")


def test_a_clip_that_ends_its_decoder_is_listed(clips, monkeypatch):
    shutil.copy(clips / "train/real/1.mkv", clips / "train/real/exit.mkv")
    monkeypatch.setattr("automl.data.summary.clip_content", stand_ins.clip_content)
    monkeypatch.setattr("automl.data.cache.make_images", stand_ins.make_images)
    found = compared(clips)
    assert found.unreadable == (("train/real/exit.mkv", "its decoder ended (exit code 9)"),)
    assert found.notes == ()
    assert found.clips.count == 12


def test_how_odd_pixels_were_scaled_is_counted(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(9):
            pixels = np.full((8, 8), 4000 * (k + 1) // 9, dtype=np.uint16)
            pixels[:4] = 4095
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    assert summarise(open_dataset(DataSpec(path=tmp_path), 0)).notes == ("18 images: more than 8 bits: 4095 is white",)
