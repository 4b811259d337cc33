import numpy as np
import pytest
from PIL import Image

from automl.audit import audit as module
from automl.audit.audit import audit_dataset, describe_classes, describe_finding, format_auc
from automl.audit.properties import PROPERTIES
from automl.data.dataset import open_dataset
from automl.errors import DataError
from automl.spec import DataSpec
from automl.training.intervals import Interval

BY_KEY = {one.key: one for one in PROPERTIES}


@pytest.fixture
def folder(tmp_path):
    """Fifteen images of each class; the fake ones are of lower quality."""
    random = np.random.default_rng(0)
    for label, quality in (("fake", 60), ("real", 90)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for k in range(15):
            picture = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
            picture.save(tmp_path / "data" / label / f"{k}.jpg", quality=quality)
    return tmp_path / "data"


def open_folder(folder):
    return open_dataset(DataSpec(path=folder), 0)


def test_what_is_constant_or_damaged_is_counted(folder):
    (folder / "fake/bad.jpg").write_text("no image")
    audit = audit_dataset(open_folder(folder), 1000)
    assert (audit.read, audit.unreadable, audit.total, audit.reason) == (30, 1, 31, "")
    assert {"file type", "width", "height", "EXIF"} <= set(audit.constant)
    assert {row.kind.key for row in audit.rows} == {"quantisation", "quality", "bytes_per_pixel"}
    assert audit.coverage == "31 files, 1 of them unreadable"


def test_what_most_files_lack_is_not_tried(folder):
    for k in range(8):
        for label in ("fake", "real"):
            Image.open(folder / label / f"{k}.jpg").save(folder / label / f"{k}.png")
            (folder / label / f"{k}.jpg").unlink()
    audit = audit_dataset(open_folder(folder), 1000)
    assert audit.missing == ("JPEG quality (estimated)",)


def test_a_drawn_part_is_the_same_each_time_and_part_of_a_larger_one(folder, monkeypatch):
    dataset = open_folder(folder)
    paths = []

    def decode(read, items, **_):
        paths.append(items)
        return map(read, items)

    monkeypatch.setattr(module, "decode_files", decode)
    small = audit_dataset(dataset, 20)
    assert (small.read, small.total, small.coverage) == (20, 30, "20 of 30 files, drawn at random")
    assert audit_dataset(dataset, 20) == small
    audit_dataset(dataset, 25)
    assert list(map(len, paths)) == [20, 0, 5]  # what was read is kept, and added to


def test_a_file_that_changed_is_read_again(folder):
    dataset = open_folder(folder)
    assert audit_dataset(dataset, 100).findings
    for k in range(15):
        Image.open(folder / "fake" / f"{k}.jpg").save(folder / "fake" / f"{k}.jpg", quality=90)
    assert "JPEG quality (estimated)" in audit_dataset(dataset, 100).constant


def test_reading_ends_in_time(folder):
    audit = audit_dataset(open_folder(folder), 100, seconds=0)
    assert 0 < audit.read < 30
    assert audit.coverage.startswith(f"{audit.read} of 30 files")


def test_too_few_files_are_no_audit(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for k in range(4):
            (tmp_path / label / f"{k}.jpg").write_text("no image")
    audit = audit_dataset(open_folder(tmp_path), 100)
    assert (audit.rows, audit.read, audit.unreadable) == ((), 0, 8)
    assert audit.reason == "it takes two files of each class that can be read"


def test_groups_count_once(folder):
    """Thirty files, but of two persons a class: no more than four samples, which prove nothing."""
    (folder / "groups.csv").write_text(
        "file,group\n" + "".join(f"{label}/{k}.jpg,{label}{k % 2}\n" for label in ("fake", "real") for k in range(15))
    )
    with_groups = audit_dataset(open_dataset(DataSpec(path=folder, holdout_fraction=0), 0), 100)
    assert with_groups.rows[0].auc.value == 1
    assert not with_groups.findings


WORDS = [
    (
        "frame_rate",
        [30, 30, 25, 25],
        "fake: 30 fps in 100 %, real: 25 fps in 100 %",
        "every file of class fake has frame rate: 30 fps, and none of another class: a network can learn that alone",
    ),
    (
        "frame_rate",
        [30, 25, 25, 25],
        "fake: 30 fps in 50 %, real: 25 fps in 100 %",
        "frame rate alone predicts the class with AUC .900: a network can learn that",
    ),
    (
        "noise_floor",
        [-70.5, -71.5, -50.0, -52.0],
        "fake: -70.5 dBFS in 50 %, real: -50 dBFS in 50 %",
        "noise floor: every fake is below -61.2 dBFS, every real above: a network can learn that alone",
    ),
    (
        "encoder",
        [None, None, "Lavf", "x264"],
        "fake: none in 100 %, real: Lavf in 50 %",
        "every file of class fake has encoder's name: none, and none of another class: a network can learn that alone",
    ),
]


@pytest.mark.parametrize(("key", "values", "by_class", "sentence"), WORDS)
def test_words(key, values, by_class, sentence):
    labels, classes = np.array([0, 0, 1, 1]), ("fake", "real")
    assert describe_classes(BY_KEY[key], values, labels, classes) == by_class
    assert describe_finding(BY_KEY[key], values, labels, classes, Interval(0.9, 0.7, 1)) == sentence


def test_numbers_that_differ_are_a_median_and_a_range():
    labels, classes = np.repeat([0, 1], 101), ("fake", "real")
    values = [*map(float, range(101)), *[7.0] * 101]
    assert describe_classes(BY_KEY["duration"], values, labels, classes) == "fake: 50 s (5 to 95), real: 7 s in 100 %"


def test_shares_are_not_rounded_to_all_or_nothing():
    labels, classes = np.array([0] * 1000 + [1]), ("fake", "real")
    values = ["a"] * 999 + ["b", "a"]
    assert describe_classes(BY_KEY["codec"], values, labels, classes) == "fake: a in 99 %, real: a in 100 %"


def test_figures_of_an_auc():
    assert [format_auc(value) for value in (1.0, 0.9996, 0.5, 0.0)] == ["1.0", "1.0", ".500", ".000"]


def test_no_video_library_is_one_error(tmp_path, monkeypatch):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for k in range(4):
            (tmp_path / label / f"{k}.wav").write_bytes(b"RIFF")

    def refuse(name):
        raise DataError(f"{name} cannot be imported")

    monkeypatch.setattr(module, "require", refuse)
    with pytest.raises(DataError, match="av cannot be imported"):
        audit_dataset(open_folder(tmp_path), 100)


SHARED = {
    "ffdi_faces": set(),
    "hymenoptera": set(),
    "ffdv_videos": set(),
    "audio_voices": {"band_limit", "noise_floor", "dc_offset", "leading_silence", "duration"},
}


@pytest.mark.shared
@pytest.mark.parametrize("name", SHARED)
def test_the_shared_sets(shared, name):
    audit = audit_dataset(open_folder(shared / "data" / name), 10_000)
    assert {row.kind.key for row in audit.findings} == SHARED[name]
    if name == "audio_voices":
        floor = next(row for row in audit.rows if row.kind.key == "noise_floor")
        assert floor.auc.value > 0.999
        assert floor.auc.low > 0.9
        assert "every fake is below -53.3 dBFS, every real above" in floor.sentence
