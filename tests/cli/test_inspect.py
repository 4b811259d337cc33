import os
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from automl.cli.inspect import inspect
from automl.cli.main import run
from automl.views.frame import Frame
from tests.fixtures.models import write
from tests.fixtures.photos import save_photos
from tests.fixtures.view_clips import background, tone, write_clip

APP = typer.Typer()
APP.command()(inspect)


@pytest.mark.slow
def test_it_writes_beside_the_name_of_the_clip_and_says_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mkv", [background()] * 2, tone(0.3))
    result = CliRunner().invoke(APP, ["a.mkv", "--frames", "2"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-2:] == [
        "written: inspect/a.mkv/inspect.html",
        "written: inspect/a.mkv/frames.png",
    ]
    assert sorted(file.name for file in (tmp_path / "inspect/a.mkv").iterdir()) == ["frames.png", "inspect.html"]


def test_a_name_that_is_not_utf_8(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.wav", sound=tone(0.3)).rename(os.fsdecode(b"f\xe9 \xe8\xa7\x86<b>.wav"))
    result = CliRunner().invoke(APP, [os.fsdecode(b"f\xe9 \xe8\xa7\x86<b>.wav")])
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes.splitlines()[-1] == b"written: inspect/f\xe9 \xe8\xa7\x86<b>.wav/inspect.html"
    (page,) = (tmp_path / "inspect").glob("*/inspect.html")
    assert "<h1>f\ufffd 视&lt;b&gt;.wav</h1>" in page.read_text(encoding="utf-8")


def test_another_folder_can_be_named(tmp_path):
    write_clip(tmp_path / "a.wav", sound=tone(0.3))
    result = CliRunner().invoke(APP, [str(tmp_path / "a.wav"), "--out", str(tmp_path / "o")])
    assert result.stdout.splitlines()[-1] == f"written: {tmp_path / 'o/inspect.html'}"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("broken.mp4", [], "cannot read broken.mp4: not a video or sound file"),
        ("missing.mp4", [], "cannot read missing.mp4: no such file"),
        ("face.png", [], "face.png is an image: a heat map needs a trained model; give --model DIR"),
        ("notes.txt", ["--model", "m"], "notes.txt is no image, video or sound"),
        (".", [], ". is a folder: a heat map needs a trained model; give --model DIR"),
        ("film.mkv", ["--face-model", "none.onnx"], "cannot read the face model none.onnx: no such file"),
    ],
)
def test_what_cannot_be_shown_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, name, options, said):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "film.mkv", [background()] * 2)
    for broken in ("broken.mp4", "face.png", "notes.txt"):
        (tmp_path / broken).write_text("no clip\n" * 50)
    with pytest.raises(SystemExit) as caught:
        run(["inspect", name, *options])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"Error: {said}")


def test_the_scores_of_a_model_are_printed_and_on_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mkv", [background()] * 6, tone(0.6))
    write(tmp_path / "model", view=Frame(count=2))
    result = CliRunner().invoke(APP, ["a.mkv", "--frames", "3", "--model", "model", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    *_, score, highest, agreement, page, _ = result.stdout.splitlines()
    assert re.fullmatch(r"Score of the clip, the probability of class fake: 0\.\d{3}\.", score)
    assert re.fullmatch(r"Highest probability of class fake by frame: (0\.\d{3} at 0\.\d0 s(, |\.)){3}", highest)
    assert re.match(r"Maps of frame, as test_byobnet\.r160_in1k sees it: Grad-CAM and occlusion ", agreement)
    text = (tmp_path / page.removeprefix("written: ")).read_text(encoding="utf-8")
    assert "Score of the model: probability of class fake" in text
    assert "clip score" in text
    assert '<td class="word">mean of 2 images</td>' in text


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("images", "images was trained on image files"),
        ("nothing", "no model in nothing: it has no model.safetensors"),
        ("a.mkv", "a.mkv is a file; give the folder that automl train wrote"),
    ],
)
def test_a_model_that_cannot_be_asked_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, model, said):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mkv", [background()] * 2)
    write(tmp_path / "images")
    with pytest.raises(SystemExit) as caught:
        run(["inspect", "a.mkv", "--model", model])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: {said}")
    assert not (tmp_path / "inspect").exists()


def test_an_image_and_a_folder_have_pages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_photos(tmp_path / "photos", range(2))
    write(tmp_path / "model")
    how = ["--model", "model", "--device", "cpu"]
    result = CliRunner().invoke(APP, ["photos/0.png", *how, "--no-check"])
    assert result.exit_code == 0, result.output
    assert "The maps are by Grad-CAM alone; none was checked by occlusion." in result.stdout
    assert result.stdout.splitlines()[-1] == "written: inspect/photos/0.png/inspect.html"
    result = CliRunner().invoke(APP, [str(tmp_path / "photos" / "0.png"), *how, "--no-check"])
    assert result.stdout.splitlines()[-1] == "written: inspect/photos/0.png/inspect.html"
    result = CliRunner().invoke(APP, ["photos", *how, "--most", "1"])
    assert result.exit_code == 0, result.output
    assert "1 shown; 1 file left out (--most)." in result.stdout
    assert result.stdout.splitlines()[-1] == "written: inspect/photos/inspect.html"


def test_the_help_names_the_model():
    result = CliRunner().invoke(APP, ["--help"], env={"COLUMNS": "120", "NO_COLOR": "1"})
    assert re.search(r"--model +DIR +Model or ensemble", result.stdout)


def test_torch_is_not_needed():
    code = "import sys, automl.cli.inspect, automl.inspection.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
