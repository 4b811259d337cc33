"""The `mel` view: log-mel spectrograms."""

import math
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, model_validator

from automl.media.opening import require
from automl.views.base import Pixels
from automl.views.sound_parts import Samples, SoundView, uses_librosa

_FAINTEST_DB = -60.0
_SILENCE = 1e-20  # power below which it is dark whatever `Mel.reference` and `Mel.range_db` are


class Mel(SoundView):
    """Log-mel spectrograms: low tones at the bottom, black where it is quiet, all three channels the same.

    White (255) is `reference`, black is `range_db` below it or less, and each step between is `range_db / 255` dB. The
    defaults `n_mels` and `fmax_hz` are those of the FFDV course baseline.

    Attributes:
        n_mels: Bands, of equal width on the mel scale (Slaney's, as librosa has it).
        fmin_hz: Where the lowest band begins.
        fmax_hz: Where the highest band ends; at most half of `sample_rate_hz` and at least twice `fmin_hz`.
        reference: `loudest`: the loudest point of each picture, but at least -60 dB of full amplitude, so that silence
            stays dark. How loud a clip was recorded then tells nothing. `full`: a sine wave of full amplitude.
        range_db: Decibels between black and white; 80 is what librosa keeps.
    """

    name: Literal["mel"] = "mel"
    n_mels: Annotated[int, Field(ge=16, le=512)] = 128
    fmin_hz: Annotated[float, Field(ge=0, le=4000)] = 0.0
    fmax_hz: Annotated[float, Field(ge=500, le=24_000)] = 8000.0
    reference: Literal["loudest", "full"] = "loudest"
    range_db: Annotated[float, Field(ge=40, le=120)] = 80.0

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        if self.fmax_hz > self.sample_rate_hz / 2:
            raise ValueError(
                f"fmax_hz {self.fmax_hz} is above half the sample rate {self.sample_rate_hz}; lower it, or raise"
                " sample_rate_hz"
            )
        if self.fmax_hz < 2 * self.fmin_hz:
            raise ValueError(f"fmax_hz {self.fmax_hz} must be at least twice fmin_hz {self.fmin_hz}")
        return self

    def draw_picture(self, samples: Samples, size: int) -> Pixels:
        """Draws the log-mel spectrogram of one part; see `SoundView.draw_picture`."""
        decibels = compute_log_mel(
            samples, self.sample_rate_hz, self.window, self.hop, self.n_mels, self.fmin_hz, self.fmax_hz
        )
        white = max(_FAINTEST_DB, float(decibels.max())) if self.reference == "loudest" else 0.0
        gray = ((decibels[::-1] - white) / self.range_db + 1) * 255
        image = Image.fromarray(gray.clip(0, 255)).resize((size, size), Image.Resampling.BICUBIC)
        return np.repeat(np.rint(np.asarray(image).clip(0, 255)).astype(np.uint8)[..., None], 3, axis=2)


@uses_librosa
def compute_log_mel(
    samples: Samples, sample_rate_hz: int, window: int, hop: int, n_mels: int, fmin_hz: float, fmax_hz: float
) -> npt.NDArray[np.float32]:
    """Computes a log-mel spectrogram of sound (n,) float32 in [-1, 1]; window and hop are in samples.

    Returns (n_mels, 1 + n // hop) float32, decibels; 0 is a sine wave of full amplitude in the middle of a band, -200
    silence. What librosa cannot compute is a DataError: no samples, NaN, or parameters that do not fit together.
    """
    librosa = require("librosa")
    edges = librosa.mel_frequencies(n_mels=n_mels + 2, fmin=fmin_hz, fmax=fmax_hz)
    # so many points that even the narrowest band has one: bands without any would be black stripes
    points = 2 ** math.ceil(math.log2(max(window, sample_rate_hz / np.diff(edges).min())))
    scaled = samples * np.float32(4 / window)  # a Hann window sums to window / 2, and half of a sine is at -f
    power = librosa.feature.melspectrogram(
        y=np.pad(scaled, points // 2, mode="reflect"),  # librosa itself warns where this is more than the sound
        center=False,
        sr=sample_rate_hz,
        n_fft=points,
        win_length=window,
        hop_length=hop,
        n_mels=n_mels,
        fmin=fmin_hz,
        fmax=fmax_hz,
        norm=None,
    )
    return np.asarray(librosa.power_to_db(power, ref=1.0, amin=_SILENCE, top_db=None), dtype=np.float32)
