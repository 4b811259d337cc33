import numpy as np
import pytest
from scipy import signal

from automl.degradations.copies import degrade_file
from automl.degradations.degradation import SoundDegradation, choose_degradations
from automl.degradations.sound_steps import measure_power
from automl.media.info import probe_media
from automl.media.sound import NoSound, read_sound
from automl.media.video import iterate_frames
from automl.views.registry import make_images, make_view
from tests.fixtures.clips import tone, write_sound, write_video

RATE = 16_000


@pytest.fixture
def voice(tmp_path):
    """Three seconds of bursts of noise of all frequencies, like syllables."""
    random = np.random.default_rng(7)
    loudness = np.abs(np.sin(np.arange(3 * RATE) / RATE * 9)) ** 3
    return write_sound(
        tmp_path / "voice.wav", (0.1 * loudness * random.standard_normal(3 * RATE))[None].astype("f4"), RATE
    )


@pytest.fixture
def degrade(tmp_path):
    def apply(name, source, folder="copies"):
        return degrade_file(source, choose_degradations([name], medium="sound")[0], tmp_path / folder)

    return apply


def vowel(rate):
    """Three seconds of harmonics that come and go, like a voice that hums."""
    times = np.arange(3 * rate) / rate
    tones = sum(np.sin(2 * np.pi * 130 * k * times + k) / k for k in range(1, 20))
    return (0.15 * tones * np.abs(np.sin(5 * times)))[None].astype(np.float32)


def decibels(ratio):
    return 10 * np.log10(ratio)


@pytest.mark.parametrize(
    ("name", "ending", "codec", "kilobits"),
    [("mp3-32", ".mp3", "mp3", 32), ("aac-24", ".m4a", "aac", 24), ("opus-12", ".opus", "opus", 12)],
)
@pytest.mark.parametrize("rate", [8_000, RATE, 44_100])
def test_a_codec_writes_its_file_at_its_rate(name, ending, codec, kilobits, rate, tmp_path, degrade):
    source = write_sound(tmp_path / "vowel.wav", vowel(rate), rate)
    copy = degrade(name, source)
    info = probe_media(copy)
    assert (copy.suffix, info.audio.codec, info.audio.channels) == (ending, codec, 1)
    assert info.audio.duration_seconds == pytest.approx(3.0, abs=0.15)
    # Opus is told an average; FFmpeg's AAC goes beyond it, of tones at 44 kHz
    assert 0.6 < copy.stat().st_size * 8 / 3000 / kilobits < 1.8
    before, after = read_sound(source, rate), read_sound(copy, rate)[: 3 * rate]
    lag = np.argmax(signal.correlate(after, before)) - (len(before) - 1)
    assert abs(lag) <= 0.001 * rate  # what is heard stays where it was
    assert np.corrcoef(before, np.pad(after, (0, len(before) - len(after))))[0, 1] > 0.8


def test_a_telephone_passes_its_band_alone(voice, degrade):
    copy = degrade("telephone", voice)
    assert probe_media(copy).audio.sample_rate_hz == 8000
    assert probe_media(copy).duration_seconds == pytest.approx(3.0, abs=0.001)
    bands = ((0, 150), (600, 2800), (3600, 8000))
    powers = []
    for path in (voice, copy):
        frequencies, power = signal.welch(read_sound(path, RATE), RATE, nperseg=1024)
        powers.append([power[(frequencies >= low) & (frequencies < high)].sum() for low, high in bands])
    low, middle, high = decibels(np.divide(powers[1], powers[0]))
    assert low < -30
    assert middle == pytest.approx(0, abs=0.5)
    assert high < -30


@pytest.mark.parametrize("snr_db", [20, 10, 5])
def test_noise_is_as_loud_as_it_says(snr_db, voice, degrade):
    before, after = read_sound(voice, RATE), read_sound(degrade(f"noise-{snr_db}db", voice), RATE)
    assert before.shape == after.shape
    assert decibels(measure_power(before) / measure_power(after - before)) == pytest.approx(snr_db, abs=0.5)
    _, power = signal.welch(after - before, RATE)
    assert power[2:-2].max() < 2 * power[2:-2].min()  # white


def test_noise_is_the_files_own_and_the_same_each_time(voice, degrade):
    first, again = degrade("noise-5db", voice), degrade("noise-5db", voice, "others")
    assert first.read_bytes() == again.read_bytes()
    other = voice.rename(voice.with_name("other.wav"))
    assert not np.array_equal(read_sound(degrade("noise-5db", other), RATE), read_sound(first, RATE))


