import numpy as np
import pytest

from automl.errors import DataError
from automl.views.audio_features import FEATURES, AudioFeatures, compute_features
from automl.views.mel import Mel, compute_log_mel
from automl.views.registry import make_images
from automl.views.sound_parts import read_parts
from tests.fixtures.view_clips import SOUND_RATE, moving_face, tone, write_clip


def row_of(picture):
    """Height of the brightest row, from 0 at the bottom to 1 at the top."""
    return 1 - picture[..., 0].mean(axis=1).argmax() / len(picture)


def test_low_tones_are_below_high_ones():
    low, high = (Mel().draw_picture(tone(4, hertz), 128) for hertz in (300, 4000))
    assert 0 < row_of(low) < row_of(high) < 1


def test_the_scale_is_absolute_decibels_of_full_amplitude():
    levels = [
        compute_log_mel(tone(1, 1000, level), SOUND_RATE, 1024, 256, 64, 0, 8000).max() for level in (1.0, 0.1, 0.01)
    ]
    assert levels == pytest.approx([0, -20, -40], abs=2.5)
    assert np.diff(levels) == pytest.approx([-20, -20], abs=0.1)


def test_loudness_is_seen_only_where_wanted():
    full, loudest = (
        [
            int(Mel(reference=reference, range_db=100).draw_picture(tone(4, 1000, level), 64).max())
            for level in (0.5, 0.05)
        ]
        for reference in ("full", "loudest")
    )
    assert full[0] - full[1] == pytest.approx(51, abs=2)
    assert loudest[0] == pytest.approx(loudest[1], abs=1)
    assert loudest[0] > 240


@pytest.mark.parametrize("view", [Mel(), AudioFeatures()])
def test_silence_is_a_picture(view, tmp_path):
    found = make_images(view, write_clip(tmp_path / "x.wav", sound=np.zeros(8000, np.float32)), 64)
    assert len(found) == 1
    if view.name == "mel":
        assert (found.pixels == 0).all()


def test_parts_cover_a_clip_evenly_and_never_more_often_than_needed(tmp_path):
    path = write_clip(tmp_path / "x.wav", sound=tone(5))
    assert [time for time, _ in read_parts(path, 8000, 2.0, 8)] == pytest.approx([1, 2.5, 4])
    assert [time for time, _ in read_parts(path, 8000, 2.0, 1)] == pytest.approx([2.5])
    assert [len(samples) for _, samples in read_parts(path, 8000, 2.0, 2)] == [16_000, 16_000]


def test_a_short_clip_is_repeated(tmp_path):
    path = write_clip(tmp_path / "x.wav", sound=tone(0.5, 100))
    ((time, samples),) = read_parts(path, SOUND_RATE, 2.0, 4)
    assert time == pytest.approx(0.25)
    assert np.abs(samples[: SOUND_RATE // 2] - samples[SOUND_RATE // 2 : SOUND_RATE]).max() < 1e-6


def test_a_video_is_heard_as_its_sound_alone(tmp_path):
    sound = tone(1.2, 700)
    both = write_clip(tmp_path / "x.mkv", moving_face(12), sound)
    alone = write_clip(tmp_path / "x.wav", sound=sound)
    pictures = [make_images(Mel(seconds=1.0, count=1), path, 64).pixels for path in (both, alone)]
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 2


@pytest.mark.parametrize("samples", [np.full(8000, np.nan, np.float32), np.zeros(0, np.float32)])
def test_what_librosa_cannot_do_is_one_line(samples):
    for compute in (
        lambda: compute_log_mel(samples, SOUND_RATE, 1024, 256, 64, 0, 8000),
        lambda: compute_features(samples, SOUND_RATE, 1024, 256),
        lambda: Mel().draw_picture(samples, 64),
    ):
        with pytest.raises(DataError, match=r"its sound cannot be made into a picture: .") as caught:
            compute()
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("view", [Mel(), AudioFeatures()])
def test_samples_that_are_no_numbers_are_named_with_the_file(view, tmp_path):
    path = tmp_path / "x.wav"
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(path, np.where(np.arange(16_000) == 100, np.nan, 0).astype(np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"x\.wav: 1 of 16000 samples is not a number$"):
        make_images(view, path, 64)


def test_features_of_a_tone_are_those_of_its_pitch():
    found = compute_features(tone(1, 1760), SOUND_RATE, 1024, 256)
    inner = {name: values[:, 4:-4] for name, values in found.items()}
    assert tuple(found) == FEATURES
    assert len({values.shape[1] for values in found.values()}) == 1
    assert (inner["chroma_stft"].argmax(axis=0) == 9).all()  # an A
    assert inner["rms"] == pytest.approx(-9.03, abs=0.1)  # a sine of half the amplitude
    assert inner["spectral_centroid"] == pytest.approx(1760, rel=0.05)
    assert inner["spectral_rolloff"] == pytest.approx(1760, rel=0.05)
    assert inner["zero_crossing_rate"] == pytest.approx(2 * 1760 / SOUND_RATE, rel=0.05)


def test_the_seven_bands_lie_one_under_the_other():
    size = 70
    quiet, loud = (AudioFeatures().draw_picture(tone(4, 500, level), size)[..., 0] for level in (0.005, 0.5))
    bands = {name: slice(10 * i, 10 * i + 10) for i, name in enumerate(FEATURES)}
    assert loud[bands["rms"]].mean() - quiet[bands["rms"]].mean() == pytest.approx(40 / 80 * 255, abs=4)
    assert np.abs(loud[bands["chroma_stft"]].astype(int) - quiet[bands["chroma_stft"]]).mean() < 4
