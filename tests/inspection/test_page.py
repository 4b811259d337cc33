import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from automl.errors import DataError
from automl.inspection import clip as clip_module
from automl.inspection.clip import Clip, TimeUnit, analyse_clip, mark_unusual
from automl.inspection.figures import draw_features, draw_mel, draw_scores, draw_similarity, find_highest
from automl.inspection.page import inspect_clip, render_page, write_page
from automl.inspection.score_timeline import ClipScores, MemberScores
from automl.media.info import AudioStream, MediaInfo
from tests.fixtures import damaged as stand_ins
from tests.fixtures.view_clips import background, moving_face, tone, write_clip

UNIT = TimeUnit("s", 1.0)


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """Sixteen frames of a face that moves a little, upside down in the tenth, and a tone."""
    frames = moving_face(16, step=3)
    frames[9] = np.ascontiguousarray(frames[9][::-1])
    return write_clip(tmp_path_factory.mktemp("talk") / "talk.mkv", frames, tone(1.6))


@pytest.fixture(scope="module")
def seen(talk):
    return analyse_clip(talk, 16)


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


def test_long_sound_is_averaged_into_as_many_columns_as_fit(tmp_path, monkeypatch):
    sound = np.concatenate([np.zeros(32_000, np.float32), tone(2.7)])
    path = write_clip(tmp_path / "long.mkv", sound=sound)
    whole = analyse_clip(path, 8).sound
    monkeypatch.setattr(clip_module, "_COLUMNS", 40)
    monkeypatch.setattr(clip_module, "_READ_SECONDS", 1)
    monkeypatch.setattr(clip_module, "_PIECE_SECONDS", 0.5)
    short = analyse_clip(path, 8).sound
    assert whole.mel_db.shape[1] == 1 + len(sound) // 256
    assert 20 <= short.mel_db.shape[1] <= 40
    assert short.seconds == whole.seconds
    for found in (short, whole):
        began = found.times_seconds[np.flatnonzero(found.features["rms"][0] > -20)[0]]
        assert began == pytest.approx(2.0, abs=0.032 + found.column_seconds)  # half a window
        assert found.times_seconds[-1] == pytest.approx(4.7, abs=0.15)
    assert np.isnan(whole.features["spectral_centroid"][0, 50])


def test_sound_that_ends_with_a_block_is_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_module, "_READ_SECONDS", 1)
    monkeypatch.setattr(clip_module, "_PIECE_SECONDS", 0.496)
    path = write_clip(tmp_path / "two.mkv", sound=tone(2 * 2 * 0.496))
    assert analyse_clip(path, 8).sound.seconds == pytest.approx(1.984)


def test_figures_say_what_their_axes_are(seen):
    similar = draw_similarity(seen.pictures, TimeUnit("min", 60.0))
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


def test_the_page_is_whole_and_shows_all(talk, tmp_path):
    done = inspect_clip(talk, tmp_path / "out", frames=16)
    page = done.page.read_text(encoding="utf-8")
    assert page.count("Plotly.newPlot(") >= 3
    assert page.count("plotly.js v") == 1
    own = page[page.index("</script>") :]
    assert not re.search(r"""(src|href)=["'](?!data:)""", own)
    assert "default-src 'none'" in page
    assert "360 × 240 pixels, 10 frames a second" in page
    assert "16000 Hz, mono" in page
    assert "Unusual frames, compared with the one before: 0.90 s, 1.00 s." in page
    assert "Iglewicz" in page
    assert "Unusual frames, compared with the one before: 0.90 s, 1.00 s." in done.lines
    with Image.open(done.sheet) as sheet:
        assert sheet.format == "PNG"
        pixels = np.asarray(sheet.convert("RGB"))
    for colour in ("F0E442", "D55E00"):  # a box, a rim
        assert (pixels == list(bytes.fromhex(colour))).all(axis=2).any()


def test_a_clip_without_sound_or_face_shows_neither(tmp_path):
    path = write_clip(tmp_path / "silent film.mkv", [background()] * 3)
    done = inspect_clip(path, tmp_path / "out", frames=8)
    page = done.page.read_text(encoding="utf-8")
    assert any("no sound track" in line for line in done.lines)
    assert any("No face was found in any of the 3 frames" in line for line in done.lines)
    assert any("3 frames instead of 8" in line for line in done.lines)
    assert "Log-mel" not in page
    assert "Neighbouring face crops" not in page


