"""A made-up data set for each property, of which nothing else differs by class, shows that it is a finding."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from automl.audit.audit import audit_dataset
from automl.audit.properties import PROPERTIES
from automl.data.dataset import open_dataset
from automl.spec import DataSpec

FILES = 12  # of each class
RATE = 16_000


def open_made(folder, make):
    """Opens a data set of two classes, each file of which `make(path without ending, forged, random)` writes."""
    for label, forged in (("fake", True), ("real", False)):
        (folder / label).mkdir()
        for number in range(FILES):
            make(folder / label / str(number), forged, np.random.default_rng(number + FILES * forged))
    return open_dataset(DataSpec(path=folder), 0)


def find_keys(audit):
    return {row.kind.key for row in audit.findings}


# --- images ---------------------------------------------------------------------------------------------------------


def picture(random, size=(64, 48), mode="RGB"):
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def tall(random, times):
    side = int(random.integers(20, 40))
    return side, times * side


def write_image(path, image, ending=".png", kind=None, **options):
    image.save(path.with_suffix(ending), kind or Image.registered_extensions()[ending], **options)


def with_gamma():
    info = PngInfo()
    info.add(b"gAMA", (45455).to_bytes(4, "big"))
    return info


def exif():
    tags = Image.Exif()
    tags[0x010F] = "Maker"
    return tags.tobytes()


PLAIN, TURNED = [16 + k % 7 for k in range(64)], [16 + k % 7 for k in range(64)][::-1]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIZE = {"bytes_per_pixel"}

# key: what is written of a file, findings that come with it, what the table then has of the classes
IMAGES = {
    "container": (
        lambda path, forged, random: write_image(path, picture(random), kind="BMP" if forged else "PNG"),
        SIZE | {"density"},
        "fake: BMP in 100 %, real: PNG in 100 %",
    ),
    "ending": (
        lambda path, forged, random: write_image(path, picture(random), ".jpeg" if forged else ".jpg"),
        set(),
        "fake: .jpeg in 100 %, real: .jpg in 100 %",
    ),
    "encoder": (
        lambda path, forged, random: write_image(path, picture(random), ".jpg", comment=b"gd-jpeg" if forged else b"x"),
        SIZE,
        "fake: gd-jpeg in 100 %, real: x in 100 %",
    ),
    "pixel_format": (
        lambda path, forged, random: write_image(path, picture(random, mode="L" if forged else "RGB")),
        SIZE,
        "fake: L in 100 %, real: RGB in 100 %",
    ),
    "colour": (
        lambda path, forged, random: write_image(path, picture(random), pnginfo=with_gamma() if forged else None),
        SIZE,
        "fake: gamma in 100 %, real: none in 100 %",
    ),
    "width": (
        lambda path, forged, random: write_image(path, picture(random, (70 if forged else 64, 48))),
        SIZE | {"aspect"},
        "fake: 70 px in 100 %, real: 64 px in 100 %",
    ),
    "height": (
        lambda path, forged, random: write_image(path, picture(random, (64, 52 if forged else 48))),
        SIZE | {"aspect"},
        "fake: 52 px in 100 %, real: 48 px in 100 %",
    ),
    "aspect": (
        lambda path, forged, random: write_image(path, picture(random, tall(random, 2 if forged else 3))),
        SIZE | {"height"},
        "fake: 0.5 in 100 %, real: 0.333 in 100 %",
    ),
    "quantisation": (
        lambda path, forged, random: write_image(
            path, picture(random), ".jpg", qtables=[TURNED, TURNED] if forged else [PLAIN, PLAIN]
        ),
        SIZE,
        None,
    ),
    "quality": (
        lambda path, forged, random: write_image(path, picture(random), ".jpg", quality=90 if forged else 75),
        SIZE | {"quantisation"},
        "fake: 90 in 100 %, real: 75 in 100 %",
    ),
    "subsampling": (
        lambda path, forged, random: write_image(path, picture(random), ".jpg", subsampling=0 if forged else 2),
        SIZE,
        "fake: 4:4:4 in 100 %, real: 4:2:0 in 100 %",
    ),
    "progressive": (
        lambda path, forged, random: write_image(path, picture(random), ".jpg", progressive=forged),
        SIZE,
        "fake: yes in 100 %, real: no in 100 %",
    ),
    "exif": (
        lambda path, forged, random: write_image(path, picture(random), ".jpg", exif=exif() if forged else b""),
        SIZE | {"density"},  # Pillow then writes no JFIF header
        "fake: yes in 100 %, real: no in 100 %",
    ),
    "icc": (
        lambda path, forged, random: write_image(path, picture(random), ".jpg", icc_profile=SRGB if forged else None),
        SIZE,
        "fake: yes in 100 %, real: no in 100 %",
    ),
    "density": (
        lambda path, forged, random: write_image(path, picture(random), ".jpg", dpi=(72, 72) if forged else (300, 300)),
        set(),
        "fake: 72×72 in 100 %, real: 300×300 in 100 %",
    ),
    "bytes_per_pixel": (
        lambda path, forged, random: write_image(
            path, picture(random, (8, 6)).resize((64, 48)), compress_level=0 if forged else 9
        ),
        set(),
        None,
    ),
}

# --- videos ---------------------------------------------------------------------------------------------------------


def write_video(
    path,
    random,
    ending=".mp4",
    kind=None,
    codec="libx264",
    pixel_format="yuv420p",
    size=(64, 48),
    rate=10,
    frames=10,
    tags=None,
    handler=None,
    options=None,
    crf="23",
    sound=None,
    **context,
):
    """Writes noise; `sound` are (codec, sample rate, layout, bit rate) of its sound."""
    kind = kind or {".mp4": "mp4", ".mkv": "matroska"}[ending]
    with av.open(str(path.with_suffix(ending)), "w", format=kind, options=options or {}) as container:
        container.metadata.update(tags or {})
        video = container.add_stream(codec, rate=rate, options={"crf": crf} if codec == "libx264" else {})
        video.width, video.height, video.pix_fmt = *size, pixel_format
        if handler:
            video.metadata["handler_name"] = handler
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        track = None
        if sound:
            name, hertz, layout, bits = sound
            track = container.add_stream(name, rate=hertz, layout=layout)
            track.bit_rate = bits
        base = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(base, number, 1), format="rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if track:
            noise = (0.1 * random.standard_normal((1, hertz * frames // rate * track.layout.nb_channels))).astype("f4")
            block = av.AudioFrame.from_ndarray(noise, format="flt", layout=layout)
            block.sample_rate, block.pts, block.time_base = hertz, 0, Fraction(1, hertz)
            container.mux(track.encode(block))
            container.mux(track.encode())


AAC = ("aac", 16_000, "mono", 64_000)
RATES = {"bytes_per_second", "video_bit_rate"}
HEARD = {"bytes_per_second", "sound_bit_rate", "tags", "handler", "band_limit", "energy_limit", "peak", "loudness"} | {
    *("leading_silence", "trailing_silence", "noise_floor", "dc_offset", "duration"),
}

VIDEOS = {
    "container": (
        lambda path, forged, random: write_video(path, random, kind="matroska" if forged else "mp4"),
        {"brand", "tags", "handler", "encoder", *RATES},
        "fake: matroska,webm in 100 %, real: mov,mp4,m4a,3gp,3g2,mj2 in 100 %",
    ),
    "codec": (
        lambda path, forged, random: write_video(path, random, codec="mpeg4" if forged else "libx264"),
        {*RATES, "colour", "tags", "encoder"},
        "fake: mpeg4 Simple Profile in 100 %, real: h264 High in 100 %",
    ),
    "pixel_format": (
        lambda path, forged, random: write_video(path, random, pixel_format="yuv444p" if forged else "yuv420p"),
        {*RATES, "codec"},
        "fake: yuv444p in 100 %, real: yuv420p in 100 %",
    ),
    "colour": (
        lambda path, forged, random: write_video(
            path, random, color_primaries=9, color_trc=16, colorspace=9 if forged else 1, color_range=1
        ),
        set(),
        "fake: bt2020/pq/bt2020/tv in 100 %, real: bt2020/pq/bt709/tv in 100 %",
    ),
    "frame_rate": (
        lambda path, forged, random: write_video(path, random, rate=30 if forged else 25, frames=30 if forged else 25),
        RATES,
        "fake: 30 fps in 100 %, real: 25 fps in 100 %",
    ),
    "encoder": (
        lambda path, forged, random: write_video(
            path, random, ".mkv", tags={"software": "Faker" if forged else "Phone"}, options={"fflags": "+bitexact"}
        ),
        set(),
        "fake: Lavf / Faker in 100 %, real: Lavf / Phone in 100 %",
    ),
    "handler": (
        lambda path, forged, random: write_video(path, random, handler="Fake" if forged else "Core"),
        set(),
        "fake: Fake in 100 %, real: Core in 100 %",
    ),
    "brand": (
        lambda path, forged, random: write_video(path, random, options={"brand": "mp42" if forged else "isom"}),
        set(),
        "fake: mp42 in 100 %, real: isom in 100 %",
    ),
    "tags": (
        lambda path, forged, random: write_video(path, random, tags={"title" if forged else "album": "same"}),
        set(),
        None,
    ),
    "video_bit_rate": (
        lambda path, forged, random: write_video(path, random, crf="40" if forged else "10"),
        {"bytes_per_second"},
        None,
    ),
    "has_sound": (
        lambda path, forged, random: write_video(path, random, sound=AAC if forged else None),
        {"sound_codec", "sample_rate", "channels", *HEARD},
        "fake: yes in 100 %, real: no in 100 %",
    ),
    "sound_codec": (
        lambda path, forged, random: write_video(
            path, random, ".mkv", sound=AAC if forged else ("libmp3lame", *AAC[1:])
        ),
        {*HEARD, "encoder"},
        "fake: aac in 100 %, real: mp3 in 100 %",
    ),
    "sound_bit_rate": (
        lambda path, forged, random: write_video(path, random, sound=(*AAC[:3], 96_000 if forged else 32_000)),
        HEARD,
        None,
    ),
    "sample_rate": (
        lambda path, forged, random: write_video(path, random, sound=("aac", 32_000 if forged else 16_000, *AAC[2:])),
        HEARD,
        "fake: 32000 Hz in 100 %, real: 16000 Hz in 100 %",
    ),
    "channels": (
        lambda path, forged, random: write_video(
            path, random, sound=("aac", 16_000, "stereo" if forged else "mono", 64_000)
        ),
        HEARD,
        "fake: 2 in 100 %, real: 1 in 100 %",
    ),
}

# --- sounds ---------------------------------------------------------------------------------------------------------


def write_sound(path, samples, rate=RATE):
    """Writes samples as 32-bit float WAV, so that nothing is rounded."""
    with av.open(str(path.with_suffix(".wav")), "w") as container:
        track = container.add_stream("pcm_f32le", rate=rate, layout="mono")
        block = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="flt", layout="mono")
        block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
        container.mux(track.encode(block))
        container.mux(track.encode())


def speech(random, seconds=1.0, loudness=0.1, floor=0.001, level=None):
    """Noise that comes and goes four times a second and is loud at both ends, the same in all files but for chance."""
    count = round(seconds * RATE)
    loud = np.where(np.cos(2 * np.pi * 4 * np.arange(count) / RATE) > 0, 1.0, 0.0)
    samples = random.standard_normal(count) * np.maximum(loud, floor / loudness)
    samples *= (level or loudness) / np.sqrt(np.mean(samples**2))
    return samples


def below(samples, hertz):
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / RATE) > hertz] = 0
    return np.fft.irfft(spectrum, len(samples))


def clicked(samples, height):
    samples[0] = height
    return samples


QUIET = np.zeros(RATE // 4)
LEVELS = {"loudness", "peak", "noise_floor", "energy_limit", "dc_offset"}

SOUNDS = {
    "duration": (
        lambda path, forged, random: write_sound(path, speech(random, 1.5 if forged else 1)),
        {"bytes_per_second"},
        "fake: 1.5 s in 100 %, real: 1 s in 100 %",
    ),
    "leading_silence": (
        lambda path, forged, random: write_sound(
            path, np.concatenate([QUIET, speech(random)] if forged else [speech(random), QUIET])
        ),
        {"trailing_silence"},
        "fake: 0.25 s in 100 %, real: 0 s in 100 %",
    ),
    "trailing_silence": (
        lambda path, forged, random: write_sound(
            path, np.concatenate([speech(random), QUIET] if forged else [speech(random, 1.25)])
        ),
        LEVELS,
        "fake: 0.25 s in 100 %, real: 0 s in 100 %",
    ),
    "noise_floor": (
        lambda path, forged, random: write_sound(path, speech(random, floor=0.001 if forged else 0.01)),
        {"energy_limit"},
        None,
    ),
    "loudness": (
        lambda path, forged, random: write_sound(path, speech(random, level=0.05 if forged else 0.1)),
        {"peak", "noise_floor", "dc_offset"},
        "fake: -26 dBFS in 100 %, real: -20 dBFS in 100 %",
    ),
    "peak": (
        lambda path, forged, random: write_sound(path, clicked(speech(random), 0.9 if forged else 0.8)),
        set(),
        "fake: -0.9 dBFS in 100 %, real: -1.9 dBFS in 100 %",
    ),
    "band_limit": (
        lambda path, forged, random: write_sound(path, below(speech(random), 6000 if forged else 7500)),
        LEVELS,
        None,
    ),
    "energy_limit": (
        lambda path, forged, random: write_sound(
            path, speech(random) + 5 * below(speech(random), 2000 if forged else 4000)
        ),
        LEVELS,
        None,
    ),
    "dc_offset": (
        lambda path, forged, random: write_sound(path, speech(random) + (0.02 if forged else -0.02) - 0),
        {"peak", "loudness"},
        None,
    ),
    "bytes_per_second": (
        lambda path, forged, random: write_sound(
            path, np.repeat(speech(random), 2 if forged else 1), 2 * RATE if forged else RATE
        ),
        {"sample_rate", "sound_bit_rate", *LEVELS, "band_limit"},
        "fake: 128000 in 100 %, real: 64100 in 100 %",
    ),
}

CASES = [(key, *case) for group in (IMAGES, VIDEOS, SOUNDS) for key, case in group.items()]


@pytest.mark.parametrize(
    ("key", "make", "companions", "by_class"), CASES, ids=[f"{k}-{i}" for i, (k, *_) in enumerate(CASES)]
)
def test_a_property_that_alone_differs_is_a_finding(tmp_path, key, make, companions, by_class):
    audit = audit_dataset(open_made(tmp_path, make), 1000)
    assert key in find_keys(audit), [(row.kind.key, row.auc, row.by_class) for row in audit.rows]
    assert find_keys(audit) <= {key} | companions
    row = next(row for row in audit.rows if row.kind.key == key)
    assert row.auc.value > 0.97
    assert by_class is None or row.by_class == by_class


def test_every_property_has_a_made_up_data_set():
    assert {one.key for one in PROPERTIES} == {key for key, *_ in CASES}


@pytest.mark.parametrize(
    "make",
    [
        lambda path, _, random: write_image(path, picture(random), ".jpg"),
        lambda path, _, random: write_image(path, picture(random, tuple(random.integers(40, 90, 2)))),
        lambda path, _, random: write_video(path, random, sound=AAC),
        lambda path, _, random: write_sound(path, speech(random, random.uniform(0.8, 1.2))),
    ],
)
def test_classes_that_do_not_differ_are_quiet(tmp_path, make):
    audit = audit_dataset(open_made(tmp_path, make), 1000)
    assert len(audit.rows) >= 1
    assert not audit.findings
    assert all(row.auc.low < 0.5 for row in audit.rows)
