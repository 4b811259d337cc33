"""The `audio_features` view: seven features of sound over time, stacked into one picture."""

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from automl.media.opening import require
from automl.views.base import Pixels
from automl.views.mel import compute_log_mel
from automl.views.sound_parts import Samples, SoundView, uses_librosa

FEATURES = ("chroma_stft", "rms", "spectral_centroid", "spectral_bandwidth", "spectral_rolloff",
            "zero_crossing_rate", "mfcc")  # fmt: skip
"""The features, from the top of the picture to its bottom; the names are librosa's."""

_SILENCE = 1e-5  # root mean square below which no tone is looked for, -100 dB
_FLOOR_DB = -100.0  # of the spectrogram that the cepstrum is computed from: bands without any sound would rule it
_MELS = 128  # bands the cepstrum is computed from, librosa's default


class AudioFeatures(SoundView):
    """Seven features of sound, one under the other in bands of equal height, all three channels the same.

    Each is scaled from a fixed range to 0..255, so that pictures of different clips can be compared:

    | feature | range |
    |---|---|
    | chroma_stft, 12 rows, C at the top | 0 to 1, the strongest of the twelve tones of a moment being 1 |
    | rms | -80 to 0 dB of full amplitude |
    | spectral_centroid, spectral_rolloff | 0 to half of `sample_rate_hz` |
    | spectral_bandwidth | 0 to a quarter of `sample_rate_hz` |
    | zero_crossing_rate | 0 to 0.5 of the samples |
    | mfcc, the first at the top | the first: -100 to 0, the others: -15 to 15 (see `compute_features`) |

    Attributes:
        n_mfcc: Coefficients of the mel cepstrum.
    """

    name: Literal["audio_features"] = "audio_features"
    n_mfcc: Annotated[int, Field(ge=2, le=64)] = 20

    def draw_picture(self, samples: Samples, size: int) -> Pixels:
        """Draws the seven features of one part; see `SoundView.draw_picture`."""
        rows = compute_features(samples, self.sample_rate_hz, self.window, self.hop, self.n_mfcc)
        edges = np.linspace(0, size, len(FEATURES) + 1).round().astype(int)
        picture = np.zeros((size, size), dtype=np.uint8)
        for name, top, bottom in zip(FEATURES, edges[:-1], edges[1:], strict=True):
            low, high = _find_range(name, self.sample_rate_hz, len(rows[name]))
            gray = Image.fromarray(((rows[name] - low) / (high - low) * 255).clip(0, 255).astype(np.float32))
            # rows are not neighbours in frequency: they are not blurred into each other, unless there is no room
            across = gray.resize((size, gray.height), Image.Resampling.BICUBIC)
            fits = gray.height <= bottom - top
            down = across.resize((size, bottom - top), Image.Resampling.NEAREST if fits else Image.Resampling.BOX)
            picture[top:bottom] = np.rint(np.asarray(down).clip(0, 255))
        return np.repeat(picture[..., None], 3, axis=2)


@uses_librosa
def compute_features(
    samples: Samples, sample_rate_hz: int, window: int, hop: int, n_mfcc: int = 20
) -> dict[str, npt.NDArray[np.float32]]:
    """Computes the seven features over time, of sound (n,) float32 in [-1, 1]; window and hop are in samples.

    Returns arrays (rows, frames) of float32 by the names in `FEATURES`: chroma 0 to 1; rms in dB of full amplitude;
    centroid, bandwidth and rolloff in Hz; zero crossings per sample; the cepstrum of a 128-band log-mel spectrogram in
    dB, divided by √128, so that the first coefficient is the mean over the bands.
    """
    librosa = require("librosa")
    padded = np.pad(samples, window // 2, mode="reflect")
    magnitude = np.abs(librosa.stft(padded, n_fft=window, hop_length=hop, center=False))
    rms = librosa.feature.rms(y=padded, frame_length=window, hop_length=hop, center=False)
    loud = rms > _SILENCE
    common = {"S": magnitude, "sr": sample_rate_hz}
    # tuned to A = 440 Hz: an estimate would differ from part to part, and silence has none
    chroma = librosa.feature.chroma_stft(S=magnitude**2, sr=sample_rate_hz, n_fft=window, tuning=0.0)
    mels = compute_log_mel(samples, sample_rate_hz, window, hop, _MELS, 0.0, sample_rate_hz / 2)
    rows = {
        "chroma_stft": chroma * loud,
        "rms": librosa.amplitude_to_db(rms, ref=1.0, amin=1e-5, top_db=None),
        "spectral_centroid": librosa.feature.spectral_centroid(**common, n_fft=window) * loud,
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(**common, n_fft=window) * loud,
        "spectral_rolloff": librosa.feature.spectral_rolloff(**common, n_fft=window) * loud,
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(
            padded, frame_length=window, hop_length=hop, center=False
        ),
        "mfcc": librosa.feature.mfcc(S=mels.clip(_FLOOR_DB), n_mfcc=n_mfcc) / np.sqrt(_MELS),
    }
    return {name: np.asarray(rows[name], dtype=np.float32) for name in FEATURES}


def _find_range(name: str, sample_rate_hz: int, rows: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns what is black and what is white of a feature, (rows, 1) each; the table is in `AudioFeatures`."""
    low, high = {
        "chroma_stft": (0.0, 1.0),
        "rms": (-80.0, 0.0),
        "spectral_centroid": (0.0, sample_rate_hz / 2),
        "spectral_bandwidth": (0.0, sample_rate_hz / 4),
        "spectral_rolloff": (0.0, sample_rate_hz / 2),
        "zero_crossing_rate": (0.0, 0.5),
        "mfcc": (-15.0, 15.0),
    }[name]
    lows, highs = np.full((rows, 1), low, dtype=np.float32), np.full((rows, 1), high, dtype=np.float32)
    if name == "mfcc":
        lows[0], highs[0] = -100.0, 0.0
    return lows, highs
