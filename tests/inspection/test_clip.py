import numpy as np
import pytest

from automl.inspection.clip import TimeUnit, analyse_clip, mark_unusual, measure_sound
from tests.fixtures.view_clips import tone, write_clip


def test_the_frame_that_is_unlike_its_neighbours_is_marked(seen):
    curve = seen.pictures.frame_curve
    assert curve.unusual_seconds == [0.9, 1.0]
    assert len(curve.similarity) == 15
    assert curve.similarity[[8, 9]].max() < curve.limits[0] < curve.median < 1


def test_faces_are_compared_where_they_were_found(seen):
    assert [position for position, face in enumerate(seen.pictures.faces) if face is None] == [9]
    similarity = seen.pictures.face_curve.similarity
    assert np.flatnonzero(np.isnan(similarity)).tolist() == [8, 9]
    assert np.nanmin(similarity) > seen.pictures.frame_curve.similarity[8] + 0.2
    assert any("not found in 1 of 16 frames" in note for note in seen.notes)


def test_the_rule_is_a_robust_z_score_of_3_5():
    values = [0.5 + 0.01 * step for step in range(-4, 5)]  # median 0.5, median absolute deviation 0.02
    reach = 3.5 * 0.02 / 0.6745
    assert mark_unusual(range(9), values).limits == pytest.approx((0.5 - reach, 0.5 + reach))
    inside, outside = (mark_unusual(range(11), [*values, 0.5, 0.5 + add]) for add in (0.05, 0.2))
    assert inside.unusual_seconds == []
    assert outside.unusual_seconds == [10]


def test_of_equal_similarities_one_that_is_clearly_other_is_marked():
    assert mark_unusual(range(20), [1.0] * 19 + [0.5]).unusual_seconds == [19]
    assert mark_unusual(range(20), [1.0] * 19 + [0.995]).unusual_seconds == []
    assert mark_unusual(range(20), [1.0] * 20).unusual_seconds == []


def test_of_few_pairs_none_is_marked():
    assert mark_unusual(range(5), [0.9, 0.9, 0.9, 0.9, 0.1]).limits is None
    nothing = mark_unusual(range(9), [np.nan] * 9)
    assert not nothing.unusual.any()
    assert np.isnan(nothing.median)


def test_the_sound_is_where_and_how_high_it_is(seen):
    sound = seen.sound
    assert sound.seconds == pytest.approx(1.6, abs=0.02)
    loudest = sound.mel_hz[sound.mel_db[:, 10:-10].mean(axis=1).argmax()]
    assert loudest == pytest.approx(440, abs=20)
    assert sound.features["chroma_stft"][:, 20].argmax() == 9  # A
    assert sound.features["rms"][0, 20] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.3)


def test_long_sound_is_averaged_into_as_many_columns_as_fit(tmp_path):
    sound = np.concatenate([np.zeros(32_000, np.float32), tone(2.7)])
    path = write_clip(tmp_path / "long.mkv", sound=sound)
    whole = analyse_clip(path, 8).sound
    short, _ = measure_sound(path, 16_000, columns=40, read_seconds=1, piece_seconds=0.5)
    assert whole.mel_db.shape[1] == 1 + len(sound) // 256
    assert 20 <= short.mel_db.shape[1] <= 40
    assert short.seconds == whole.seconds
    for found in (short, whole):
        began = found.times_seconds[np.flatnonzero(found.features["rms"][0] > -20)[0]]
        assert began == pytest.approx(2.0, abs=0.032 + found.column_seconds)  # half a window
        assert found.times_seconds[-1] == pytest.approx(4.7, abs=0.15)
    assert np.isnan(whole.features["spectral_centroid"][0, 50])


def test_sound_that_ends_with_a_block_is_read_to_its_end(tmp_path):
    path = write_clip(tmp_path / "two.mkv", sound=tone(2 * 2 * 0.496))
    sound, _ = measure_sound(path, 16_000, read_seconds=1, piece_seconds=0.496)
    assert sound.seconds == pytest.approx(1.984)


def test_minutes_from_ten_minutes_on():
    assert TimeUnit.for_clip(599).format_time(90) == "90.00 s"
    assert TimeUnit.for_clip(600).format_time(90) == "1.50 min"
