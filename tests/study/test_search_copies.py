import pytest

from automl.data.cache import build_cache
from automl.spec import StudySpec
from automl.study.preparation import Preparation
from automl.study.readiness import read_start
from tests.fixtures.photos import make_photo, save_photos
from tests.fixtures.reporter import RecordingReporter

WARNING = (
    "warning: 2 leaks, images that are nearly the same in two splits, such as train/a/2.png ~ val/b/near.jpg: "
    "nearly the same image in train and validation, as a and as b; automl data lists them, --drop-copies takes them out"
)


@pytest.fixture
def folder(tmp_path):
    for number, part in enumerate(("train/a", "train/b", "val/a", "val/b")):
        save_photos(tmp_path / "data" / part, range(10 * number, 10 * number + 4))
    make_photo(2).save(tmp_path / "data/val/b/near.jpg", quality=90)
    make_photo(12).save(tmp_path / "data/val/b/other.jpg", quality=10)
    return tmp_path / "data"


def warn(folder, **data):
    """What a search prints about copies, the samples that it has, and what it keeps for the study."""
    spec, reporter = StudySpec(data={"path": folder, "holdout_fraction": 0, **data}), RecordingReporter()
    preparation = Preparation(read_start(spec, folder / "runs", reporter.print_line), reporter)
    dataset = preparation._drop_copies()
    preparation._warn_of_copies(dataset, build_cache(dataset, 96))
    return reporter.lines, len(dataset.samples), preparation.checks


def test_a_search_warns_of_copies_in_one_line(folder):
    assert warn(folder) == ([WARNING], 18, [WARNING.removeprefix("warning: ")])


def test_a_search_without_copies_warns_of_none(folder):
    kept = "copies: near copies of training samples were left out (--drop-copies)"
    taken = "read: taken out, as copies or near copies of training samples: 2 of validation (--drop-copies)"
    (line,), samples, checks = warn(folder, drop_copies=True)
    assert line.startswith(taken)
    assert (samples, checks) == (16, [kept])
