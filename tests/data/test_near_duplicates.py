import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from automl.data import near_duplicates as copies
from automl.data.copy_groups import CopyGroups
from automl.data.dataset import Dataset
from automl.data.near_duplicates import NearCopy, describe_shortcut, near_copies
from automl.errors import AutomlError
from tests.fixtures.view_clips import RATE, SOUND_RATE, write_clip


def scene(seed, count=12):
    """Frames of a smooth picture of colours that moves by a pixel a frame, (90, 120, 3) each."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = np.array(Image.fromarray(colours).resize((120 + count, 90), Image.Resampling.BICUBIC))
    return [picture[:, k : k + 120] for k in range(count)]


def babble(seed, seconds=3.0):
    """Tones of changing pitch and loudness, ten a second, with overtones, as of a voice."""
    rng = np.random.default_rng(seed)
    each = SOUND_RATE // 10
    pitches = np.repeat(rng.uniform(90, 700, round(10 * seconds)), each)
    loudness = np.repeat(rng.choice([0.02, 0.2, 1.0], round(10 * seconds)), each)
    phase = 2 * np.pi * np.cumsum(pitches) / SOUND_RATE
    return (0.2 * loudness * (np.sin(phase) + 0.6 * np.sin(2 * phase) + 0.4 * np.sin(5 * phase))).astype(np.float32)


def write_copy(path, frames, scale=0.5):
    """Encodes frames anew: smaller, and with loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "32"})
        stream.height, stream.width = (2 * round(scale * side / 2) for side in frames[0].shape[:2])
        stream.pix_fmt = "yuv420p"
        for number, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(picture.reformat(stream.width, stream.height, "yuv420p")))
        container.mux(stream.encode())
    return path


