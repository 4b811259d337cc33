from dataclasses import replace

import numpy as np

from automl.inspection.clip import TimeUnit
from automl.inspection.figures import draw_features, draw_mel, draw_timeline, find_highest
from tests.fixtures.clip_scores import member_of, model_of

UNIT = TimeUnit("s", 1.0)


def test_figures_say_what_their_axes_are(seen):
    similar = draw_timeline(seen.pictures, TimeUnit("min", 60.0))
    assert similar.layout.xaxis2.title.text == "time (min)"
    assert "SSIM" in similar.layout.yaxis.title.text
    unusual = next(trace for trace in similar.data if trace.name == "unusual")
    assert sorted(unusual.text) == ["", "0.02 min"]  # beside each other two would overlap
    assert np.allclose(unusual.x, [0.9 / 60, 1 / 60], atol=1e-4)
    names = [trace.name for trace in similar.data if trace.showlegend]
    assert sorted(names) == ["limits of the usual", "similarity to the one before", "unusual"]
    mel = draw_mel(seen.sound, UNIT)
    assert list(mel.layout.yaxis.ticktext) == ["0 Hz", "250 Hz", "500 Hz", "1 kHz", "2 kHz", "4 kHz", "8 kHz"]
    features = draw_features(seen.sound, UNIT)
    assert len(features.data) == 7
    assert all(features.layout[f"yaxis{number}"].title.text for number in ("", 2, 3, 4, 5, 6, 7))


def test_the_spectrogram_stays_dark_where_it_is_quieter_than_can_be_shown(seen):
    quiet = replace(seen.sound, mel_db=np.full_like(seen.sound.mel_db, -135.0))
    assert (np.asarray(draw_mel(quiet, UNIT).data[0].z) == -100).all()


def test_the_scores_are_a_panel_below_the_similarities_over_the_same_time(seen):
    face, mel = member_of([0, 0.5, 1, 1.5], [0.1, 0.9, 0.4, 0.3]), member_of([0.8], [0.5], 1.6, "mel", "sound")
    figure = draw_timeline(seen.pictures, UNIT, model_of(face, mel))
    alone = draw_timeline(seen.pictures, UNIT)
    assert len(alone.data) == sum(trace.yaxis != "y3" for trace in figure.data)
    assert (figure.layout.xaxis.matches, figure.layout.xaxis3.title.text) == ("x3", "time (s)")
    line, rings, sound = (trace for trace in figure.data if trace.yaxis == "y3")
    assert (line.name, sound.name) == ("face", "mel")
    assert list(line.x) == [0, 0.5, 1, 1.5]
    assert list(line.y) == [0.1, 0.9, 0.4, 0.3]
    assert list(line.customdata) == ["0.00 s", "0.50 s", "1.00 s", "1.50 s"]
    assert list(sound.customdata) == ["0.00 to 1.60 s"]
    assert list(sound.error_x.array) == [0.8]
    assert list(rings.x) == [0.5, 1, 1.5]
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert "Score of the model: probability of class fake" in texts
    assert "clip score<br>0.625" in texts
    assert [shape.y0 for shape in figure.layout.shapes] == [0.625]


def test_the_line_of_a_member_is_broken_where_it_sees_nothing():
    times = [*range(5), *range(9, 12)]
    line = draw_timeline(None, UNIT, model_of(member_of(times, [0.5] * 8))).data[0]
    assert len(line.x) == 9
    assert np.flatnonzero(np.isnan(line.y)).tolist() == [5]
    one = draw_timeline(None, UNIT, model_of(member_of([3], [0.5]))).data[0]
    assert list(one.y) == [0.5]


def test_several_faces_of_a_frame_are_not_joined():
    line = draw_timeline(None, UNIT, model_of(member_of([0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8]))).data[0]
    assert line.mode == "markers"
    assert len(line.x) == 4


def test_the_highest_moments_are_not_beside_each_other():
    member = member_of(range(101), [0.5] * 101)
    member.probabilities[[20, 21, 60, 90, 95]] = 0.9, 0.91, 0.95, 0.7, 0.6
    assert find_highest(member) == [60, 21, 90]
