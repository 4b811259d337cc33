import re
import shutil

import numpy as np
import pytest
from PIL import Image

from automl.errors import DataError
from automl.inspection import clip as clip_module
from automl.inspection.clip import Clip, TimeUnit, analyse_clip
from automl.inspection.figures import draw_timeline
from automl.inspection.page import inspect_clip, render_page, write_page
from automl.media.info import AudioStream, MediaInfo
from tests.fixtures import damaged as stand_ins
from tests.fixtures.clip_scores import member_of, model_of
from tests.fixtures.view_clips import background, tone, write_clip


def test_the_page_is_whole_and_shows_all(talk, tmp_path):
    done = inspect_clip(talk, tmp_path / "out", frames=16)
    page = done.page.read_text(encoding="utf-8")
    assert page.count('<div class="plot"') == 3
    assert page.count('id="plotly"') == 1
    own = page[page.index("</head>") :]
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
    assert '<td class="word">mean of 2 images</td>' in page
    assert page.count('<td class="word">tiny</td>') == 1
    assert page.index("Neighbouring frames and faces compared") < page.index("<h2>Score of the model</h2>")
    assert page.index("<h2>Score of the model</h2>") < page.index("<h2>Frames</h2>") < page.index("<h2>Sound</h2>")
    assert "Score of the model" not in write_page(seen, None, tmp_path).page.read_text(encoding="utf-8")


def test_the_scores_of_a_sound_file_are_a_figure_of_their_own(tmp_path):
    path = write_clip(tmp_path / "a.wav", sound=tone(0.3))
    mel = member_of([0.15], [0.5], 0.3, "mel", "sound")
    page = write_page(analyse_clip(path, 8), model_of(mel), tmp_path / "out").page.read_text(encoding="utf-8")
    assert page.count('<div class="plot"') == 3
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
    assert ">tiny</td>" not in page


def test_the_name_of_a_class_is_escaped(seen):
    name = "</script><b onclick='x'>%{y}&amp;"
    model = model_of(member_of([0, 1], [0.1, 0.9], name="<i>face"), class_name=name)
    own = render_page(seen, None, model)
    own = own[own.rindex("</head>") :]
    assert "<b onclick" not in own
    assert "<i>face" not in own
    assert "&lt;/script&gt;&lt;b onclick" in own
    figure = draw_timeline(None, TimeUnit("s", 1.0), model)  # Plotly makes tags of what looks like one
    shown = [annotation.text for annotation in figure.layout.annotations] + [trace.name or "" for trace in figure.data]
    assert not any("<b " in text or "<i" in text for text in shown)
    assert "%{y}&" not in "".join(trace.hovertemplate or "" for trace in figure.data)
