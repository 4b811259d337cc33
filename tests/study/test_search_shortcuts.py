import time

import numpy as np
from PIL import Image

from automl.data.dataset import open_dataset
from automl.spec import DataSpec, StudySpec
from automl.study.search import _Search
from tests.fixtures.reporter import RecordingReporter


def warn(folder, tmp_path):
    reporter = RecordingReporter()
    search = _Search(StudySpec(), tmp_path, reporter, time.time(), 0)
    search._warn_of_shortcuts(open_dataset(DataSpec(path=folder), 0))
    return reporter.lines, search.checks


def write_images(folder, quality_of):
    random = np.random.default_rng(0)
    for label in ("fake", "real"):
        (folder / label).mkdir(parents=True)
        for k in range(15):
            picture = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            picture.save(folder / label / f"{k}.jpg", quality=quality_of[label])


def test_a_search_warns_of_each_shortcut(tmp_path):
    folder = tmp_path / "data"
    write_images(folder, {"fake": 60, "real": 90})
    lines, kept = warn(folder, tmp_path)
    quality = "every file of class fake has JPEG quality (estimated): 60, and none of another class"
    assert f"warning: shortcut: {quality}: a network can learn that alone" in lines
    assert len(lines) == 4
    assert [f"warning: {line}" for line in kept] == lines[:-1]
    assert lines[-1] == (
        f"note: audited 30 files; automl data {folder} --normalise DIR writes a copy whose files are alike"
    )


def test_without_a_shortcut_it_says_nothing(tmp_path):
    write_images(tmp_path / "data", {"fake": 90, "real": 90})
    kept = "shortcuts: no property of the files clearly predicts the label (audited 30 files)"
    assert warn(tmp_path / "data", tmp_path) == ([], [kept])
