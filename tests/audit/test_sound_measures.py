import numpy as np
import pytest

from automl.audit.sound_measures import measure_sound

RATE = 16_000


def tone(seconds, hertz=1000.0, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_a_tone_between_silences():
    samples = np.concatenate([np.zeros(RATE // 2, np.float32), tone(1), np.zeros(RATE // 4, np.float32)])
    values = measure_sound(samples, RATE)
    assert values["leading_silence"] == 0.5
    assert values["trailing_silence"] == 0.25
    assert values["noise_floor"] == -120
    assert values["peak"] == -6.0
    assert values["loudness"] == pytest.approx(10 * np.log10(0.125 / 1.75), abs=0.06)
    assert values["energy_limit"] == pytest.approx(1000, abs=40)
    assert values["dc_offset"] == 0


def test_the_floor_is_that_of_the_pauses():
    random = np.random.default_rng(0)
    noise = (0.01 * random.standard_normal(2 * RATE)).astype(np.float32)
    noise[:RATE] += tone(1)
    values = measure_sound(noise, RATE)
    assert values["noise_floor"] == pytest.approx(-40.7, abs=0.3)  # its quietest frames lie a little below -40 dB
    assert values["band_limit"] == RATE / 2


def test_an_offset_is_no_floor():
    values = measure_sound(tone(1) * 0 + np.float32(0.25), RATE)
    assert (values["dc_offset"], values["noise_floor"], values["loudness"]) == (25, -120, -12)


def test_silence_is_all_silence():
    values = measure_sound(np.zeros(RATE, np.float32), RATE)
    assert (values["leading_silence"], values["trailing_silence"]) == (1, 1)
    assert (values["loudness"], values["band_limit"], values["energy_limit"]) == (-120, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 100, 161])
def test_very_short_sounds_have_values(count):
    assert np.isfinite(list(measure_sound(np.full(count, 0.1, np.float32), RATE).values())).all()
