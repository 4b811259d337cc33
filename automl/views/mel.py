"""The `mel` view: log-mel spectrograms."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from automl.media.opening import require
from automl.views.base import Pixels
from automl.views.parameters import Mel
from automl.views.sound_parts import Samples, uses_librosa

_FAINTEST_DB = -60.0
_SILENCE = 1e-20  # power below which it is dark whatever `Mel.reference` and `Mel.range_db` are


def mel_picture(view: Mel, samples: Samples, size: int) -> Pixels:
    """Draws one part.

    Args:
        view: Its parameters.
        samples: Shape (n,), dtype float32, in [-1, 1], at `view.sample_rate_hz`.
        size: Pixels of each side of the picture.

    Returns:
        Shape (size, size, 3), dtype uint8.
    """
    decibels = log_mel(samples, view.sample_rate_hz, view.window, view.hop, view.n_mels, view.fmin_hz, view.fmax_hz)
    white = max(_FAINTEST_DB, float(decibels.max())) if view.reference == "loudest" else 0.0
    gray = ((decibels[::-1] - white) / view.range_db + 1) * 255
    image = Image.fromarray(gray.clip(0, 255)).resize((size, size), Image.Resampling.BICUBIC)
    return np.repeat(np.rint(np.asarray(image).clip(0, 255)).astype(np.uint8)[..., None], 3, axis=2)


@uses_librosa
def log_mel(
    samples: Samples, sample_rate_hz: int, window: int, hop: int, n_mels: int, fmin_hz: float, fmax_hz: float
) -> npt.NDArray[np.float32]:
    """Computes a log-mel spectrogram.

    Args:
        samples: Shape (n,), dtype float32, in [-1, 1].
        sample_rate_hz: Samples per second.
        window: Samples of each Hann window.
        hop: Samples from one window to the next.
        n_mels: Bands.
        fmin_hz: Where the lowest band begins.
        fmax_hz: Where the highest band ends.

    Returns:
        Shape (n_mels, 1 + n // hop), dtype float32, decibels; 0 is a sine wave of full amplitude in the middle of a
        band, -200 silence.

    Raises:
        DataError: If librosa cannot compute it: of no samples, of NaN, or with parameters that do not fit together.
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
