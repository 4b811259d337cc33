"""Tiny videos and sounds, made with PyAV: every frame shows its number, every sound is a tone."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FRAMES, RATE = 64, 48, 20, 10
_BITS = 8


def picture(number):
    """A frame that shows a number as eight dark or bright bars, above red on the left and blue on the right."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for bit in range(_BITS):
        pixels[: HEIGHT // 2, 8 * bit : 8 * bit + 8] = 220 if number >> bit & 1 else 30
    pixels[HEIGHT // 2 :, : WIDTH // 2] = (220, 30, 30)
    pixels[HEIGHT // 2 :, WIDTH // 2 :] = (30, 30, 220)
    return pixels


def number_of(pixels):
    """Reads the number from a frame of any size."""
    height, width, _ = pixels.shape
    bars = pixels[: height // 2].reshape(height // 2, _BITS, width // _BITS, 3).mean(axis=(0, 2, 3))
    return sum(1 << bit for bit in range(_BITS) if bars[bit] > 125)


def numbers_of(frames):
    return [number_of(pixels) for pixels in frames.pixels]


def tone(seconds, rate, channels=1, hertz=440.0, level=0.5):
    """A sine, shape (channels, samples) float32; the channels have the same sound."""
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[None], channels, axis=0).astype(np.float32)


def write_video(
    path: Path,
    codec="libx264",
    pixel_format="yuv420p",
    ticks=range(FRAMES),
    sound=None,
    sound_codec="aac",
    sound_start=0.0,
    degrees=0.0,
    options=None,
    **context,
):
    """Writes one frame per tick of a tenth of a second; `sound` is (channels, samples) at 16 kHz.

    `degrees` is the counterclockwise rotation that the player is told, and that the stored frames lack.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=RATE)
        sideways = round(degrees / 90) % 2
        video.width, video.height = (HEIGHT, WIDTH) if sideways else (WIDTH, HEIGHT)
        video.pix_fmt, video.thread_count = pixel_format, 1
        video.codec_context.time_base = Fraction(1, RATE)
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        if degrees:
            video.set_display_rotation(degrees)
        audio = None if sound is None else container.add_stream(sound_codec, rate=16_000, layout="mono")
        for number, tick in enumerate(ticks):
            stored = np.ascontiguousarray(np.rot90(picture(number), -round(degrees / 90)))
            frame = av.VideoFrame.from_ndarray(stored).reformat(format=pixel_format)
            frame.pts, frame.time_base = tick, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            _encode(container, audio, sound, 16_000, sound_start)
    return path


def write_sound(path, samples, rate, codec="pcm_s16le", container_format=None):
    """Writes (channels, samples) float32 to a path, or to an open file in a named format."""
    with av.open(str(path) if isinstance(path, Path) else path, "w", format=container_format) as container:
        layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(samples)]
        _encode(container, container.add_stream(codec, rate=rate, layout=layout), samples, rate)
    return path


def _encode(container, stream, samples, rate, start=0.0):
    packed = np.ascontiguousarray(samples.T.reshape(1, -1))  # eight planes are more than PyAV can count
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=stream.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = rate, round(start * rate), Fraction(1, rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
