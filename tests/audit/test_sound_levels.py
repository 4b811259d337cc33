import numpy as np
import pytest

from automl.audit.sound_levels import LOUDNESS, SAMPLE_RATE_HZ, equalise_sound, measure_floors, raise_floor
from automl.audit.sound_measures import measure_sound


def speech(seed, floor=0.001, seconds=2.0):
    """Noise that comes and goes, with a floor, between two silences."""
    random, count = np.random.default_rng(seed), round(seconds * SAMPLE_RATE_HZ)
    loud = np.cos(2 * np.pi * 3 * np.arange(count) / SAMPLE_RATE_HZ) > 0
    quiet = np.zeros(SAMPLE_RATE_HZ // 2)
    sound = np.concatenate([quiet, 0.1 * random.standard_normal(count) * loud, quiet])
    return (sound + floor * random.standard_normal(len(sound)) + 0.01).astype(np.float32)


def test_what_is_equalised():
    values = measure_sound(equalise_sound(speech(0), trim=True), SAMPLE_RATE_HZ)
    assert values["loudness"] == -26
    assert abs(values["dc_offset"]) < 0.01
    assert (values["leading_silence"], values["trailing_silence"]) == (0, 0)
    assert 6900 < values["band_limit"] < 7300


def test_the_ends_of_a_track_stay():
    assert len(equalise_sound(speech(0), trim=False)) == len(speech(0))
    assert len(equalise_sound(speech(0), trim=True)) == pytest.approx(2 * SAMPLE_RATE_HZ, rel=0.1)


def test_the_floor_is_raised_to_the_level_and_a_higher_one_stays():
    clean, noisy = (equalise_sound(speech(seed, floor), True) for seed, floor in ((1, 1e-5), (2, 0.01)))
    levels = measure_floors(noisy)
    raised = measure_floors(raise_floor(clean, levels, seed=0))
    assert 10 * np.log10(measure_floors(clean)[1:-1] / levels[1:-1]).max() < -20
    assert 10 * np.log10(raised[1:-1] / levels[1:-1]) == pytest.approx(0, abs=1)
    assert raise_floor(noisy, measure_floors(clean), seed=0) == pytest.approx(noisy, abs=1e-5)


def test_the_noise_is_seeded():
    sound = equalise_sound(speech(1), True)
    levels = 10 * measure_floors(sound)
    assert (raise_floor(sound, levels, 1) == raise_floor(sound, levels, 1)).all()
    assert (raise_floor(sound, levels, 1) != raise_floor(sound, levels, 2)).any()


def test_the_loudness_is_the_same_with_noise():
    sound = equalise_sound(speech(1), True)
    mixed = raise_floor(sound, 100 * measure_floors(sound), 0)
    assert np.sqrt(np.mean(mixed.astype(float) ** 2)) == pytest.approx(LOUDNESS, rel=1e-3)


@pytest.mark.parametrize("count", [1, 50, 600])
def test_silence_and_very_short_sounds(count):
    for samples in (np.zeros(count, np.float32), np.full(count, 0.5, np.float32)):
        mixed = raise_floor(equalise_sound(samples, True), [1e-3] * 14, 0)
        assert len(mixed) == count
        assert np.isfinite(mixed).all()
