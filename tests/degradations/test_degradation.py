import pickle
import re
from pathlib import Path

import pytest

from automl.degradations.degradation import choose_degradations, load_degradations
from automl.errors import SpecError

PAGE = (Path(__file__).parents[2] / "docs" / "degradations.md").read_text(encoding="utf-8")
JPEG = "{operation: jpeg, quality: 50}"


@pytest.fixture
def write_file(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_what_ships():
    by_medium = {medium: [item.name for item in load_degradations(medium=medium)] for medium in ("video", "sound")}
    assert by_medium == {
        "video": ["h264-28", "h264-35", "h264-42", "frames-half", "frames-random", "size-half", "size-quarter"],
        "sound": "mp3-32 aac-24 opus-12 telephone reverb noise-20db noise-10db noise-5db trimmed".split(),  # noqa: SIM905
    }
    images = load_degradations(medium="image")
    assert len(images) == 18
    assert [item.steps[0].quality for item in images if item.name.startswith("jpeg-") and len(item.steps) == 1] == [
        90,
        70,
        50,
        30,
    ]
    assert len(load_degradations()) == 18 + 7 + 9


def test_a_file_of_ones_own(write_file):
    path = write_file(f"image: [{{name: a, steps: [{JPEG}, {{operation: blur, sigma: 2}}]}}]\nsound: []")
    (only,) = load_degradations(path)
    assert (only.name, only.medium, only.applies_to) == ("a", "image", ("image",))
    assert [step.operation for step in only.steps] == ["jpeg", "blur"]
    assert load_degradations(path, "sound") == ()
    assert pickle.loads(pickle.dumps(only)) == only  # a decoder is handed it


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image: [{name: a, steps: [{operation: jpg}]}]",
            r"yaml line 1: image\.steps: there is no 'jpg'; .*did you mean 'jpeg'",
        ),
        ("image: [{name: a, steps: [{operation: jpeg}]}]", r"image\.steps\.quality: is missing"),
        (
            "image: [{name: a, steps: [{operation: jpeg, quality: 101}]}]",
            r"image\.steps\.quality: 101 is too large; give 1 to 100$",
        ),
        ("image: [{name: a b, steps: [" + JPEG + "]}]", r"image\.name: must be letters, digits.*\(got 'a b'\)"),
        ("image: [{name: a, steps: []}]", r"image: a: steps must list at least one operation"),
        ("image: [{name: a, steps: [" + JPEG + "], strength: 3}]", r"image\.strength: there is no such name"),
        ("pictures: []", r"pictures: there is no such name$"),
        ("sounds: []", r"sounds: there is no such name; did you mean 'sound'\?$"),
        (
            "image: [{name: a, steps: [{operation: jpeg, quality: 90, qualty: 1}]}]",
            r"image\.steps\.qualty: there is no such name; did you mean 'quality'\?$",
        ),
        ("sound: [{name: a, steps: [" + JPEG + "]}]", r"sound\.steps: there is no 'jpeg'; known: mp3, aac"),
        (
            f"image: [{{name: a, steps: [{JPEG}]}}, {{name: a, steps: [{JPEG}]}}]",
            r"each name may occur once; more than once: a$",
        ),
        (
            "sound: [{name: a, steps: [{operation: mp3, kilobits: 32}, {operation: noise, snr_db: 3}]}]",
            r"sound: a: mp3 must be the last step",
        ),
        (
            "video: [{name: a, steps: [{operation: h264, crf: 28}, {operation: h264, crf: 30}]}]",
            r"video: a: h264 must be the last step",
        ),
        ("video: [{name: a, steps: [{operation: drop_frames}]}]", r"drop_frames takes either every, such as 2, or"),
        (
            "sound: [{name: a, steps: [{operation: band, low_hz: 300, high_hz: 4000, sample_rate_hz: 8000}]}]",
            r"high_hz 4000, and that below half of sample_rate_hz 8000",
        ),
        ("- jpeg", r"must hold the lists image, video and sound, or some of them; got list"),
        ("", r"got an empty file"),
        ("image: [", r"mine\.yaml line 1, column 9"),
    ],
)
def test_a_mistake_is_one_line_with_the_file(text, message, write_file):
    with pytest.raises(SpecError, match=message) as error:
        load_degradations(write_file(text))
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mistake_names_its_line(write_file):
    text = "image:\n  - {name: a, steps: [" + JPEG + "]}\n  - name: b\n    steps:\n"
    text += "      - {operation: blur, sigma: 1}\n      - operation: jpeg\n        quality: 300\n"
    with pytest.raises(SpecError, match=r"mine\.yaml line 7: image\.steps\.quality: 300 is too large; give 1 to 100$"):
        load_degradations(write_file(text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match=r"cannot read .*none\.yaml: No such file"):
        load_degradations(tmp_path / "none.yaml")


def test_names_and_wildcards_choose():
    chosen = choose_degradations(["darker", "jpeg-?0", "jpeg-90"], medium="image")
    assert [item.name for item in chosen] == ["jpeg-90", "jpeg-70", "jpeg-50", "jpeg-30", "darker"]
    assert choose_degradations(["*"]) == load_degradations()


def test_a_name_of_none_lists_those_there_are():
    with pytest.raises(SpecError, match=r"no degradation of images is named 'jpg-90'; did you mean 'jpeg-90'\?; known"):
        choose_degradations(["darker", "jpg-90"], medium="image")
    with pytest.raises(SpecError, match=r"no degradation of sounds is named 'jpeg-90'.*known: mp3-32, aac-24"):
        choose_degradations(["jpeg-90"], medium="sound")


def test_the_page_lists_what_ships_and_its_example_loads(write_file):
    table = PAGE.split("## A file")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [name for row in rows for name in re.findall("`([^`]+)`", row.split("|")[2])] == [
        item.name for item in load_degradations()
    ]
    (example,) = re.findall("```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert [item.name for item in load_degradations(write_file(example))] == ["messenger", "call"]