def test_one_frame_has_no_neighbours(tmp_path):
    path = write_clip(tmp_path / "one.mkv", [background()])
    done = inspect_clip(path, tmp_path / "out", frames=8)
    assert done.sheet.is_file()
    assert "similarity (SSIM)" not in done.page.read_text(encoding="utf-8")


@pytest.mark.parametrize("samples", [np.zeros(8000, np.float32), tone(0.001)], ids=["silence", "sixteen samples"])
def test_a_sound_file_shows_its_sound_alone(tmp_path, samples):
    path = write_clip(tmp_path / "sound.wav", sound=samples)
    done = inspect_clip(path, tmp_path / "out")
    page = done.page.read_text(encoding="utf-8")
    assert done.sheet is None
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["inspect.html"]
    assert "Log-mel spectrogram" in page
    assert "<img" not in page
    assert any("silence throughout" in line for line in done.lines) == (not samples.any())


def test_what_a_file_says_is_escaped(tmp_path):
    path = tmp_path / "<script>alert(1)</script>&.wav".replace("/", "∕")
    audio = AudioStream(16_000, 1, "<b>codec</b>", 1.0)
    page = render_page(Clip(MediaInfo(path, "'\"<i>", 1.0, None, audio), None, None, ("<u>",)), None, None)
    own = page[page.rindex("</head>") :]
    for sentences in ("<script>alert", "<b>codec", "<i>", "<u>"):
        assert sentences not in own
    assert "&lt;script&gt;alert(1)" in own
    assert "<script>alert" not in page[: page.index("<style>")]


def test_an_image_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "face.PNG")
    with pytest.raises(DataError, match=r"face\.PNG is an image; .*a video or a sound file"):
        inspect_clip(tmp_path / "face.PNG", tmp_path / "out")


