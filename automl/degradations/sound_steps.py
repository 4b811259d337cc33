"""Operations on sound: each takes mono samples and their rate, and gives both."""

from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from automl.degradations.step import Step
from automl.media.opening import require
from automl.media.sound import Samples


class Sound(NamedTuple):
    """Mono sound: samples of shape (n,), float32 in [-1, 1], and their rate in hertz."""

    samples: Samples
    rate: int


class SoundStep(Step):
    """An operation on sound."""

    def change_sound(self, sound: Sound, random: np.random.Generator) -> Sound:
        """Returns the changed sound."""
        raise NotImplementedError(f"{self.operation} changes no sound")


class SoundCodec(SoundStep):
    """Lossy compression: the last step, and only that.

    Attributes:
        kilobits: Of a second, on average.
    """

    kilobits: Annotated[int, Field(ge=6, le=320)]

    def change_sound(self, sound: Sound, _random: np.random.Generator) -> Sound:
        """Returns the sound as it is: the file's encoder is told."""
        return sound


class Mp3(SoundCodec):
    """MP3 by LAME."""

    codec: ClassVar[str | None] = "libmp3lame"
    ending: ClassVar[str | None] = ".mp3"
    operation: Literal["mp3"] = "mp3"


class Aac(SoundCodec):
    """AAC by FFmpeg's own encoder, in an M4A file."""

    codec: ClassVar[str | None] = "aac"
    ending: ClassVar[str | None] = ".m4a"
    operation: Literal["aac"] = "aac"


class Opus(SoundCodec):
    """Opus by libopus, in an Ogg file."""

    codec: ClassVar[str | None] = "libopus"
    ending: ClassVar[str | None] = ".opus"
    operation: Literal["opus"] = "opus"
    kilobits: Annotated[int, Field(ge=6, le=256)]  # of one channel


class Band(SoundStep):
    """Keeps a band of frequencies, and resamples to a rate that holds it: a telephone's is 300 to 3400 Hz at 8 kHz.

    A Butterworth filter of order 10, forwards and backwards (`scipy.signal.sosfiltfilt`), so that nothing is delayed;
    then a polyphase resampler.
    """

    operation: Literal["band"] = "band"
    low_hz: Annotated[float, Field(gt=0)]
    high_hz: Annotated[float, Field(gt=0)]
    sample_rate_hz: Annotated[int, Field(ge=4000, le=48_000)]

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        """Refuses a band that is empty, or that the sample rate does not hold."""
        if not self.low_hz < self.high_hz < self.sample_rate_hz / 2:
            raise ValueError(
                f"low_hz {self.low_hz:g} must be below high_hz {self.high_hz:g}, and that below half of sample_rate_hz"
                f" {self.sample_rate_hz}"
            )
        return self

    def change_sound(self, sound: Sound, _random: np.random.Generator) -> Sound:
        """Returns the band, at `sample_rate_hz` or at the sound's own rate if that is lower."""
        from scipy import signal

        samples, rate = sound
        band = [self.low_hz, self.high_hz] if self.high_hz < rate / 2 else self.low_hz
        sections = signal.butter(10, band, "bandpass" if isinstance(band, list) else "highpass", fs=rate, output="sos")
        padded = min(len(samples) - 1, rate)  # of the sound's ends, mirrored
        samples = signal.sosfiltfilt(sections, samples, padlen=padded)
        if self.sample_rate_hz < rate:
            samples = signal.resample_poly(samples, self.sample_rate_hz, rate)
            rate = self.sample_rate_hz
        return Sound(samples.astype(np.float32), rate)


class Reverb(SoundStep):
    """A room: its impulse response is the direct sound and noise that decays exponentially (Polack 1988).

    Attributes:
        decay_seconds: In which the room's answer falls by 60 dB (T60 of ISO 3382).
        direct_db: How much louder the direct sound is than all that follows it.
    """

    operation: Literal["reverb"] = "reverb"
    decay_seconds: Annotated[float, Field(gt=0, le=10)]
    direct_db: Annotated[float, Field(ge=-30, le=60)] = 0.0

    def change_sound(self, sound: Sound, random: np.random.Generator) -> Sound:
        """Returns the sound in the room, of the same length and the same mean power."""
        from scipy import signal

        samples, rate = sound
        times = np.arange(1, round(self.decay_seconds * rate) + 1) / rate
        tail = random.standard_normal(len(times)) * 10 ** (-3 * times / self.decay_seconds)
        tail *= 10 ** (-self.direct_db / 20) / np.sqrt(np.sum(tail**2))
        heard = signal.fftconvolve(samples, np.concatenate([[1.0], tail]))[: len(samples)]
        loud = np.sqrt(measure_power(samples) / max(measure_power(heard), 1e-30))
        return Sound((heard * loud).astype(np.float32), rate)


class SoundNoise(SoundStep):
    """White noise.

    Attributes:
        snr_db: How much louder the sound is than the noise, by their mean powers over the whole file.
    """

    operation: Literal["noise"] = "noise"
    snr_db: Annotated[float, Field(ge=-40, le=100)]

    def change_sound(self, sound: Sound, random: np.random.Generator) -> Sound:
        """Returns the noisy sound; silence stays silent."""
        level = np.sqrt(measure_power(sound.samples) * 10 ** (-self.snr_db / 10))
        noise = random.standard_normal(len(sound.samples), dtype=np.float32)
        return Sound(sound.samples + np.float32(level) * noise, sound.rate)


class TrimSilence(SoundStep):
    """Cuts silence off both ends (`librosa.effects.trim`).

    Attributes:
        below_db: What is so much quieter than the loudest part is silence.
    """

    operation: Literal["trim_silence"] = "trim_silence"
    below_db: Annotated[float, Field(gt=0, le=120)]

    def change_sound(self, sound: Sound, _random: np.random.Generator) -> Sound:
        """Returns the sound without silence at its ends."""
        trimmed, _ = require("librosa").effects.trim(sound.samples, top_db=self.below_db)
        return Sound(np.ascontiguousarray(trimmed), sound.rate)


AnySoundStep = Annotated[Mp3 | Aac | Opus | Band | Reverb | SoundNoise | TrimSilence, Field(discriminator="operation")]


def measure_power(samples: np.ndarray) -> float:
    """Returns the mean square of samples."""
    return float(np.mean(np.square(samples, dtype=np.float64)))