def test_a_room_answers_a_click_for_its_time(tmp_path, degrade):
    click = np.zeros((1, 2 * RATE), dtype=np.float32)
    click[0, RATE // 2] = 0.5
    copy = degrade("reverb", write_sound(tmp_path / "click.wav", click, RATE))
    heard = read_sound(copy, RATE)
    assert heard.shape == (2 * RATE,)
    assert measure_power(heard) == pytest.approx(measure_power(click), rel=0.01)
    assert np.abs(heard[: RATE // 2]).max() < 1e-9
    direct, tail = heard[RATE // 2] ** 2, heard[RATE // 2 + 1 :]
    assert decibels(direct / np.sum(tail**2)) == pytest.approx(0, abs=0.2)
    # Schroeder: what is left falls by 60 dB in half a second, so by 30 dB in a quarter
    left = decibels(np.cumsum(tail[::-1] ** 2)[::-1] + 1e-12)
    assert left[0] - left[RATE // 4] == pytest.approx(30, abs=1)


def test_silence_is_trimmed_at_both_ends_only(tmp_path, degrade):
    word, pause = tone(0.5, RATE), np.zeros((1, RATE), dtype=np.float32)
    source = write_sound(tmp_path / "words.wav", np.concatenate([pause, word, pause, word, pause], axis=1), RATE)
    after = read_sound(degrade("trimmed", source), RATE)
    assert len(after) / RATE == pytest.approx(2.0, abs=0.15)  # librosa's frames are 0.13 s long
    # what is left is as it was
    before = read_sound(source, RATE)
    start = np.argmax(before != 0) - np.argmax(after != 0)
    assert np.array_equal(after, before[start : start + len(after)])


@pytest.mark.parametrize("name", [item.name for item in choose_degradations(["*"], medium="sound")])
@pytest.mark.parametrize("samples", [np.zeros((1, 1600), "f4"), np.full((1, 160), 0.1, "f4")], ids=["silence", "short"])
def test_silence_and_next_to_nothing_stay_readable(name, samples, tmp_path, degrade):
    copy = degrade(name, write_sound(tmp_path / "little.wav", samples, RATE))
    assert np.isfinite(read_sound(copy, RATE)).all()


@pytest.mark.parametrize("name", ["mp3-32", "aac-24", "opus-12", "telephone", "noise-10db"])
@pytest.mark.parametrize("ending", [".mp4", ".avi"])
def test_of_a_video_only_the_sound_changes(name, ending, tmp_path, degrade):
    source = write_video(tmp_path / f"clip{ending}", sound=tone(2.0, RATE, hertz=1000.0))
    copy = degrade(name, source)
    pairs = list(zip(iterate_frames(source), iterate_frames(copy), strict=True))
    assert all(abs(before[0] - after[0]) < 0.002 for before, after in pairs)
    assert max(np.abs(before[1].astype(float) - after[1]).max() for before, after in pairs) <= (
        0 if ending == ".mp4" else 3
    )
    before, after = read_sound(source, RATE), read_sound(copy, RATE)
    assert len(after) == pytest.approx(len(before), abs=0.1 * RATE)
    part = min(len(before), len(after))
    assert np.corrcoef(before[:part], after[:part])[0, 1] > 0.5
    assert not np.array_equal(before[:part], after[:part])


def test_a_video_without_sound_has_no_degraded_sound(tmp_path, degrade):
    with pytest.raises(NoSound, match="it has no sound track"):
        degrade("mp3-32", write_video(tmp_path / "mute.mp4"))


def test_steps_follow_one_another(voice, tmp_path):
    steps = [{"operation": "noise", "snr_db": 0}, {"operation": "mp3", "kilobits": 160}]
    both = SoundDegradation.model_validate({"name": "both", "steps": steps})
    copy = degrade_file(voice, both, tmp_path)
    before, after = read_sound(voice, RATE), read_sound(copy, RATE)
    assert copy.suffix == ".mp3"
    assert 1.5 < decibels(measure_power(after) / measure_power(before)) < 3.2  # LAME leaves out the highest tones


def test_views_read_a_copy(voice, degrade):
    for name in ("mp3-32", "telephone", "noise-5db"):
        images = make_images(make_view({"name": "mel", "fmax_hz": 7000}), degrade(name, voice), 32)
        assert images.pixels.shape[1:] == (32, 32, 3)


def test_real_voices(shared, degrade):
    for source in sorted((shared / "data" / "audio_voices" / "real").glob("*.wav"))[:2]:
        seconds = probe_media(source).duration_seconds
        for item in choose_degradations(["*"], medium="sound"):
            copy = degrade(item.name, source)
            if item.name == "trimmed":
                assert 0.2 * seconds < probe_media(copy).duration_seconds <= seconds
            else:
                assert probe_media(copy).duration_seconds == pytest.approx(seconds, abs=0.1)


def test_the_sound_of_a_real_clip(shared, degrade):
    source = shared / "data" / "ffdv_videos" / "trainset" / "dfdc_abofeumbvv.mp4"
    copy = degrade("noise-10db", source)
    before, after = probe_media(source), probe_media(copy)
    assert (after.video.codec, after.video.frames_per_second) == ("h264", pytest.approx(29.97, abs=0.01))
    assert after.duration_seconds == pytest.approx(before.duration_seconds, abs=0.01)
    (_, first), (_, same) = next(iterate_frames(source)), next(iterate_frames(copy))
    assert np.array_equal(first, same)
    samples = read_sound(source, RATE)
    noise = read_sound(copy, RATE)[: len(samples)] - samples
    # of 48 kHz, a third of the noise is below 8 kHz
    assert decibels(measure_power(samples) / measure_power(noise)) == pytest.approx(10 + decibels(3), abs=0.5)