def test_what_cannot_be_read_leaves_nothing_behind(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no clip\n" * 50)
    with pytest.raises(DataError, match=r"text\.mp4: not a video or sound file"):
        inspect_clip(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("function", ["probe_media", "read_frames", "read_sound"])
def test_a_clip_that_ends_its_decoder_is_an_error(talk, tmp_path, monkeypatch, function):
    path = tmp_path / "exit.mkv"
    shutil.copy(talk, path)
    monkeypatch.setattr(clip_module, function, getattr(stand_ins, function))
    with pytest.raises(DataError, match=r"^cannot read .*exit\.mkv: its decoder ended \(exit code 9\)$"):
        inspect_clip(path, tmp_path / "out", frames=8)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_refused_before_anything_is_decoded(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="it is a file"):
        inspect_clip(tmp_path / "missing.mp4", tmp_path / "out")
    with pytest.raises(DataError, match=r"cannot write .*deeper"):
        inspect_clip(write_clip(tmp_path / "a.wav", sound=tone(0.1)), tmp_path / "out" / "deeper")


def test_minutes_from_ten_minutes_on():
    assert TimeUnit.for_clip(599).format_time(90) == "90.00 s"
    assert TimeUnit.for_clip(600).format_time(90) == "1.50 min"


# --- scores of a model --------------------------------------------------------------------------------------------


def member_of(times=(), values=(), each=0.0, name="face", medium="video", problem=""):
    return MemberScores(
        name=name,
        network="tiny",
        weight=0.5,
        medium=medium,
        times_seconds=np.array(times, dtype=float),
        seconds_each=np.full(len(times), each),
        probabilities=np.array(values, dtype=float),
        made_of="mean of 2 images",
        score=None if problem else 0.625,
        problem=problem,
    )


def model_of(*members, class_name="fake", score: float | None = 0.625):
    return ClipScores(class_name, score, 0.25, members)


def test_the_scores_are_a_panel_below_the_similarities_over_the_same_time(seen):
    face, mel = member_of([0, 0.5, 1, 1.5], [0.1, 0.9, 0.4, 0.3]), member_of([0.8], [0.5], 1.6, "mel", "sound")
    figure = draw_similarity(seen.pictures, UNIT, model_of(face, mel))
    alone = draw_similarity(seen.pictures, UNIT)
    assert len(alone.data) == sum(trace.legend != "legend2" and trace.yaxis != "y3" for trace in figure.data)
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
    line = draw_scores(model_of(member_of(times, [0.5] * 8)), UNIT).data[0]
    assert len(line.x) == 9
    assert np.flatnonzero(np.isnan(line.y)).tolist() == [5]
    one = draw_scores(model_of(member_of([3], [0.5])), UNIT).data[0]
    assert list(one.y) == [0.5]


def test_several_faces_of_a_frame_are_not_joined():
    line = draw_scores(model_of(member_of([0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8])), UNIT).data[0]
    assert line.mode == "markers"
    assert len(line.x) == 4


def test_the_highest_moments_are_not_beside_each_other():
    member = member_of(range(101), [0.5] * 101)
    member.probabilities[[20, 21, 60, 90, 95]] = 0.9, 0.91, 0.95, 0.7, 0.6
    assert find_highest(member) == [60, 21, 90]


def test_the_page_shows_the_scores_and_who_sees_nothing(seen, tmp_path):
    members = (
        member_of([0.1, 1.2], [0.25, 0.75]),
        member_of(name="mel", medium="sound", problem="it has no sound track"),
    )
    done = write_page(seen, model_of(*members), tmp_path)
    page = done.page.read_text(encoding="utf-8")
    sentences = (
        "Score of the clip, the probability of class fake: 0.625.",
        "Highest probability of class fake by face: 0.750 at 1.20 s, 0.250 at 0.10 s.",
        "mel sees nothing in this clip: it has no sound track.",
    )
    assert done.lines[-3:] == sentences
    assert all(f"<p>{sentence}</p>" in page for sentence in sentences)
    assert "clip score\\u003cbr\\u003e0.625" in page
    assert "<td>mean of 2 images</td>" in page
    assert page.count("<td>tiny</td>") == 1
    assert page.index("Neighbouring frames and faces compared") < page.index("<h2>Score of the model</h2>")
    assert page.index("<h2>Score of the model</h2>") < page.index("<h2>Frames</h2>") < page.index("<h2>Sound</h2>")
    assert "Score of the model" not in write_page(seen, None, tmp_path).page.read_text(encoding="utf-8")


def test_the_scores_of_a_sound_file_are_a_figure_of_their_own(tmp_path):
    path = write_clip(tmp_path / "a.wav", sound=tone(0.3))
    mel = member_of([0.15], [0.5], 0.3, "mel", "sound")
    page = write_page(analyse_clip(path, 8), model_of(mel), tmp_path / "out").page.read_text(encoding="utf-8")
    assert page.count("Plotly.newPlot(") == 3 + page.split("</script>")[0].count("Plotly.newPlot(")
    assert "The figure has a point" in page
    assert "Highest probability" not in page


def test_a_model_that_sees_nothing_has_one_line_and_no_figure(seen, tmp_path):
    blind = model_of(member_of(problem="no face found in 4 of 4 frames"), score=None)
    done = write_page(seen, blind, tmp_path)
    assert done.lines[-2:] == (
        "The model sees nothing in this clip: automl predict gives class fake its share in training, 0.250.",
        "face sees nothing in this clip: no face found in 4 of 4 frames.",
    )
    page = done.page.read_text(encoding="utf-8")
    assert "Neighbouring face crops" in page
    assert "clip score" not in page
    assert "<td>tiny</td>" not in page


def test_the_name_of_a_class_is_escaped(seen):
    name = "</script><b onclick='x'>%{y}&amp;"
    model = model_of(member_of([0, 1], [0.1, 0.9], name="<i>face"), class_name=name)
    own = render_page(seen, None, model)
    own = own[own.rindex("</head>") :]
    assert "<b onclick" not in own
    assert "<i>face" not in own
    assert "&lt;/script&gt;&lt;b onclick" in own
    figure = draw_scores(model, UNIT)  # Plotly makes tags of what looks like one
    shown = [annotation.text for annotation in figure.layout.annotations] + [trace.name or "" for trace in figure.data]
    assert not any("<b " in text or "<i" in text for text in shown)
    assert "%{y}&" not in "".join(trace.hovertemplate or "" for trace in figure.data)
