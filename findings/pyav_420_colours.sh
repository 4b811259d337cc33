#!/usr/bin/env bash
# PyAV makes RGB frames of 4:2:0 video one to two levels too dark, their colours in pairs of columns; of 4:4:4 not.
#
# Seen with PyAV 18.1.0 (its wheel for x86-64): one 1080p picture is stored without loss as yuv420p and as yuv444p
# (H.264, Rec. 709, limited range); both decode to the same luma, byte for byte. frame.reformat(398, 224, "rgb24") then
# gives frames that are 1.93 levels of luma apart: white is 253 from 4:2:0 and 255 from 4:4:4. From 4:2:0 columns 0 and
# 1, 2 and 3 … share their colour, although a frame as small has colour samples to spare. Interpolation.BICUBIC changes
# nothing; frame.to_ndarray(format="rgb24") at full size is 1.30 levels too dark. At an odd width (399) both are gone,
# and so they are with Interpolation.FULL_CHR_H_INT | ACCURATE_RND; at full size FULL_CHR_H_INT alone does nothing.
#
# Why a good guess is wrong: 4:2:0 has fewer colour samples, so one expects softer colours at full size and nothing at
# all in a frame shrunk to a twentieth of its pixels; brightness, which is stored alike, should not differ anywhere.
# But FFmpeg has a faster, coarser way to RGB at even widths, which 4:2:0 is given unless one asks for accuracy.
#
# What it means: where a data set mixes 4:2:0 and 4:4:4 clips and the source goes with the class, a network can tell
# the classes apart by brightness and column pairs. Give reformat the flags above.
set -euo pipefail
export OMP_NUM_THREADS=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "av==18.1.0" "numpy==2.4.6"

cat > look.py <<'PY'
import io

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

ACCURATE = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
WIDTH, HEIGHT = 1920, 1080


def natural():
    """A picture with the spectrum of a photograph: large light and dark areas, finer details fainter."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    frequency[0, 0] = 1

    def plane(power):
        waves = np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**power
        values = np.fft.irfft2(waves, s=(HEIGHT, WIDTH))
        return (values - values.mean()) / values.std()

    light = 110 + 40 * plane(1.2)
    colour = 15 * np.stack([plane(1.5) for _ in range(3)], axis=-1)
    return np.clip(light[..., None] + colour, 0, 255).round().astype(np.uint8)


def stored(picture, pixel_format):
    """The frame that a lossless H.264 file of the picture decodes to."""
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
        format=pixel_format,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=ACCURATE | Interpolation.FULL_CHR_H_INP,
    )
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.colorspace = Colorspace.ITU709
        container.mux([*stream.encode(frame), *stream.encode()])
    file.seek(0)
    with av.open(file) as container:
        decoded = next(container.decode(video=0))
    assert decoded.format.name == pixel_format
    return decoded


def stored_luma(frame):
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)[:, : frame.width]


def luma(pixels):
    return pixels @ np.array([0.2126, 0.7152, 0.0722])


def steps(pixels):
    """How much the colour changes from column to column, within the pairs and between them."""
    change = np.abs(np.diff(pixels[..., 0] - luma(pixels), axis=1))
    return change[:, ::2].mean(), change[:, 1::2].mean()


def compare(text, convert):
    shrunk, full = [convert(frame).astype(float) for frame in frames]
    apart = luma(shrunk) - luma(full)
    mean, rms = apart.mean(), np.sqrt((apart**2).mean())
    (within, between), (within_444, between_444) = steps(shrunk), steps(full)
    print(f"{text:28} {mean:+6.2f} {rms:5.2f} | {within:4.2f} {between:4.2f} | {within_444:4.2f} {between_444:4.2f}")
    assert abs(within_444 - between_444) < 0.05 * between_444, "4:4:4 has no pairs"
    return mean, rms, within / between


def reformat(width, height, **how):
    return lambda frame: frame.reformat(width, height, "rgb24", **how).to_ndarray()


print("PyAV", av.__version__)
picture = natural()
print("luma of 4:2:0 less 4:4:4: mean, rms | colour steps within and between column pairs: 4:2:0 | 4:4:4")
frames = [stored(picture, pixel_format) for pixel_format in ("yuv420p", "yuv444p")]
assert np.array_equal(*map(stored_luma, frames)), "the two files have the same luma"

for text, convert in {
    "reformat(398, 224)": reformat(398, 224),
    "reformat(398, 224), BICUBIC": reformat(398, 224, interpolation=Interpolation.BICUBIC),
}.items():
    mean, rms, pairs = compare(text, convert)
    assert -2.4 < mean < -1.4 and rms < 2.5 and pairs < 0.2
mean, rms, pairs = compare('to_ndarray(format="rgb24")', lambda frame: frame.to_ndarray(format="rgb24"))
assert -1.8 < mean < -0.8 and pairs < 0.1
half = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT
mean, rms, pairs = compare("full size, FULL_CHR_H_INT", reformat(WIDTH, HEIGHT, interpolation=half))
assert -1.8 < mean < -0.8 and pairs < 0.1

for text, convert in {
    "reformat(399, 224)": reformat(399, 224),
    "reformat(398, 224), accurate": reformat(398, 224, interpolation=ACCURATE),
    "full size, accurate": reformat(WIDTH, HEIGHT, interpolation=ACCURATE),
}.items():
    mean, rms, pairs = compare(text, convert)
    assert abs(mean) < 0.05 and rms < 0.4 and 0.95 < pairs < 1.05

light = luma(picture).mean()
means = [luma(reformat(WIDTH, HEIGHT)(frame)).mean() for frame in frames]
print(f"mean luma: picture {light:.2f}, from 4:2:0 {means[0]:.2f}, from 4:4:4 {means[1]:.2f}")
assert means[0] < light - 0.8 and abs(means[1] - light) < 0.3, "it is the 4:2:0 frame that is wrong"

white = np.full((64, 64, 3), 255, np.uint8)
whites = [reformat(32, 32)(stored(white, name)).mean() for name in ("yuv420p", "yuv444p")]
mended = reformat(32, 32, interpolation=ACCURATE)(stored(white, "yuv420p")).mean()
print(f"white: from 4:2:0 {whites[0]:.0f}, from 4:4:4 {whites[1]:.0f}, from 4:2:0 with the flags {mended:.0f}")
assert whites == [253, 255] and mended == 255
PY
venv/bin/python look.py
