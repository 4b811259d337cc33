"""Makes sounds alike in what says nothing of their content: band, DC offset, loudness, noise floor, silent ends.

It runs in the decoders (`automl.media.decoding`): it must stay small. All sounds are mono and of `SAMPLE_RATE_HZ`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from automl.audit.sound_measures import FRAME_SECONDS, Samples, frame_rms

SAMPLE_RATE_HZ = 16_000
LOUDNESS = 10 ** (-26 / 20)
"""RMS of every sound: -26 dBFS, the active speech level of ITU-T's test signals (P.56, P.800)."""

_LOWEST_HZ, _HIGHEST_HZ = 60.0, 7000.0
"""What is kept. Resampling and codecs end a little below 8 kHz, each at another frequency."""

_EDGE = 0.04  # of a limit: how wide the step of the filter is
_BAND_HZ = 500.0
_TRIM_DB = 30.0  # below the loudest frame; above the noise that is added, so that noise does not move the ends
_LARGEST_GAIN = 1000.0  # of what is nearly silent
_WINDOW = 512  # samples: 32 ms
_ROUNDS = 4  # of adding noise and measuring again

Levels = Sequence[float]
Powers = npt.NDArray[np.floating[Any]]


def equalise_sound(samples: Samples, trim: bool) -> Samples:
    """Keeps 60 to 7000 Hz, trims silence at both ends if that is wanted, and sets the RMS to -26 dBFS.

    The result has shape (n,), float32. Silence stays silence.
    """
    samples = _filter_band(samples)
    if trim:
        samples = _trim_ends(samples)
    return samples * np.float32(min(_LARGEST_GAIN, LOUDNESS / max(_compute_rms(samples), 1e-9)))


def measure_floors(samples: Samples) -> Powers:
    """Measures the noise floor in each band of 500 Hz: the 5th percentile of its power over windows of 32 ms."""
    padded = np.pad(samples, (0, max(0, _WINDOW - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[:: _WINDOW // 2]
    powers = np.square(np.abs(np.fft.rfft(windows * np.hanning(_WINDOW), axis=1)))
    bands = _number_bands(np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE_HZ))
    means = [powers[:, bands == band].mean(axis=1) for band in range(bands.max() + 1)]
    return np.asarray(np.percentile(np.stack(means), 5, axis=1))


def raise_floor(samples: Samples, levels: Levels, seed: int) -> Samples:
    """Adds seeded Gaussian noise to each band until its floor is at the level; a higher floor stays.

    Args:
        samples: As `equalise_sound` gives them.
        levels: A power for each band, as `measure_floors` gives them.
        seed: Of the noise.

    Returns:
        The sound with noise, its RMS -26 dBFS again, in [-1, 1].
    """
    wanted = np.asarray(levels)
    noise = _filter_band(np.random.default_rng(seed).standard_normal(len(samples)).astype(np.float32))
    spectrum, bands = np.fft.rfft(noise), _number_bands(np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE_HZ))
    of_noise, gains, mixed = np.maximum(measure_floors(noise), 1e-12), np.zeros(len(wanted)), samples
    for _ in range(_ROUNDS):  # the floor of a sum is not the sum of floors
        gains = np.maximum(0.0, gains + (wanted - measure_floors(mixed)) / of_noise)
        shaped = np.fft.irfft(spectrum * np.sqrt(gains)[bands], len(noise))
        mixed = samples + shaped.astype(np.float32)
    mixed *= np.float32(LOUDNESS / max(_compute_rms(mixed), 1e-9)) if _compute_rms(samples) else np.float32(1)
    return np.clip(mixed, -1.0, 1.0, out=mixed)


def _trim_ends(samples: Samples) -> Samples:
    """Cuts off what is 30 dB below the loudest frame, at both ends."""
    frames, length = frame_rms(samples, SAMPLE_RATE_HZ), round(FRAME_SECONDS * SAMPLE_RATE_HZ)
    loud = np.flatnonzero(frames > frames.max() * 10 ** (-_TRIM_DB / 20))
    return samples[loud[0] * length : (loud[-1] + 1) * length] if len(loud) else samples


def _filter_band(samples: Samples) -> Samples:
    """Removes what lies outside of the band that is kept."""
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE_HZ)
    return np.fft.irfft(np.fft.rfft(samples) * _shape_filter(frequencies), len(samples)).astype(np.float32)


def _shape_filter(frequencies: Powers) -> Powers:
    """Returns the gain at each frequency: 1 inside of the band, 0 outside, with a slope at both limits."""
    low = (frequencies - _LOWEST_HZ) / (_EDGE * _LOWEST_HZ)
    high = (_HIGHEST_HZ - frequencies) / (_EDGE * _HIGHEST_HZ)
    return np.asarray(np.clip(np.minimum(low, high), 0.0, 1.0))


def _number_bands(frequencies: Powers) -> npt.NDArray[np.int64]:
    """Returns the band of each frequency, from 0; what lies beyond the highest limit is of the last one."""
    bands = np.minimum(frequencies // _BAND_HZ, np.ceil(_HIGHEST_HZ / _BAND_HZ) - 1)
    return np.asarray(bands, dtype=np.int64)


def _compute_rms(samples: Samples) -> float:
    """Computes the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
