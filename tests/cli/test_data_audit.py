import csv
import re

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from automl.cli.data import data
from automl.errors import SpecError

app = typer.Typer()
app.command()(data)


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def folder(tmp_path):
    """Photographs of one class are of another JPEG quality, and wider."""
    random = np.random.default_rng(0)
    for label, quality, width in (("fake", 60, 36), ("real", 90, 32)):
        (tmp_path / "my data" / label).mkdir(parents=True)
        for k in range(15):
            picture = Image.fromarray(random.integers(0, 256, (24, width, 3), dtype=np.uint8))
            picture.save(tmp_path / "my data" / label / f"{k}.jpg", quality=quality)
    return tmp_path / "my data"


def test_findings_and_what_to_do(folder):
    lines = run(folder).stdout.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("audit: "))
    assert lines[begin] == (
        "audit: 5 properties of 30 files; the same in all files: 9 (file type, ending of the name, pixel format, "
        "height and 5 more)"
    )
    assert lines[begin + 1].split() == ["property", "auc", "interval", "what", "the", "classes", "have"]
    assert re.match(r"width +1\.0 +\.\d{3} to 1\.0 +fake: 36 px in 100 %, real: 32 px in 100 %", lines[begin + 2])
    quality = "every file of class fake has JPEG quality (estimated): 60, and none of another class"
    assert f"shortcut: {quality}: a network can learn that alone" in lines
    assert sum(line.startswith("shortcut: ") for line in lines) == 5
    assert lines[-2] == (
        f"what to do: automl data '{folder}' --normalise DIR --normalise-size 256 writes a copy whose files are alike"
    )
    assert lines[-1].startswith("what a copy does not take away: bytes a pixel; ")


def test_nothing_to_find(folder):
    for k in range(15):
        with Image.open(folder / "real" / f"{k}.jpg") as picture:
            picture.load()
        picture.save(folder / "fake" / f"{k}.jpg", quality=90)
        picture.save(folder / "real" / f"{k}.jpg", quality=90)
    assert run(folder).stdout.splitlines()[-1] == "audit: no property of the files clearly predicts the label"


def test_it_need_not_be_looked_for(folder):
    assert "audit" not in run(folder, "--no-audit").stdout


def test_too_few_files(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for k in range(4):
            (tmp_path / label / f"{k}.jpg").write_text("no image")
    out = run(tmp_path).stdout
    assert out.endswith("audit: nothing tried: it takes two files of each class that can be read\n")


def test_a_copy(folder, tmp_path):
    (folder / "fake/bad.jpg").write_text("no image")
    target = tmp_path / "a copy"
    first = run(folder, "--normalise", target, "--normalise-size", 24)
    assert first.exit_code == 0
    lines = first.stdout.splitlines()
    assert f"written: {target}, 30 files" in lines
    assert "unreadable, left out: fake/bad.jpg: not an image" in lines
    after = lines[lines.index(f"written: {target}, 30 files") :]
    assert not any("JPEG quality" in line for line in after if line.startswith("shortcut"))
    assert "not removed: what an earlier compression or resizing left in the pixels" in after
    assert after[-1] == f"next: automl search --data '{target}'"
    with (target / "labels.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"fake", "real"}
    assert (
        f"written: {target}, 0 files; 30 were there"
        in run(folder, "--normalise", target, "--normalise-size", 24).stdout
    )
    second = run(target)
    assert "format: table" in second.stdout
    assert "real class: real" in second.stdout


def test_the_next_command_names_the_real_class(tmp_path):
    """The competition's layout says which class is real, a table does not."""
    for name, count in (("trainset", 12), ("valset", 6)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(count):
            Image.new("RGB", (20, 20), (k, 9, 9)).save(tmp_path / "data" / name / f"{k}.png")
        rows = "".join(f"{k}.png,{k % 2}\n" for k in range(count))
        (tmp_path / "data" / f"{name}_label.txt").write_text(f"img_name,target\n{rows}")
    lines = run(tmp_path / "data", "--normalise", tmp_path / "copy").stdout.splitlines()
    assert f"written: {tmp_path / 'copy'}, 18 files" in lines  # of two sets, in which names come twice
    assert len(list((tmp_path / "copy/files").iterdir())) == 18
    assert lines[-1] == f"next: automl search --data {tmp_path / 'copy'} --real-class 0"


def test_mistakes(folder, tmp_path):
    for flags, words in (
        (("--normalise-size", 64), "--normalise-size 64 is for a copy; give --normalise DIR as well"),
        (("--normalise-seconds", 3), "--normalise-seconds 3 is for a copy; give --normalise DIR as well"),
        (("--normalise", folder / "in"), "lie in each other"),
    ):
        found = run(folder, *flags)
        assert isinstance(found.exception, SpecError)
        assert words in str(found.exception)
        assert not found.stdout  # before anything is read