def write_mp3(path, sound):
    """Encodes sound with loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate=SOUND_RATE, layout="mono")
        stream.bit_rate = 32_000
        samples = av.AudioFrame.from_ndarray(sound[None].copy(), format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        resampler = av.AudioResampler(format="s16p", layout="mono", rate=SOUND_RATE, frame_size=stream.frame_size)
        for block in (*resampler.resample(samples), *resampler.resample(None)):
            container.mux(stream.encode(block))
        container.mux(stream.encode())
    return path


def dataset_of(media="video", **splits):
    """A data set of files by their splits, of two classes in turn."""
    files = [(path, split) for split, paths in splits.items() for path in paths]
    samples = pd.DataFrame(
        {
            "path": [str(path) for path, _ in files],
            "name": [Path(path).name for path, _ in files],
            "label": [k % 2 for k in range(len(files))],
            "group": [str(path) for path, _ in files],
            "split": [split for _, split in files],
        }
    )
    return Dataset(Path("/data"), "folder", samples, ("fake", "real"), 1, 0, (), "data", media)


@pytest.fixture
def videos(tmp_path):
    """Six videos of different scenes."""
    return [write_clip(tmp_path / f"{seed}.mkv", scene(seed)) for seed in range(6)]


@pytest.fixture
def sounds(tmp_path):
    """Six different sounds."""
    return [write_clip(tmp_path / f"{seed}.wav", sound=babble(seed)) for seed in range(6)]


# --- videos -----------------------------------------------------------------------------------------------------------


def test_a_smaller_copy_is_found_and_nothing_else(videos, tmp_path):
    copy = write_copy(tmp_path / "copy.mp4", scene(4))
    (found,) = near_copies(dataset_of(train=videos, validation=[copy]))
    assert found.names == ("4.mkv", "copy.mp4")
    assert found.splits == ("train", "validation")
    assert 0.9 < found.similarity <= 1
    assert found.sentence == "4.mkv ~ copy.mp4: nearly the same clip in train and validation"


def test_different_clips_are_no_copies(videos):
    assert near_copies(dataset_of(train=videos[:4], validation=videos[4:])) == ()


@pytest.mark.parametrize("part", [slice(2, None), slice(None, -2), slice(5, 13)])
def test_a_trimmed_copy_is_found(videos, tmp_path, part):
    long = write_clip(tmp_path / "long.mkv", scene(9, 20))
    copy = write_copy(tmp_path / "copy.mp4", scene(9, 20)[part])
    (found,) = near_copies(dataset_of(train=[*videos[:3], long], validation=[copy]))
    assert found.names == ("long.mkv", "copy.mp4")


def test_identical_clips_are_found(videos, tmp_path):
    copy = shutil.copy(videos[0], tmp_path / "copy.mkv")
    (found,) = near_copies(dataset_of(train=videos, holdout=[copy]))
    assert found.splits == ("train", "holdout")
    assert found.similarity == pytest.approx(1)


def test_copies_within_a_split_do_not_matter(videos, tmp_path):
    copy = write_copy(tmp_path / "copy.mp4", scene(0))
    assert near_copies(dataset_of(train=[*videos[:4], copy], validation=videos[4:])) == ()
    assert near_copies(dataset_of(train=[*videos, copy])) == ()


def test_copies_of_one_clip_are_one_group(videos, tmp_path):
    second, third = (write_copy(tmp_path / f"{name}.mp4", scene(0), scale) for name, scale in (("a", 1), ("b", 0.5)))
    fourth = write_copy(tmp_path / "c.mp4", scene(0), 0.8)
    (found,) = near_copies(dataset_of(train=[*videos[:3], second], validation=[third, videos[4]], holdout=[fourth]))
    assert found.names == ("0.mkv", "b.mp4", "c.mp4", "a.mp4")
    assert found.splits == ("train", "validation", "holdout")


def test_the_surest_group_is_first(videos, tmp_path):
    weak = write_copy(tmp_path / "weak.mp4", [frame // 3 * 2 for frame in scene(0, 16)[4:]], 0.2)
    exact = shutil.copy(videos[1], tmp_path / "exact.mkv")
    found = near_copies(dataset_of(train=videos[:4], validation=[weak, exact]))
    assert [copy.names[0] for copy in found] == ["1.mkv", "0.mkv"]
    assert found[0].similarity > found[1].similarity


def test_black_clips_are_no_copies(videos, tmp_path):
    black = [write_clip(tmp_path / f"black{k}.mkv", [np.zeros((60, 80, 3), np.uint8)] * 6) for k in range(2)]
    assert near_copies(dataset_of(train=[*videos[:3], black[0]], validation=[black[1]])) == ()


def test_black_frames_do_not_hide_a_copy(videos, tmp_path):
    dark = [np.zeros((90, 120, 3), np.uint8)] * 10
    one = write_clip(tmp_path / "one.mkv", [*dark, *scene(7)])
    other = write_copy(tmp_path / "other.mp4", [*scene(7), *dark])
    (found,) = near_copies(dataset_of(train=[*videos[:3], one], validation=[other]))
    assert found.names == ("one.mkv", "other.mp4")


def test_what_cannot_be_read_is_left_out(videos, tmp_path):
    copy = write_copy(tmp_path / "copy.mp4", scene(0))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(copy.read_bytes()[:500])
    (found,) = near_copies(dataset_of(train=[*videos, bad], validation=[copy, tmp_path / "missing.mp4"]))
    assert found.names == ("0.mkv", "copy.mp4")
    assert near_copies(dataset_of(train=[bad, bad], validation=[bad])) == ()


def test_a_cache_that_cannot_be_written_is_told(videos, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTOML_CACHE", str(tmp_path / "file"))
    with pytest.raises(AutomlError, match="AUTOML_CACHE"):
        near_copies(dataset_of(train=videos[:4], validation=videos[4:]))


def test_progress_is_told_while_clips_are_decoded(videos):
    seen = []
    data = dataset_of(train=videos[:4], validation=videos[4:])
    near_copies(data, lambda done, total: seen.append((done, total)))
    assert seen == [(k, 6) for k in range(1, 7)]
    near_copies(data, lambda done, total: seen.append((done, total)))
    assert len(seen) == 6


# --- sounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_mp3_of_a_sound_is_found_and_nothing_else(sounds, tmp_path):
    copy = write_mp3(tmp_path / "copy.mp3", 0.4 * babble(3))
    (found,) = near_copies(dataset_of("sound", train=[*sounds[:3], sounds[3]], validation=[copy, *sounds[4:]]))
    assert found.names == ("3.wav", "copy.mp3")
    assert found.sentence == "3.wav ~ copy.mp3: nearly the same clip in train and validation"


def test_silence_is_no_copy_of_silence(sounds, tmp_path):
    silent = [write_clip(tmp_path / f"silent{k}.wav", sound=np.zeros(SOUND_RATE, np.float32)) for k in range(2)]
    assert near_copies(dataset_of("sound", train=[*sounds, silent[0]], validation=[silent[1]])) == ()


# --- many clips -------------------------------------------------------------------------------------------------------


def test_of_very_many_clips_the_middle_images_are_compared(videos, tmp_path, monkeypatch):
    data = dataset_of(train=videos, validation=[write_copy(tmp_path / "copy.mp4", scene(4))])
    assert describe_shortcut(data) is None
    monkeypatch.setattr(copies, "_MOST_PAIRS", 6 * 64 - 1)
    assert describe_shortcut(data) == "with 7 clips, only the middle image of each was compared to find near copies"
    (found,) = near_copies(data)
    assert found.names == ("4.mkv", "copy.mp4")


@pytest.mark.parametrize("block", [(8, 8), (16, 8), (8, 24), (12, 12)])
def test_blocks_do_not_change_what_is_found(videos, tmp_path, monkeypatch, block):
    data = dataset_of(train=videos, validation=[write_copy(tmp_path / f"copy{k}.mp4", scene(k)) for k in (1, 4)])
    expected = near_copies(data)
    assert len(expected) == 2
    monkeypatch.setattr(copies, "_BLOCK", block)
    assert near_copies(data) == expected


@pytest.mark.parametrize("seed", range(5))
def test_candidates_are_those_most_of_whose_images_are_near(seed):
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(0, 40, 150))  # some rows have many images, some none
    hashes = rng.choice(rng.integers(0, 2**63, 12, dtype=np.uint64), len(rows))  # many are equal, the others far
    images = copies._Images(rows, np.zeros_like(rows), hashes)
    left = rows < 17
    found = [
        tuple(pair)
        for pairs in copies._find_candidates(images[left], images[~left], 3, CopyGroups(40))
        for pair in pairs.tolist()
    ]
    expected = []
    for a in range(17):
        for b in range(17, 40):
            equal = hashes[rows == a][:, None] == hashes[rows == b]
            if equal.size and max(equal.any(axis=0).mean(), equal.any(axis=1).mean()) > 0.5:
                expected.append((a, b))
    assert found == expected
    assert expected


def test_a_long_group_is_named_in_part():
    under_two = NearCopy(("a", "b"), ("train", "validation"), 0.9, "image", ("cat", "dog"))
    assert under_two.sentence == "a ~ b: nearly the same image in train and validation, as cat and as dog"
    copy = NearCopy(tuple("abcdef"), ("train", "holdout"), 0.9)
    assert copy.sentence == "a ~ b ~ c ~ d ~ …: nearly the same clip in train and holdout"


@pytest.mark.shared
def test_a_forged_clip_and_its_source_are_found_and_other_people_are_not(shared):
    folder = shared / "data" / "ffdv_videos" / "trainset"
    train = [folder / f"demo_{name}.mp4" for name in ("deepfake_2", "original_3")]
    (found,) = near_copies(dataset_of(train=train, validation=[folder / "demo_original_2.mp4"]))
    assert found.names == ("demo_deepfake_2.mp4", "demo_original_2.mp4")


@pytest.mark.shared
def test_voices_and_their_clones_are_no_copies(shared):
    voices = sorted((shared / "data" / "audio_voices").glob("*/*_00?.wav"))
    assert len(voices) == 20
    assert near_copies(dataset_of("sound", train=voices[::2], validation=voices[1::2])) == ()
    assert near_copies(dataset_of("sound", train=voices[:10], validation=voices[10:])) == ()
