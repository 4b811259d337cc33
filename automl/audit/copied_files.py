"""Writes one file of a data set anew, as all the others are written.

It runs in the decoders (`automl.media.decoding`): it must stay small.

- **Images**: JPEG, quality 95, 4:4:4, RGB, upright, without EXIF and profile. Not PNG: of a set in which one class
  comes as JPEG, a copy without loss would keep the traces of that compression in one class alone. As JPEG, all files
  have been one (Grommelt et al. 2024, arXiv 2403.17608, compress generated images as the photographs are).
- **Sounds**: WAV, 16-bit PCM, 16 kHz, mono; see `sound_levels`.
- **Videos**: Matroska, H.264 (crf 18) in yuv420p, BT.709, 25 frames a second, with the sound as above, if there is one,
  but for its ends, which stay with the pictures.
"""

import hashlib
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from automl.audit.sound_levels import SAMPLE_RATE_HZ, equalise_sound, measure_floors, raise_floor
from automl.audit.sound_measures import Samples
from automl.errors import DataError
from automl.files import write_atomically
from automl.media.images import read_rgb
from automl.media.kinds import Medium
from automl.media.opening import find_sound, open_media, require
from automl.media.sound import NoSound, read_sound
from automl.media.video import iterate_frames
from automl.views.base import Pixels, cut_square

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

ENDINGS: dict[Medium, str] = {"image": ".jpg", "video": ".mkv", "sound": ".wav"}
FRAME_RATE = 25
_QUALITY = 95
_CRF = "18"  # of H.264: hardly to be told from the original


@dataclass(frozen=True)
class CopyJob:
    """One file to write anew."""

    source: str
    target: str
    media: Medium
    size: int | None
    """Pixels per side of the square that pictures become; None: their own size."""
    seconds: float | None
    """Length at which sounds and videos are cut off; None: their own length."""
    levels: tuple[float, ...]
    """The noise floor of sound, a power for each band; empty: no noise is added."""


def copy_file(job: CopyJob) -> None:
    """Writes the copy of a file atomically.

    Raises:
        DataError: If the file cannot be read.
        OSError: If the copy cannot be written.
    """
    target = Path(job.target)
    if job.media == "image":
        picture = read_rgb(job.source)
        if job.size:
            picture = Image.fromarray(cut_square(np.asarray(picture), job.size))
        with write_atomically(target) as temporary:
            picture.save(temporary, "JPEG", quality=_QUALITY, subsampling=0)
    elif job.media == "sound":
        samples = _read_levelled(job, trim=True)
        with write_atomically(target) as temporary, wave.open(str(temporary), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE_HZ)
            file.writeframes(_to_sixteen_bits(samples).tobytes())
    else:
        sound = _read_track(job)
        with write_atomically(target) as temporary:
            _write_video(temporary, job, sound)


def measure_file_floors(path: str) -> list[float]:
    """Measures the noise floor in each band of a sound, or of a video's sound, once the rest is alike; [] without one.

    Raises:
        DataError: If the file cannot be read.
    """
    with open_media(path) as container:
        if find_sound(container) is None:
            return []
        trim = not container.streams.video
    try:
        samples = equalise_sound(read_sound(path, SAMPLE_RATE_HZ), trim)
    except NoSound:
        return []
    return [float(power) for power in measure_floors(samples)]


def _read_levelled(job: CopyJob, trim: bool) -> Samples:
    """Reads a sound and makes it alike; the noise's seed is the file's name: the same file gives the same copy."""
    samples = equalise_sound(read_sound(job.source, SAMPLE_RATE_HZ), trim)
    if job.seconds:
        samples = samples[: round(job.seconds * SAMPLE_RATE_HZ)]
    if not job.levels:
        return np.clip(samples, -1.0, 1.0)
    seed = hashlib.blake2b(Path(job.target).name.encode(errors="surrogateescape"), digest_size=8).digest()
    return raise_floor(samples, job.levels, int.from_bytes(seed, "little"))


def _to_sixteen_bits(samples: Samples) -> np.ndarray:
    """Converts [-1, 1] to int16, little-endian as WAV has it."""
    return np.rint(samples * 32767).astype("<i2")


def _read_track(job: CopyJob) -> Samples | None:
    """Reads the sound of a video, made alike; None without one."""
    with open_media(job.source) as container:
        if find_sound(container) is None:
            return None
    try:
        return _read_levelled(job, trim=False)
    except NoSound:
        return None


def _write_video(target: Path, job: CopyJob, sound: Samples | None) -> None:
    """Writes pictures and sound."""
    av = require("av")
    frames = islice(_retime_frames(iterate_frames(job.source), job.size), _count_frames(job.seconds))
    first = next(frames, None)
    if first is None:
        raise DataError(f"cannot read {job.source}: its video track has no frames")
    # bitexact: no tag says which version wrote the file
    options = {"fflags": "+bitexact"}
    with av.open(str(target), "w", format="matroska", options=options) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": _CRF, "preset": "veryfast"})
        video.height, video.width = first.shape[:2]
        video.pix_fmt = "yuv420p"
        context: Any = video.codec_context
        context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1  # BT.709, tv
        context.thread_count = 1
        track = container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono") if sound is not None else None
        _encode_frame(container, video, first, 0)
        for number, pixels in enumerate(frames, start=1):
            _encode_frame(container, video, pixels, number)
        container.mux(video.encode())
        if track is not None and sound is not None:
            block = av.AudioFrame.from_ndarray(_to_sixteen_bits(sound)[None], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE_HZ, 0, Fraction(1, SAMPLE_RATE_HZ)
            container.mux(track.encode(block))
            container.mux(track.encode())


def _count_frames(seconds: float | None) -> int | None:
    """Returns how many frames a video may have; None for any number."""
    return None if seconds is None else max(1, round(seconds * FRAME_RATE))


def _encode_frame(container: "OutputContainer", video: "VideoStream", pixels: Pixels, number: int) -> None:
    """Encodes one frame (height, width, 3) uint8 RGB."""
    reformatter: Any = require("av").video.reformatter
    frame: Any = require("av").VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    frame = frame.reformat(
        format="yuv420p",
        dst_colorspace=reformatter.Colorspace.ITU709,
        src_color_range=reformatter.ColorRange.JPEG,
        dst_color_range=reformatter.ColorRange.MPEG,
    )
    frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
    container.mux(video.encode(frame))


def _retime_frames(frames: Iterator[tuple[float, Pixels]], size: int | None) -> Iterator[Pixels]:
    """Yields frames at the common rate, of even sides: each as often as it is displayed at such a time, or never."""
    number, shown = 0, None
    for seconds, pixels in frames:
        while shown is not None and number < round(seconds * FRAME_RATE):
            yield shown
            number += 1
        height, width = pixels.shape[:2]
        shown = cut_square(pixels, size) if size else pixels[: height - height % 2, : width - width % 2]
    if shown is not None:
        yield shown
