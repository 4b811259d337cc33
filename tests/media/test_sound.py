import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from automl.errors import DataError
from automl.media import sound
from automl.media.info import probe_media
from automl.media.sound import NoSound, read_sound
from automl.views.sound_parts import read_parts
from tests.fixtures.clips import tone, write_sound, write_video

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
    assert np.abs(part - whole[RATE * 3 // 4 : RATE * 5 // 4]).max() < 0.001


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


@pytest.mark.parametrize(
    ("name", "codec", "channels"),
    [
        ("5_1.wav", "pcm_s16le", 6),
        ("7_1.wav", "pcm_f32le", 8),
        ("5_1.flac", "flac", 6),
        ("7_1.mkv", "flac", 8),
        ("5_1.mp4", "aac", 6),
        ("7_1.mp4", "aac", 8),
        ("5_1.ac3", "ac3", 6),
        ("7_1.opus", "libopus", 8),
    ],
)
def test_surround_sound_is_mixed(tmp_path, name, codec, channels):
    loud = tone(1.0, 48_000, channels)
    loud[3] = 0  # the bass speaker, of which codecs keep only the bass
    samples = read_sound(write_sound(tmp_path / name, loud, 48_000, codec), RATE)
    assert len(samples) == pytest.approx(RATE, abs=0.03 * RATE)
    assert pitch(samples) == pytest.approx(440, abs=2)
    assert samples[2000:-2000].std() == pytest.approx(0.5 / np.sqrt(2) * (channels - 1) / channels, abs=0.01)


@pytest.mark.parametrize("channels", [3, 8, 16, 64])
def test_channels_without_a_layout_are_averaged(tmp_path, channels):
    frames = np.repeat(100 * np.arange(channels, dtype="<i2")[None], 48_000, axis=0)
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((channels, 2, 48_000, 0, "NONE", ""))
        file.writeframes(frames.tobytes())
    samples = read_sound(tmp_path / "x.wav", RATE)
    assert len(samples) == RATE
    assert samples[1000:-1000] * 32768 == pytest.approx(50 * (channels - 1), abs=0.1)


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


CLICKS = (0.5, 2.0, 3.0)


def clicks_of(samples):
    """The times at which it becomes loud, in seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.25)
    return (loud[np.diff(loud, prepend=-RATE) > RATE // 10] / RATE).tolist()


def write_clicks(path, codec, hole=None, shift=lambda _: 0, b_frames=None, options=None):
    """Writes clicks at `CLICKS`, four seconds in all, without the packets of a hole, and with their stamps shifted.

    `b_frames` makes it the sound of a video with as many; `shift` gives seconds by the packet's number.
    """
    rate = 48_000
    samples = np.zeros((1, 4 * rate), np.float32)
    for time in CLICKS:
        samples[:, round(time * rate) : round(time * rate) + 480] = tone(0.01, rate, hertz=1000, level=0.8)
    with av.open(str(path), "w", options=options or {}) as container:
        packets = []
        if b_frames is not None:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.codec_context.max_b_frames = b_frames
        audio = container.add_stream(codec, rate=rate, layout="mono")
        if b_frames is not None:
            for number in range(100):
                picture = av.VideoFrame(64, 48, "yuv420p")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                packets += video.encode(picture)
            packets += video.encode()
        sounds = []
        for start in range(0, samples.shape[1], 960):
            frame = av.AudioFrame.from_ndarray(samples[:, start : start + 960], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            sounds += audio.encode(frame)
        for number, packet in enumerate([*sounds, *audio.encode()]):
            if hole is None or not hole[0] <= packet.pts * packet.time_base < hole[1]:
                moved = round(shift(number) / packet.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                packets.append(packet)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def check_clicks(path, times, begin=1.75):
    """Looks for clicks in the whole and in a part, which must be the same samples."""
    whole, part = read_sound(path, RATE), read_sound(path, RATE, begin, 2.0)
    assert clicks_of(whole) == pytest.approx(times, abs=0.001)
    expected = whole[round(begin * RATE) :][: len(part)]
    assert len(expected) == len(part)
    assert np.abs(part - expected).max() < 0.001
    return whole


@pytest.mark.parametrize(
    ("name", "codec", "offset"),
    [
        ("x.mkv", "libopus", 0),
        ("x.webm", "libopus", 0),
        ("x.mka", "aac", 0),
        ("x.mkv", "libmp3lame", 0),
        ("x.mkv", "flac", 0),
        ("x.m4a", "aac", 0),
        ("x.ts", "aac", 1024 / 48_000),  # which does not say that the encoder begins with a frame of silence
        ("x.flv", "aac", 1024 / 48_000),
    ],
)
@pytest.mark.parametrize("hole", [None, (0.6, 1.5), (1.7, 1.85)])
def test_holes_are_silent_and_what_follows_stays_in_its_place(tmp_path, name, codec, offset, hole):
    whole = check_clicks(write_clicks(tmp_path / name, codec, hole), [time + offset for time in CLICKS])
    assert len(whole) == pytest.approx(4 * RATE, abs=0.05 * RATE)
    if hole:
        assert np.abs(whole[round((hole[0] + 0.05) * RATE) : round(hole[1] * RATE)]).max() < 0.01


@pytest.mark.parametrize(
    "options", [{"movflags": "frag_keyframe+empty_moov"}, {"use_editlist": "0"}, {}], ids=["fragments", "no edits", ""]
)
def test_sound_beside_reordered_pictures_is_in_time(tmp_path, options):
    path = write_clicks(tmp_path / "x.mp4", "aac", b_frames=2, options=options)
    late = 0.08 if options else 0.0  # where the pictures begin that have no edit list
    assert float(av.open(str(path)).streams.video[0].start_time or 0) / 12_800 == pytest.approx(late)
    check_clicks(path, [time + late for time in CLICKS])


def test_stamps_that_wobble_leave_no_clicks(tmp_path):
    steady = read_sound(write_clicks(tmp_path / "x.mka", "pcm_s16le"), RATE)
    random = np.random.default_rng(0)
    path = write_clicks(tmp_path / "y.mka", "pcm_s16le", shift=lambda number: number and random.uniform(-0.006, 0.006))
    assert np.abs(read_sound(path, RATE) - steady).max() < 1e-6


def test_sound_that_drifts_is_put_right(tmp_path):
    path = write_clicks(tmp_path / "x.mka", "pcm_s16le", shift=lambda number: 0.0005 * number)
    late = [time + 0.0005 * time * 50 for time in CLICKS]  # of fifty packets a second
    assert clicks_of(read_sound(path, RATE)) == pytest.approx(late, abs=0.016)


def test_packets_that_overlap_are_cut(tmp_path):
    path = write_clicks(tmp_path / "x.mka", "pcm_s16le", shift=lambda number: -0.1 * (number >= 75))
    samples = read_sound(path, RATE)
    assert clicks_of(samples) == pytest.approx([0.5, 1.9, 2.9], abs=0.001)
    assert len(samples) == pytest.approx(3.9 * RATE, abs=16)


def test_clocks_that_are_set_back_go_on(tmp_path):
    one = write_clicks(tmp_path / "x.ts", "aac").read_bytes()
    (tmp_path / "two.ts").write_bytes(one + one)
    samples = read_sound(tmp_path / "two.ts", RATE)
    assert len(samples) == pytest.approx(8 * RATE, abs=0.1 * RATE)
    assert len(clicks_of(samples)) == 6


def test_a_rate_that_changes_within_the_file(tmp_path):
    read_parts = [write_sound(tmp_path / f"{rate}.aac", tone(2.0, rate), rate, "aac") for rate in (44_100, 22_050)]
    (tmp_path / "x.aac").write_bytes(b"".join(path.read_bytes() for path in read_parts))
    samples = read_sound(tmp_path / "x.aac", RATE)
    assert len(samples) == pytest.approx(4 * RATE, abs=0.2 * RATE)
    assert pitch(samples[: RATE * 3 // 2]) == pytest.approx(pitch(samples[-RATE * 3 // 2 :]), abs=2)


def test_what_lies_in_a_hole_is_silence(tmp_path):
    samples = read_sound(write_clicks(tmp_path / "x.mka", "flac", (0.6, 2.5)), RATE, 1.0, 0.5)
    assert len(samples) == RATE // 2
    assert not samples.any()


@pytest.mark.parametrize("quiet_first", [True, False])
def test_an_estimated_duration_is_not_believed(tmp_path, quiet_first):
    levels = (0.0001, 0.5) if quiet_first else (0.5, 0.0001)
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 44_100 * 8)).astype(np.float32)
    samples = np.concatenate([level * noise for level in levels], axis=1)
    path = tmp_path / "x.mp3"
    with av.open(str(path), "w", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=44_100, layout="mono", options={"global_quality": "472"})
        stream.codec_context.flags |= av.codec.context.Flags.qscale
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44_100, 0, Fraction(1, 44_100)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert abs(container.duration / 1e6 - 16) > 1  # FFmpeg's estimate
    info = probe_media(path)
    assert info.duration_seconds == info.audio.duration_seconds == pytest.approx(16, abs=0.06)
    found = [np.abs(samples).max() > 0.1 for _, samples in read_parts(path, RATE, 2.0, 4)]
    assert found == ([False, False, True, True] if quiet_first else [True, True, False, False])


@pytest.mark.parametrize(("name", "codec"), [("x.aac", "aac"), ("x.mka", "aac"), ("x.wav", "pcm_s16le")])
def test_the_duration_of_sound_is_where_it_ends(tmp_path, name, codec):
    path = write_sound(tmp_path / name, tone(3.0, RATE), RATE, codec)
    assert probe_media(path).audio.duration_seconds == pytest.approx(len(read_sound(path, RATE)) / RATE, abs=0.01)


def test_the_duration_of_sound_in_a_longer_video_and_of_sound_that_begins_late(tmp_path):
    for name in ("x.mkv", "x.mp4"):
        path = write_video(tmp_path / name, sound=tone(1.0, RATE), sound_start=0.25)
        assert probe_media(path).duration_seconds == pytest.approx(2.0, abs=0.06)
        assert probe_media(path).audio.duration_seconds == pytest.approx(1.25, abs=0.06)


@pytest.mark.parametrize(("bad", "count"), [([100], "1 of 16000 samples is not a number"), (range(50), "50 of 16000")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_samples_that_are_no_numbers_are_one_line(tmp_path, bad, count, value):
    samples = tone(1.0, 16_000)
    samples[0, list(bad)] = value
    path = write_sound(tmp_path / "x.wav", samples, 16_000, "pcm_f32le")
    for read in (lambda: probe_media(path), lambda: read_sound(path, 8_000), lambda: read_sound(path, 22_050, 0, 0.5)):
        with pytest.raises(DataError, match=count) as caught:
            read()
        assert len(str(caught.value).splitlines()) == 1
        assert "x.wav" in str(caught.value)


def test_more_than_fits_in_memory_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sound, "_LARGEST_BYTES", 4 * RATE)
    path = write_sound(tmp_path / "x.wav", tone(2.0, RATE), RATE)
    with pytest.raises(DataError, match=r"x\.wav: more than .* hours of sound at 16000 Hz do not fit in memory"):
        read_sound(path, RATE)
    assert len(read_sound(path, RATE, 1.0, 1.0)) == RATE


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


def test_numbers_that_are_none_in_the_sound_of_a_video_leave_its_pictures_readable(tmp_path):
    samples = np.zeros(8000, np.float32)
    samples[100] = np.nan
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as container:
        picture, sound = container.add_stream("libx264", rate=25), container.add_stream("pcm_f32le", rate=8000)
        picture.width, picture.height, picture.pix_fmt, sound.layout = 64, 48, "yuv420p", "mono"
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
            container.mux(picture.encode(frame))
        block = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        block.sample_rate = 8000
        container.mux(sound.encode(block))
        for stream in (picture, sound):
            container.mux(stream.encode(None))
    assert probe_media(path).video is not None
    with pytest.raises(DataError, match="1 of 8000 samples is not a number"):
        read_sound(path, 8000)
