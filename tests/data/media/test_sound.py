import wave

import numpy as np
import pytest

from automl.data.media import NoSound, read_sound
from automl.errors import DataError
from tests.data.media.clips import tone, write_sound, write_video

RATE = 16_000


def pitch(samples, rate=RATE):
    """The strongest frequency in hertz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate / len(samples)


FORMATS = {
    "pcm.wav": (RATE, 1, "pcm_s16le"),
    "phone.wav": (8_000, 1, "pcm_s16le"),
    "studio.wav": (192_000, 1, "pcm_s24le"),
    "stereo.wav": (44_100, 2, "pcm_f32le"),
    "stereo.flac": (44_100, 2, "flac"),
    "stereo.mp3": (44_100, 2, "libmp3lame"),
    "stereo.m4a": (44_100, 2, "aac"),
    "stereo.ogg": (48_000, 2, "libopus"),
}


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """Paths by name: two seconds of the same tone in each format."""
    folder = tmp_path_factory.mktemp("sounds")
    return {n: write_sound(folder / n, tone(2.0, rate, c), rate, codec) for n, (rate, c, codec) in FORMATS.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_becomes_mono_at_the_wanted_rate(name, sounds):
    samples = read_sound(sounds[name], RATE)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(2 * RATE, abs=0.03 * RATE)  # codecs pad to whole frames
    assert pitch(samples) == pytest.approx(440, abs=1)
    assert np.abs(samples[2000:-2000]).max() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("name", FORMATS)
def test_a_part_is_that_part_of_the_whole(name, sounds):
    whole, part = read_sound(sounds[name], RATE), read_sound(sounds[name], RATE, 0.75, 0.5)
    assert part.shape == (RATE // 2,)
    assert np.abs(part - whole[RATE * 3 // 4 : RATE * 5 // 4]).max() < 0.05  # half a sample of 440 Hz is .043


@pytest.mark.parametrize("name", ["sound.mp4", "longer_sound.mkv"])
def test_the_sound_track_of_a_video(name, clips):
    samples = read_sound(clips[name], RATE)
    assert pitch(samples[:RATE]) == pytest.approx(440, abs=2)
    assert len(read_sound(clips[name], 8_000, start_seconds=1.0, seconds=0.5)) == 4_000


def test_what_is_there_of_a_part_beyond_the_end(sounds):
    assert len(read_sound(sounds["pcm.wav"], RATE, 1.5, 10.0)) == RATE // 2
    with pytest.raises(DataError, match=r"ends at 2\.000 s"):
        read_sound(sounds["pcm.wav"], RATE, 5.0)


def test_loud_sound_stays_in_bounds(tmp_path):
    samples = read_sound(write_sound(tmp_path / "x.wav", tone(0.2, RATE, level=3.0), RATE, "pcm_f32le"), RATE)
    assert (samples.min(), samples.max()) == (-1.0, 1.0)


def test_silence_is_sound(tmp_path):
    samples = read_sound(write_sound(tmp_path / "x.flac", tone(0.5, RATE, level=0.0), RATE, "flac"), RATE)
    assert len(samples) == RATE // 2
    assert not samples.any()


def test_channels_that_differ_are_averaged(tmp_path):
    left = tone(0.5, RATE)
    stereo = np.concatenate([left, np.zeros_like(left)])
    samples = read_sound(write_sound(tmp_path / "x.wav", stereo, RATE, "pcm_f32le"), RATE)
    assert np.abs(samples - left[0] / 2).max() < 1e-6


def test_no_sound_track_and_an_empty_one(clips, tmp_path):
    with pytest.raises(NoSound, match=r"h264\.mp4.*no sound track"):
        read_sound(clips["h264.mp4"], RATE)
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
    with pytest.raises(NoSound, match="empty"):
        read_sound(tmp_path / "empty.wav", RATE)


def test_sound_that_begins_later_begins_with_silence(tmp_path):
    path = write_video(tmp_path / "x.mkv", sound=tone(1.0, RATE), sound_codec="flac", sound_start=0.75)
    samples = read_sound(path, RATE)
    assert not samples[: RATE // 2].any()
    assert pitch(samples[RATE:]) == pytest.approx(440, abs=2)
    assert len(samples) == pytest.approx(1.75 * RATE, abs=0.01 * RATE)
    assert np.abs(read_sound(path, RATE, 1.0, 0.25) - samples[RATE : RATE * 5 // 4]).max() < 0.01
    assert not read_sound(path, RATE, 0.0, 0.5).any()


def test_many_channels_without_a_layout(tmp_path):
    frames = np.repeat((tone(0.2, RATE)[0] * 32767).astype("<i2")[:, None], 3, axis=1)
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((3, 2, RATE, 0, "NONE", ""))
        file.writeframes(frames.tobytes())
    assert np.abs(read_sound(tmp_path / "x.wav", RATE)).max() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("wrong", [{"sample_rate_hz": 0}, {"start_seconds": -1.0}, {"seconds": 0.0}])
def test_impossible_wishes(sounds, wrong):
    with pytest.raises(ValueError, match="must be"):
        read_sound(sounds["pcm.wav"], **{"sample_rate_hz": RATE, **wrong})


@pytest.mark.shared
def test_a_real_voice_is_what_librosa_reads(shared):
    soundfile = pytest.importorskip("soundfile")
    path = shared / "data" / "audio_voices" / "real" / "real_000.wav"
    expected, rate = soundfile.read(path, dtype="float32")
    assert np.abs(read_sound(path, rate) - expected).max() < 1e-4
