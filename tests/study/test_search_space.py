import time

from automl.spec import StudySpec
from automl.study.search import _Search
from tests.fixtures.photos import images_dataset, save_photos
from tests.fixtures.reporter import RecordingReporter


def test_a_search_warns_of_what_its_space_draws_in_vain(tmp_path):
    path, reporter = tmp_path / "space.yaml", RecordingReporter()
    path.write_text("tune: head\nfreeze_epochs: {ordered: [0, 1]}\n")
    photos = save_photos(tmp_path, range(8))
    search = _Search(StudySpec(space=str(path)), tmp_path / "runs", reporter, time.time(), 0)
    search._open_space(images_dataset(train=photos[:4], validation=photos[4:]))
    assert reporter.lines == [f"warning: {path} line 2: freeze_epochs has no effect beside tune head"]
