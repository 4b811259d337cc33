import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from automl.cli.data import _describe_clips, data
from automl.data.summary import Clips
from automl.errors import DataError, SpecError
from tests.fixtures.photos import make_photo, save_photos
from tests.fixtures.view_clips import tone, write_clip

app = typer.Typer()
app.command()(data)

NOTHING = "no damaged files, leaks or contradicting labels found"


@pytest.fixture
def folder(tmp_path):
    for split, n in (("train", 9), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(n):
                Image.new("RGB", (20, 10), (k, len(name + split), ord(name[0]))).save(
                    tmp_path / split / name / f"{k}.png"
                )
    return tmp_path


TERMINAL = {"FORCE_COLOR": "1"}
"""What rich takes for a terminal."""


def run(*arguments, **env):
    """Runs the command without the audit, which `test_data_audit.py` looks at."""
    return CliRunner().invoke(app, [*map(str, arguments), "--no-audit"], env=env)


LONG = (
    "note: 26 of 26 images are longer than 7:5; their middle square leaves out 50 % of them; `crop: squash` shows all "
    "of them"
)


def test_plain_lines_when_piped(folder):
    found = run(folder, "--holdout-fraction", 0, "--real-class", "cat")
    assert found.exit_code == 0
    assert found.stdout.splitlines() == [
        f"data: {folder}",
        "format: folder",
        "classes: 2 (cat, dog)",
        "positive class: dog",
        "real class: cat",
        "width: 20 to 20 pixels, median 20",
        "height: 10 to 10 pixels, median 10",
        "split       cat  dog  samples",
        "train         9    9       18",
        "validation    4    4        8",
        LONG,
    ]


def test_what_is_wrong_is_told_by_name(folder):
    shutil.copy(folder / "train/cat/1.png", folder / "val/cat/copy.png")
    shutil.copy(folder / "train/dog/1.png", folder / "train/cat/copy.png")
    (folder / "train/cat/bad.png").write_text("no image")
    out = run(folder, "--holdout-fraction", 0).stdout
    assert "leak: train/cat/1.png = val/cat/copy.png: the same image in train and validation\n" in out
    assert "conflict: train/cat/copy.png = train/dog/1.png: the same image as cat and as dog\n" in out
    assert "unreadable: train/cat/bad.png: not an image\n" in out


def test_a_long_list_is_cut(folder):
    for k in range(14):
        (folder / f"train/cat/bad{k}.png").touch()
    lines = run(folder).stdout.splitlines()
    assert sum(line.startswith("unreadable:") for line in lines) == 11
    assert lines[-2:] == ["unreadable: … and 4 more", LONG]


def test_a_table_on_a_terminal(folder):
    out = run(folder, "--holdout-fraction", 0, **TERMINAL).output
    assert re.search(r"validation +4 +4 +8 *\n", out)


def test_many_classes_have_no_column_each(tmp_path):
    for k in range(9):
        (tmp_path / f"kind{k}").mkdir()
        for n in range(10 + k):
            Image.new("RGB", (20, 20), (k, n, 0)).save(tmp_path / f"kind{k}/{n}.png")
    lines = run(tmp_path, "--holdout-fraction", 0).stdout.splitlines()
    words = [line.split() for line in lines]
    header = words.index(["split", "a", "class", "samples"])
    assert words[header + 1][:3] == ["train", "8", "to"]


def test_mistakes_are_automl_errors(folder):
    assert isinstance(run(folder / "nowhere").exception, DataError)
    assert isinstance(run(folder, "--format", "zip").exception, SpecError)
    assert isinstance(run(folder, "--holdout-fraction", 2).exception, SpecError)
    assert isinstance(run(folder, "--real-class", "cow").exception, SpecError)


def test_the_command_is_light_to_import():
    code = "import sys, automl.cli.data; print(sorted({'torch', 'pandas', 'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def clips(tmp_path):
    """Two classes with given splits, and videos of different colours, one of them with sound."""
    for number, place in enumerate(f"{split}/{name}" for split in ("train", "val") for name in ("fake", "real")):
        (tmp_path / place).mkdir(parents=True)
        for k in range(3):
            sound = tone(0.5) if place == "val/real" and k == 0 else None
            write_clip(tmp_path / place / f"{k}.mkv", scene(3 * number + k, 5 + k), sound)
    return tmp_path


def scene(seed, count):
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = np.array(Image.fromarray(colours).resize((80 + count, 60), Image.Resampling.BICUBIC))
    return [picture[:, k : k + 80] for k in range(count)]


def test_the_lines_of_videos(clips):
    found = run(clips, "--holdout-fraction", 0)
    assert found.exit_code == 0
    assert found.stdout.splitlines() == [
        f"data: {clips}",
        "format: folder",
        "classes: 2 (fake, real)",
        "positive class: fake",
        "real class: real",
        "width: 80 to 80 pixels, median 80",
        "height: 60 to 60 pixels, median 60",
        "duration: 0.50 to 0.70 s, median 0.60",
        "frame rate: 10 to 10 frames a second",
        "sound: in 1 of 12 clips, 16000 Hz",
        "split       fake  real  samples",
        "train          3     3        6",
        "validation     3     3        6",
        NOTHING,
    ]


def test_what_is_wrong_with_videos(clips):
    shutil.copy(clips / "train/fake/0.mkv", clips / "val/fake/exact.mkv")
    shutil.copy(clips / "train/fake/2.mkv", clips / "train/fake/harmless.mkv")
    write_clip(clips / "val/real/near.mkv", [frame[::2, ::2] for frame in scene(4, 6)])
    (clips / "train/fake/bad.mp4").write_text("no video")
    lines = run(clips, "--holdout-fraction", 0).stdout.splitlines()[13:]
    assert lines.pop(0) == "warning: 1 of 16 files cannot be read: fake 1 of 9"
    assert lines[0].startswith("unreadable: train/fake/bad.mp4: ")
    assert lines[1:] == [
        "leak: train/fake/0.mkv = val/fake/exact.mkv: the same clip in train and validation",
        "leak: train/real/1.mkv ~ val/real/near.mkv: nearly the same clip in train and validation",
        "note: 1 clips are copies of another one of their class and split",
    ]


def test_near_copies_of_images_are_listed_or_taken_out(tmp_path):
    folder = tmp_path / "data"  # the cache lies beside it
    for number, part in enumerate(("train/a", "train/b", "val/a", "val/b")):
        save_photos(folder / part, range(10 * number, 10 * number + 4))
    make_photo(2).save(folder / "val/b/near.jpg", quality=50)
    lines = run(folder, "--holdout-fraction", 0).stdout.splitlines()
    assert (
        lines[-1]
        == "leak: train/a/2.png ~ val/b/near.jpg: nearly the same image in train and validation, as a and as b"
    )
    assert run(folder, "--holdout-fraction", 0, "--no-near-copies").stdout.splitlines()[-1] == NOTHING
    lines = run(folder, "--holdout-fraction", 0, "--drop-copies").stdout.splitlines()
    taken_out = "read: taken out, as copies or near copies of training samples: 1 of validation (--drop-copies)"
    assert any(line.startswith(f"{taken_out}: ") and line.endswith(" ~ train/a/2.png") for line in lines)
    assert lines[-1] == NOTHING


def test_near_copies_need_not_be_looked_for(clips):
    write_clip(clips / "val/real/near.mkv", [frame[::2, ::2] for frame in scene(4, 6)])
    assert run(clips, "--no-near-copies").stdout.splitlines()[-1] == NOTHING


def test_videos_on_a_terminal(clips):
    write_clip(clips / "val/real/near.mkv", [frame[::2, ::2] for frame in scene(4, 6)])
    out = run(clips, "--holdout-fraction", 0, **TERMINAL).output
    assert "duration: 0.50 to 0.70 s, median 0.60" in out
    assert re.search(r"validation +3 +4 +7 *\n", out)
    assert "leak: train/real/1.mkv ~ val/real/near.mkv: nearly the same clip in train and validation" in out


def test_odd_clips_are_counted():
    clips = Clips(5, (0.5, 3723.0, 40000.0), (24, 59.94), 2, 1, 4, 4, tuple(range(8000, 48_001, 5000)), 3, 0, 2)
    assert _describe_clips(clips) == [
        "duration: 0.50 to 40000.00 s, median 3723.00",
        "frame rate: 24 to 59.94 frames a second",
        "variable frame rate: 2 of 4 clips",
        "rotated: 1 of 4 clips; they are turned upright",
        "pixels that are not square: 3 of 4 clips; they are widened",
        "several tracks of sound: 2 of 5 clips; the default one is read",
        "pictures: in 4 of 5 clips",
        "sound: in 4 of 5 clips, 8000 Hz, 13000 Hz, 18000 Hz, 23000 Hz, 28000 Hz, 33000 Hz, …",
    ]
    assert _describe_clips(Clips(2, None, None, 0, 0, 2, 0, ())) == ["sound: none"]
    assert _describe_clips(Clips(0, None, None, 0, 0, 0, 0, ())) == []


def test_groups_are_read_from_a_table(clips, tmp_path_factory):
    table = tmp_path_factory.mktemp("elsewhere") / "people.csv"
    table.write_text(
        "file,group\n" + "".join(f"train/{name}/{k}.mkv,{k}\n" for name in ("fake", "real") for k in range(3))
    )
    out = run(clips, "--holdout-fraction", 0, "--groups", table, "--no-near-copies").stdout
    assert "split       fake  real  samples  groups\ntrain          3     3        6       3\n" in out


@pytest.mark.shared
def test_the_shared_faces(shared):
    lines = run(shared / "data" / "ffdi_faces").stdout.splitlines()
    assert "format: ffdi" in lines
    assert "real class: 0" in lines
    assert "holdout 80 80 160" in [" ".join(line.split()) for line in lines]
