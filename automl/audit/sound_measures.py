"""Measures of a sound that say nothing of what is spoken.

It runs in the decoders (`automl.media.decoding`): it must stay small. Values are rounded to what differs in earnest: a
tenth of a decibel, a hundredth of a second.
"""

import numpy as np
import numpy.typing as npt

from automl.audit.properties import Values

Samples = npt.NDArray[np.float32]

FRAME_SECONDS = 0.01
SILENT_DB = 40.0
"""Below the loudest frame: what is quieter is silence, at the beginning and the end."""

_QUIETEST = 1e-6  # of full amplitude, -120 dBFS: below what 20 bits hold
_FLOOR_PERCENT = 5
_WINDOW_SECONDS = 0.064
_ENERGY = 0.99
_BAND_DB = 70.0  # below the strongest frequency: what is weaker was cut off
_BLOCK = 512  # windows at a time


def measure_sound(samples: Samples, sample_rate_hz: int) -> Values:
    """Measures a sound, samples (n,) float32 in [-1, 1].

    Returns:
        `leading_silence` and `trailing_silence` in seconds, until and since a frame of 10 ms within 40 dB of the
        loudest; `noise_floor`, the 5th percentile of the RMS of frames of 10 ms, `loudness`, the RMS of all, and
        `peak` in dBFS (dB below full amplitude, at least -120); `energy_limit`, the frequency in Hz below which 99 %
        of the energy lies; `band_limit`, the highest in Hz that is within 70 dB of the strongest; `dc_offset`, the
        mean in percent of full amplitude.
    """
    offset = float(samples.mean(dtype=np.float64))
    frames = frame_rms(samples - np.float32(offset), sample_rate_hz)
    loud = np.flatnonzero(frames > frames.max() * 10 ** (-SILENT_DB / 20))
    first, last = (int(loud[0]), int(loud[-1])) if len(loud) else (len(frames), -1)
    energy, band = _find_limits(samples - np.float32(offset), sample_rate_hz)
    return {
        "leading_silence": round(first * FRAME_SECONDS, 2),
        "trailing_silence": round((len(frames) - 1 - last) * FRAME_SECONDS, 2),
        "noise_floor": round(to_decibels(find_floor(frames)), 1),
        "loudness": round(to_decibels(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))), 1),
        "peak": round(to_decibels(float(np.abs(samples).max())), 1),
        "energy_limit": round(energy),
        "band_limit": round(band),
        "dc_offset": round(100 * offset, 3) + 0.0,  # no -0.0
    }


def frame_rms(samples: Samples, sample_rate_hz: int) -> npt.NDArray[np.float64]:
    """Computes the RMS of each whole frame of 10 ms; of a shorter sound, of all of it. Shape (frames,)."""
    length = min(len(samples), max(1, round(sample_rate_hz * FRAME_SECONDS)))
    whole = samples[: len(samples) // length * length].reshape(-1, length)
    return np.asarray(np.sqrt(np.mean(np.square(whole, dtype=np.float64), axis=1)))


def find_floor(frames: npt.NDArray[np.float64]) -> float:
    """Returns the noise floor, an amplitude: the 5th percentile of the RMS of frames."""
    return float(np.percentile(frames, _FLOOR_PERCENT))


def to_decibels(amplitude: float) -> float:
    """Converts an amplitude to dB of full amplitude, at least -120."""
    return 20 * float(np.log10(max(amplitude, _QUIETEST)))


def _find_limits(samples: Samples, sample_rate_hz: int) -> tuple[float, float]:
    """Returns the two frequencies in Hz at which the mean spectrum ends: by its energy, and by its level."""
    size = min(len(samples), 2 * round(sample_rate_hz * _WINDOW_SECONDS / 2)) or 1
    windows = samples[: len(samples) // size * size].reshape(-1, size)
    power, shape = np.zeros(size // 2 + 1), np.hanning(size).astype(np.float32)
    for begin in range(0, len(windows), _BLOCK):
        spectrum = np.fft.rfft(windows[begin : begin + _BLOCK] * shape, axis=1)
        power += np.square(np.abs(spectrum)).sum(axis=0)
    if not power.max():
        return 0.0, 0.0
    step = sample_rate_hz / size
    energy = int(np.searchsorted(np.cumsum(power), _ENERGY * power.sum()))
    band = int(np.flatnonzero(power >= power.max() * 10 ** (-_BAND_DB / 10))[-1])
    return min(energy, len(power) - 1) * step, band * step
