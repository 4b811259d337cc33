"""Degraded copies of files: of one, and of many in the processes that decode files."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from automl.degradations.degradation import (
    Degradation,
    ImageDegradation,
    SoundDegradation,
    VideoDegradation,
    load_degradations,
)
from automl.degradations.encoding import require_encoder, write_sound_file, write_sound_track, write_video_file
from automl.degradations.image_steps import ImageCodec, encode_png
from automl.degradations.sound_steps import Sound, SoundCodec
from automl.degradations.step import seed_random
from automl.degradations.video_steps import H264, TimedFrame
from automl.errors import DataError, SpecError
from automl.files import explain_write_errors, write_atomically
from automl.media.decoding import decode_files
from automl.media.images import read_rgb
from automl.media.info import MediaInfo, probe_media
from automl.media.kinds import Medium, find_medium_at
from automl.media.opening import find_origin, find_promised_end, find_video, open_media, refuse_missing
from automl.media.sound import NoSound, read_sound
from automl.media.video import iterate_frames
from automl.processes import cpu_threads
from automl.reporter import Progress

_VERSION = 2  # raised when the same file and degradation give another copy; part of its name
_STEM = 50  # characters of the source's name that its copy keeps; with the rest, below what file systems take
_CUT_OFF_SECONDS = 1.0  # that frames may be missing at the end, as in `automl.media.video`
_STALE_SECONDS = 900  # of half-written files: longer than a decoder may take


def degrade_file(source: Path, degradation: Degradation, folder: Path) -> Path:
    """Writes a degraded copy of a file, which everything that reads the source reads as well.

    An image becomes a PNG, upright and RGB, or the JPEG or WebP where compression is the last step. A video becomes an
    MP4 of H.264, upright and of square pixels, without cutting its sound track (mono, FLAC). A sound becomes a WAV of
    32-bit floats, or an MP3, M4A or Opus file where that is the last step; mono, as models hear it, at its own sample
    rate unless a step changes that.

    Whatever the source is, this decodes it in this process: it is what a decoder (`automl.media.decoding`) is asked
    for, and what `degrade_files` calls. The same file, degradation and versions of the libraries give the same copy.

    Args:
        source: The file; image, video or sound, by its name or content.
        degradation: One of `automl.degradations.degradation.load_degradations`.
        folder: Where the copy is written, atomically; made if it is missing.

    Returns:
        The copy: `folder` / the source's name, a digest of the file and the degradation, and an ending.

    Raises:
        SpecError: If the degradation does not apply to files of this medium, with those that do; or if PyAV lacks the
            encoder.
        DataError: If the source cannot be read or has no sound that could be degraded; or if the copy would be empty.
        OSError: If the copy cannot be written.
    """
    medium = _find_medium(source)
    _check_applies(degradation, source, medium)
    copy = _name_copy(source, degradation, medium, folder)
    random = seed_random(source, degradation.name)
    try:
        # what reads the source raises DataErrors; what is left is about the copy
        with explain_write_errors(copy, flag="folder"), write_atomically(copy) as temporary:
            if isinstance(degradation, ImageDegradation):
                temporary.write_bytes(_degrade_image(source, degradation, random))
            elif isinstance(degradation, VideoDegradation):
                _degrade_video(source, degradation, random, temporary)
            elif isinstance(degradation, SoundDegradation):
                _degrade_sound(source, degradation, random, temporary, medium)
    except DataError as exc:
        if str(source) in str(exc):
            raise
        raise _with_name(exc, source) from exc
    return copy


def degrade_files(
    sources: Sequence[Path], degradation: Degradation, folder: Path, progress: Progress = lambda _done, _total: None
) -> list[Path | DataError]:
    """Writes degraded copies of many files, in processes of their own, one to a core; see `degrade_file`.

    A copy that is there already, of the same file (path, size, time of change) and degradation (name and steps), is not
    made again: after an interruption, the same call goes on. Ctrl-C is answered at once.

    Args:
        sources: The files.
        degradation: What is done to them.
        folder: Where the copies are written; made if it is missing. Files of one name in different folders have
            different copies.
        progress: Called with the number of sources that are done, and of all.

    Returns:
        For each source, in their order, its copy or the DataError that says why there is none.

    Raises:
        SpecError: If the degradation does not apply to one of the sources' media, if PyAV lacks the encoder, or if the
            folder cannot be written to.
    """
    copies: list[Path | DataError] = [_plan_copy(source, degradation, folder) for source in sources]
    _require_encoders(degradation)
    with explain_write_errors(folder, flag="folder"):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
    missing = [k for k, copy in enumerate(copies) if isinstance(copy, Path) and not copy.is_file()]
    ready = len(copies) - len(missing)
    progress(ready, len(copies))
    write = partial(degrade_file, degradation=degradation, folder=folder)
    results = decode_files(write, (sources[k] for k in missing), ahead=4 * cpu_threads())
    for done, (k, result) in enumerate(zip(missing, results, strict=True), start=ready + 1):
        copies[k] = _with_name(result, sources[k]) if isinstance(result, DataError) else result
        progress(done, len(copies))
    return copies


def _plan_copy(source: Path, degradation: Degradation, folder: Path) -> Path | DataError:
    """Returns where the copy of a file will be, or why it cannot be made."""
    try:
        medium = _find_medium(source)
        _check_applies(degradation, source, medium)
        return _name_copy(source, degradation, medium, folder)
    except DataError as exc:
        return exc


def _find_medium(source: Path) -> Medium:
    """Returns the medium of a file; DataError if it has none."""
    medium = find_medium_at(source)
    if medium is None:
        raise DataError(f"cannot read {source}: neither an image, a video nor a sound")
    return medium


def _check_applies(degradation: Degradation, source: Path, medium: Medium) -> None:
    """Raises SpecError if a degradation does not apply to a medium, with those that ship for it."""
    if medium not in degradation.applies_to:
        others = [other.name for other in load_degradations() if medium in other.applies_to]
        raise SpecError(
            f"the degradation {degradation.name!r} is for {' and '.join(degradation.applies_to)} files, and {source} is"
            f" of the kind {medium}, for which there are: {', '.join(others)}"
        )


def _require_encoders(degradation: Degradation) -> None:
    """Raises SpecError if PyAV lacks what encodes the copies."""
    needed = {step.codec for step in degradation.steps if step.codec}
    if isinstance(degradation, VideoDegradation):
        needed.add("libx264")
    for codec in sorted(needed):
        require_encoder(codec, f"the degradation {degradation.name!r}")


def _name_copy(source: Path, degradation: Degradation, medium: Medium, folder: Path) -> Path:
    """Returns where a copy is written: the name says of which file and by which steps it was made."""
    try:
        state = source.stat()
    except OSError as exc:
        raise DataError(f"cannot read {source}: {exc.strerror or exc}") from exc
    made_of = (os.fspath(source.absolute()), state.st_size, state.st_mtime_ns, repr(degradation), _VERSION)
    digest = hashlib.sha256(os.fsencode(repr(made_of))).hexdigest()[:16]
    return folder / f"{source.stem[:_STEM]}-{digest}{_find_ending(degradation, medium)}"


def _find_ending(degradation: Degradation, medium: Medium) -> str:
    """Returns the ending of a copy."""
    if isinstance(degradation, VideoDegradation):
        return ".mp4"
    if medium == "video":
        return ".mkv"
    return degradation.steps[-1].ending or (".png" if medium == "image" else ".wav")


def _remove_stale(folder: Path) -> None:
    """Deletes what decoders that were ended left half-written; nothing that another process may still be writing."""
    for path in folder.glob(".*.tmp"):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            path.unlink(missing_ok=True)


def _degrade_image(source: Path, degradation: ImageDegradation, random: np.random.Generator) -> bytes:
    """Returns the file of a degraded image."""
    image = read_rgb(source)
    *steps, last = degradation.steps
    for step in steps:
        image = step.change_image(image, random)
    if isinstance(last, ImageCodec):
        return last.encode_image(image)
    return encode_png(last.change_image(image, random))


def _degrade_video(source: Path, degradation: VideoDegradation, random: np.random.Generator, copy: Path) -> None:
    """Writes a video with degraded pictures."""
    info = probe_media(source)
    sound = None
    with suppress(NoSound):
        sound = _read_whole_sound(source, info)
    frames = _read_all_frames(source)
    for step in degradation.steps:
        frames = step.change_frames(frames, random)
    last = degradation.steps[-1]
    rate = info.video.frames_per_second if info.video else None
    write_video_file(copy, frames, rate, last.crf if isinstance(last, H264) else None, sound, None, ".mp4")


def _degrade_sound(
    source: Path, degradation: SoundDegradation, random: np.random.Generator, copy: Path, medium: Medium
) -> None:
    """Writes a sound file, or a video with the pictures as they are and degraded sound."""
    info = probe_media(source)
    sound = _read_whole_sound(source, info)
    for step in degradation.steps:
        sound = step.change_sound(sound, random)
    last = degradation.steps[-1]
    codec = last if isinstance(last, SoundCodec) else None
    if medium == "video" and info.container == "avi":  # whose packets have no times at which they are displayed
        rate = info.video.frames_per_second if info.video else None
        write_video_file(copy, _read_all_frames(source), rate, None, sound, codec, ".mkv")
    elif medium == "video":
        write_sound_track(copy, source, sound, codec)
    else:
        write_sound_file(copy, sound, codec, _find_ending(degradation, medium))


def _read_whole_sound(source: Path, info: MediaInfo) -> Sound:
    """Reads all sound of a file at its own rate; NoSound if there is none."""
    if info.audio is None:
        raise NoSound(f"{source}: it has no sound track")
    return Sound(read_sound(source, info.audio.sample_rate_hz), info.audio.sample_rate_hz)


def _read_all_frames(source: Path) -> Iterator[TimedFrame]:
    """Yields all frames of a video; DataError at the end where it is cut off, as `read_frames` has it."""
    ended = 0.0
    for ended, pixels in iterate_frames(source):
        yield ended, pixels
    with open_media(source) as container:
        stream = find_video(container, source)
        promised = find_promised_end(stream) if stream else None
        if promised is not None:
            refuse_missing(source, promised - find_origin(container), Fraction(ended), _CUT_OFF_SECONDS)


def _with_name(error: DataError, source: Path) -> DataError:
    """Returns an error that names its file."""
    return error if str(source) in str(error) else DataError(f"cannot read {source}: {error}")
