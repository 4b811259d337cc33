import numpy as np
from PIL import Image

from automl.spec import StudySpec
from automl.study.preparation import Preparation
from automl.study.readiness import read_start
from tests.fixtures.reporter import RecordingReporter


def warn(folder, tmp_path):
    reporter = RecordingReporter()
    preparation = Preparation(read_start(StudySpec(data={"path": folder}), tmp_path, reporter.print_line), reporter)
    preparation._warn_of_shortcuts(preparation.start.dataset)
    return reporter.lines, preparation.checks


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
