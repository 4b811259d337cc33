"""The frames, faces and sound of a clip as numbers over time: for `automl inspect`.

Frames are compared with the one before, since that is how people look for anomalies; sound is read in blocks and
averaged into columns. Memory does not grow with the clip's length.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from automl.errors import DataError
from automl.media.decoding import decode_one
from automl.media.image_file import EXTENSIONS
from automl.media.info import MediaInfo, VideoStream, probe_media
from automl.media.opening import require
from automl.media.sound import NoSound, read_sound
from automl.media.video import Frames, read_frames
from automl.views.audio_features import FEATURES, compute_features
from automl.views.base import Pixels
from automl.views.face import READ_SIDE
from automl.views.face_detector import FoundFace, Track, crop_face, find_detector, find_turned, follow_faces
from automl.views.frame import drop_repeated
from automl.views.mel import compute_log_mel

Floats = npt.NDArray[np.float64]

COMPARED_SIDE = 128  # pixels of each side of the grey pictures that are compared
MOST_Z = 3.5  # robust z-score beyond which a similarity is unusual: Iglewicz & Hoaglin's
LEAST_CHANGE = 0.01  # distance from the median below which no similarity is unusual, however steady the others are
LEAST_PAIRS = 8  # comparisons below which none is called unusual: so few do not show what is usual
_LONG_SECONDS = 600
IMAGES = EXTENSIONS | {".avif", ".gif", ".heic"}  # two of which FFmpeg takes for videos
_FRAME_BYTES = 128_000_000  # of all frames together; more of them are read smaller
_NORMAL_MAD, _NORMAL_MEAN_DEVIATION = 0.6745, 0.7979  # of a normal distribution, in standard deviations
_WINDOW_SECONDS, _HOP_SECONDS, _MELS = 0.064, 0.016, 128  # as the views of sound have them
_RATES_HZ = 8_000, 48_000  # sound of a lower or higher rate is resampled
_TONAL = ("spectral_centroid", "spectral_bandwidth", "spectral_rolloff")  # silence has none
_SILENT_DB = -99.9


@dataclass(frozen=True)
class TimeUnit:
    """The unit that all times of a clip are written in: `s` (1 second), or `min` (60) from ten minutes on."""

    name: str
    seconds: float

    @classmethod
    def for_clip(cls, clip_seconds: float) -> "TimeUnit":
        """Chooses the unit for a clip of a length."""
        return cls("min", 60.0) if clip_seconds >= _LONG_SECONDS else cls("s", 1.0)

    def format_time(self, seconds: float) -> str:
        """Writes a time, such as `3.20 s`."""
        return f"{seconds / self.seconds:.2f} {self.name}"


@dataclass(frozen=True, eq=False)
class Curve:
    """The similarity of each picture with the one before it.

    Attributes:
        times_seconds: Shape (n,): of the later picture of each pair.
        similarity: Shape (n,): 1 is identical; NaN where there is nothing to compare.
        unusual: Shape (n,): beyond `limits`, which are None if there are too few pairs to say.
        median: Of the similarities; NaN if there are none.
    """

    times_seconds: Floats
    similarity: Floats
    unusual: npt.NDArray[np.bool_]
    median: float
    limits: tuple[float, float] | None

    @property
    def unusual_seconds(self) -> list[float]:
        """The times of what is unusual, ascending."""
        return [float(time) for time in self.times_seconds[self.unusual]]


@dataclass(frozen=True, eq=False)
class Pictures:
    """The frames of a clip that are looked at, and the faces in them.

    Attributes:
        tracks: The faces that were followed, the one that fills most of the pictures first.
        faces: The first track's face in each frame, (`COMPARED_SIDE`, `COMPARED_SIDE`, 3) uint8, upright; None where
            it was not found.
    """

    frames: Frames
    tracks: list[Track]
    faces: list[Pixels | None]
    frame_curve: Curve
    face_curve: Curve


@dataclass(frozen=True, eq=False)
class Sound:
    """The sound of a clip over time.

    Attributes:
        seconds: How long it is, as decoded.
        column_seconds: Of sound that one column is the mean of.
        times_seconds: Shape (columns,): the middle of each column.
        mel_hz: Shape (bands,): the middle of each mel band.
        mel_db: Shape (bands, columns): 0 is a sine wave of full amplitude.
        features: Shape (rows, columns) each, by the names in `FEATURES`; NaN where silence has none.
    """

    sample_rate_hz: int
    seconds: float
    column_seconds: float
    times_seconds: Floats
    mel_hz: Floats
    mel_db: Floats
    features: dict[str, Floats]


@dataclass(frozen=True, eq=False)
class Clip:
    """All that `automl inspect` shows of a file; `notes` are what a person should know."""

    info: MediaInfo
    pictures: Pictures | None
    sound: Sound | None
    notes: tuple[str, ...]

    @property
    def unit(self) -> TimeUnit:
        """The unit of its times."""
        return TimeUnit.for_clip(self.info.duration_seconds or (self.sound.seconds if self.sound else 0.0))


def analyse_clip(path: Path, count: int, face_model: str | None = None) -> Clip:
    """Compares frames, evenly placed, and faces of a video, and measures the sound of a video or a sound file.

    `count` is at least 2; `face_model` is a YuNet ONNX file (None: that of the `media` extra).
    """
    if path.suffix.lower() in IMAGES:
        raise DataError(f"{path} is an image; automl inspect looks at a video or a sound file")
    info = decode_one(probe_media, path)
    notes: list[str] = []
    pictures = sound = None
    if info.video is None:
        notes.append("It has no video track: only its sound is shown.")
    else:
        pictures, more = _compare_frames(path, info.video, count, face_model)
        notes += more
    if info.audio is None:
        notes.append("It has no sound track: there is no sound to show.")
    else:
        sound, more = measure_sound(path, info.audio.sample_rate_hz)
        notes += more
    return Clip(info, pictures, sound, tuple(notes))


def mark_unusual(times_seconds: Sequence[float], similarity: Sequence[float]) -> Curve:
    """Marks the unusual among similarities (NaN where there is nothing to compare), by a robust z-score.

    The score is 0.6745 · (similarity - median) / MAD, MAD being the median absolute deviation, and 3.5 its limit, as
    Iglewicz & Hoaglin recommend ("How to Detect and Handle Outliers", ASQC, 1993; NIST/SEMATECH e-Handbook of
    Statistical Methods, 1.3.5.17). Where more than half of the similarities are the same, so that MAD is 0, the mean
    absolute deviation over 0.7979 is the scale instead (as SPSS has it).
    """
    times, values = np.asarray(times_seconds, dtype=np.float64), np.asarray(similarity, dtype=np.float64)
    known = values[~np.isnan(values)]
    median = float(np.median(known)) if len(known) else math.nan
    if len(known) < LEAST_PAIRS:
        return Curve(times, values, np.zeros(len(values), dtype=bool), median, None)
    deviation = np.abs(known - median)
    scale = np.median(deviation) / _NORMAL_MAD or deviation.mean() / _NORMAL_MEAN_DEVIATION
    reach = max(MOST_Z * float(scale), LEAST_CHANGE)
    unusual = np.abs(values - median) > reach  # NaN is not
    return Curve(times, values, unusual, median, (median - reach, median + reach))


def _compare_frames(path: Path, video: VideoStream, count: int, face_model: str | None) -> tuple[Pictures, list[str]]:
    """Reads frames, finds and follows the faces in them, compares neighbours; with notes."""
    finder = find_detector(face_model)  # a missing one is an error before anything is decoded
    # the longer side over the shorter one is what it is: the shorter one is then so many pixels at most
    fits = math.isqrt(_FRAME_BYTES // (3 * count) * min(video.width, video.height) // max(video.width, video.height))
    frames, notes = drop_repeated(decode_one(read_frames, path, count=count, size=max(1, min(READ_SIDE, fits))), count)
    times = frames.times_seconds.tolist()
    tracks = follow_faces(find_turned(finder, list(frames.pixels)), times)
    main: dict[int, FoundFace] = tracks[0].faces if tracks else {}
    faces = [
        crop_face(pixels, main[position], COMPARED_SIDE) if position in main else None
        for position, pixels in enumerate(frames.pixels)
    ]
    notes = [f"{note}.".capitalize() for note in notes]
    missing = len(frames) - len(main)
    if not main:
        notes.append(f"No face was found in any of the {missing} frames: no faces are compared.")
    elif missing:
        notes.append(f"The face that is compared was not found in {missing} of {len(frames)} frames.")
    if len(tracks) > 1:
        notes.append(f"{len(tracks)} faces were followed; the one that fills most of the pictures is compared.")
    curves = [mark_unusual(times[1:], _compute_similarities(pictures)) for pictures in (list(frames.pixels), faces)]
    if len(frames) <= LEAST_PAIRS:
        notes.append(f"{len(frames)} frames are too few to show what is usual: none is marked as unusual.")
    return Pictures(frames, tracks, faces, *curves), notes


def _compute_similarities(pictures: Sequence[Pixels | None]) -> list[float]:
    """Computes the structural similarity of each picture with the one before; NaN where one is missing.

    Wang, Bovik, Sheikh & Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
    Transactions on Image Processing 13(4), 2004, with their Gaussian window; 1 is identical.
    """
    from skimage.metrics import structural_similarity

    side = (COMPARED_SIDE, COMPARED_SIDE)
    grays = [
        None if pixels is None else np.asarray(Image.fromarray(pixels).convert("L").resize(side, Image.Resampling.BOX))
        for pixels in pictures
    ]
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return [
        math.nan
        if before is None or after is None
        else float(structural_similarity(before, after, data_range=255, **options))  # type: ignore[no-untyped-call]
        for before, after in pairwise(grays)
    ]


def measure_sound(
    path: Path, stored_rate_hz: int, *, columns: int = 1200, read_seconds: float = 300, piece_seconds: float = 30
) -> tuple[Sound | None, list[str]]:
    """Computes the spectrogram and the features of all the sound of a file, None if it is empty; and notes.

    Over the whole clip there are at most `columns` columns, an even number. `read_seconds` of sound are in memory, and
    `piece_seconds` of that in the transform.
    """
    rate = min(max(stored_rate_hz, _RATES_HZ[0]), _RATES_HZ[1])
    notes = [] if rate == stored_rate_hz else [f"Its sound was resampled from {stored_rate_hz} Hz to {rate} Hz."]
    window, hop = 2 * round(_WINDOW_SECONDS * rate / 2), round(_HOP_SECONDS * rate)
    sums, length = _ColumnMeans(columns), 0
    piece = hop * round(piece_seconds / _HOP_SECONDS)
    rows: dict[str, int] = {}
    try:
        for samples, last in _read_pieces(path, rate, piece, read_seconds):
            values = {"mel": compute_log_mel(samples, rate, window, hop, _MELS, 0.0, rate / 2)}
            values |= compute_features(samples, rate, window, hop)
            silent = values["rms"][0] <= _SILENT_DB
            for name in _TONAL:
                values[name][:, silent] = np.nan
            rows = {name: len(each) for name, each in values.items()}
            # the last column of a piece is the first of the next
            sums.add_hops(np.concatenate(list(values.values()))[:, : None if last else -1])
            length += len(samples)
    except NoSound:
        return None, ["Its sound track is empty: there is no sound to show."]
    edges = np.cumsum([0, *rows.values()]).tolist()
    means = sums.compute_means()
    parts = {name: means[top:end] for name, top, end in zip(rows, edges[:-1], edges[1:], strict=True)}
    if (parts["rms"] <= _SILENT_DB).all():
        notes.append("Its sound is silence throughout.")
    mel_hz = require("librosa").mel_frequencies(n_mels=_MELS + 2, fmin=0.0, fmax=rate / 2)[1:-1]
    width = sums.hops_each * hop / rate
    times: Floats = ((np.arange(means.shape[1]) + 0.5) * width - hop / rate / 2).astype(np.float64)
    named = {name: parts[name] for name in FEATURES}
    return Sound(rate, length / rate, width, times, np.asarray(mel_hz, np.float64), parts["mel"], named), notes


def _read_pieces(
    path: Path, rate: int, size: int, read_seconds: float
) -> Iterator[tuple[npt.NDArray[np.float32], bool]]:
    """Reads sound from beginning to end: pieces of `size` samples, and whether it is the last; that may be shorter."""
    wanted = size * max(1, int(read_seconds * rate) // size)
    start, kept = 0, np.empty(0, dtype=np.float32)
    while True:
        try:
            block = decode_one(read_sound, path, rate, start / rate, wanted / rate)
        except NoSound:
            raise
        except DataError:
            if not start:
                raise
            block = np.empty(0, dtype=np.float32)  # it ended where the last block did
        start += len(block)
        ended = len(block) < wanted
        pieces = [piece for piece in (kept, *np.split(block, range(size, len(block), size))) if len(piece)]
        for piece in pieces[:-1]:
            yield piece, False
        kept = pieces[-1]  # it may be the last
        if ended:
            yield kept, True
            return


class _ColumnMeans:
    """Means over time of rows of numbers of unknown length: when the columns run out, neighbours are joined."""

    def __init__(self, columns: int) -> None:
        self.hops_each, self._hops, self._columns = 1, 0, columns
        self._totals = np.zeros((2, 0, columns))  # sums and counts, each (rows, columns)

    def add_hops(self, values: npt.NDArray[np.float32]) -> None:
        """Appends (rows, hops); NaN is left out of the means."""
        if not self._hops:
            self._totals = np.zeros((2, len(values), self._columns))
        while self._hops + values.shape[1] > self._columns * self.hops_each:
            pairs = self._totals.reshape(2, len(values), self._columns // 2, 2).sum(axis=3)
            self._totals = np.concatenate([pairs, np.zeros_like(pairs)], axis=2)
            self.hops_each *= 2
        known = ~np.isnan(values)
        columns = (self._hops + np.arange(values.shape[1])) // self.hops_each
        np.add.at(self._totals.T, columns, np.stack([np.where(known, values, 0), known]).T)  # (columns, rows, 2)
        self._hops += values.shape[1]

    def compute_means(self) -> Floats:
        """Returns the means, shape (rows, columns); NaN where there is nothing."""
        sums, counts = self._totals[:, :, : -(-self._hops // self.hops_each)]
        means: Floats = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        return means
