import base64
import csv
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from automl.cli.main import app
from automl.errors import SpecError, StudyError, WeightsError
from automl.study.setup import load_setup
from automl.study.trial_record import best_first
from automl.study.validation import FoldResult, write_predictions
from tests.fixtures.frozen_backbones import write_weights
from tests.fixtures.replicates import RECIPE, add_trial

WRONG = ["dark/<b>07.png", "dark/11.png", "light/02.png"]


def run(*arguments):
    result = CliRunner().invoke(app, ["data", *map(str, arguments), "--no-audit", "--no-near-copies"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return [re.sub(r" {2,}", " | ", line) for line in result.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path):
    """Noise of two brightnesses, with three pictures in the other one's folder; the name of one is HTML."""
    random = np.random.default_rng(0)
    for name, light in (("dark", 0), ("light", 80)):
        (tmp_path / "tones" / name).mkdir(parents=True)
        for k in range(24):
            file = next((wrong for wrong in WRONG if wrong.startswith(name) and f"{k:02}.png" in wrong), None)
            shade = 80 - light if file else light
            pixels = random.integers(0, 120, (32, 32, 3)) + shade
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "tones" / (file or f"{name}/{k:02}.png"))
    return tmp_path / "tones"


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "weights").mkdir()
    write_weights(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_wrong_labels_are_listed_and_shown(folder, weights, tmp_path):
    page = tmp_path / "pages" / "labels.html"
    lines = run(folder, "--check-labels", "--weights-dir", weights, "--labels-html", page)
    begin = next(i for i, line in enumerate(lines) if line.startswith("labels: "))
    assert lines[begin] == (
        "labels: 48 samples checked by a linear probe on frozen features of test_resnet.r160_in1k at 160 px, "
        "cross-validated by group"
    )
    assert lines[begin + 1] == (
        "labels: likely wrong: 3 of 48; the predictions agree with 94 % of the labels (the lower that is, the more "
        "right labels are named)"
    )
    assert lines[begin + 2] == "file | label | likelier label | probability"
    rows = [line.split(" | ") for line in lines[begin + 3 : -1]]
    assert {name: (label, likelier) for name, label, likelier, _ in rows} == {
        name: ("dark", "light") if name.startswith("dark") else ("light", "dark") for name in WRONG
    }
    assert all(float(row[3]) > 0.5 for row in rows)
    assert lines[-1] == f"written: {page}"
    html = page.read_text(encoding="utf-8")
    assert "dark/&lt;b&gt;07.png" in html
    assert "<b>07" not in html
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert len(pictures) == 3
    assert all(base64.b64decode(one).startswith(b"\xff\xd8") for one in pictures)
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "prefers-color-scheme: dark" in html


def test_unreadable_files_are_counted(folder, weights):
    (folder / "dark/00.png").write_text("no image")
    lines = run(folder, "--check-labels", "--weights-dir", weights)
    assert any(line.endswith("cross-validated by group; not checked: 1 without a prediction") for line in lines)


def test_more_than_ten_are_counted(folder, tmp_path, study_of):
    study_of(folder, lambda labels: np.eye(2)[np.where(np.arange(len(labels)) % 3 == 0, 1 - labels, labels)])
    lines = run("--check-labels", "--study", "tones", "--runs", tmp_path / "runs")
    named = int(re.search(r"likely wrong: (\d+) of", "\n".join(lines)).group(1))
    assert named > 10
    assert lines[-1] == f"… and {named - 10} more; --labels-html FILE shows them with pictures"


@pytest.fixture
def study_of(new_study):
    """A study of a folder whose best trial, the second of two, has out-of-fold predictions; they may be None."""

    def make(folder, predict):
        study, place = new_study(trials=2, data={"path": folder}, folds=2)
        for value in (0.7, 0.9):
            add_trial(study, RECIPE, value, 1.0)
        samples = load_setup(study, place).dataset.samples
        if predict is not None:
            rows = np.flatnonzero(samples["split"] != "holdout")
            labels = samples["label"].to_numpy(np.int64)
            results = [FoldResult({}, predict(labels[part]) * 0.8 + 0.1, part) for part in (rows[::2], rows[1::2])]
            write_predictions(place.predictions_file(best_first(study)[0].number), results, labels)
        return samples, place

    return make


def test_a_studys_own_predictions_are_used_for_the_labels_as_they_are_now(folder, tmp_path, study_of):
    samples, _ = study_of(folder, lambda labels: np.eye(2)[labels])
    checked = samples[samples["split"] != "holdout"]
    runs = ("--runs", tmp_path / "runs")
    lines = run("--check-labels", "--study", "tones", *runs)
    assert (
        f"labels: {len(checked)} samples checked by trial 1 of study tones, each sample by a training without it"
        in "\n".join(lines)
    )
    assert "likely wrong: 0 of" in lines[-1]
    assert "100 % of the labels" in lines[-1]
    table = tmp_path / "labels.csv"
    swapped = checked["name"].iloc[5]
    with table.open("w", newline="") as file:
        rows = [[name, name.split("/")[0]] for name in samples["name"]]
        other = {"dark": "light", "light": "dark"}
        csv.writer(file).writerows(
            [["file", "label"], *([f"tones/{n}", other[c] if n == swapped else c] for n, c in rows)]
        )
    lines = run(table, "--check-labels", "--study", "tones", *runs)
    own = swapped.split("/")[0]
    assert lines[-1] == f"tones/{swapped} | {other[own]} | {own} | 0.900"


def test_what_is_likelier_of_its_own_class_is_not_named(folder, tmp_path, study_of):
    def predict(labels):
        """Gives class 1 little everywhere, and most of it to a sample of class 0, which so reaches its threshold."""
        of_one = np.where(labels == 1, 0.3, 0.1)
        of_one[np.flatnonzero(labels == 0)[0]] = 0.4
        return np.stack([1 - of_one, of_one], axis=1)

    study_of(folder, predict)
    assert "likely wrong: 0 of" in run("--check-labels", "--study", "tones", "--runs", tmp_path / "runs")[-1]


def test_mistakes_are_one_line(folder, weights, tmp_path, study_of):
    runs = ("--runs", tmp_path / "runs")
    with pytest.raises(
        SpecError, match=r"--labels-html x\.html is for the check of labels; give --check-labels as well"
    ):
        run(folder, "--labels-html", "x.html")
    with pytest.raises(SpecError, match="--study a is for the check"):
        run(folder, "--study", "a")
    with pytest.raises(SpecError, match="does nothing beside --study a"):
        run(folder, "--check-labels", "--study", "a", "--weights-dir", weights)
    with pytest.raises(SpecError, match=r"is a folder; name a file: .*labels\.html"):
        run(folder, "--check-labels", "--labels-html", tmp_path)
    with pytest.raises(StudyError, match="no study 'a' in"):
        run("--check-labels", "--study", "a", *runs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"no pretrained weights in .*empty or the hub's cache.*--weights-dir DIR"):
        run(folder, "--check-labels", "--weights-dir", tmp_path / "empty")
    _, place = study_of(folder, None)
    with pytest.raises(StudyError, match=r"tones has no predictions of its best trial, 1: .* a linear probe"):
        run("--check-labels", "--study", "tones", *runs)
    place.predictions.mkdir()
    (place.predictions / "0001.npz").write_bytes(b"PK torn")
    with pytest.raises(StudyError, match=r"cannot read the predictions .*0001\.npz"):
        run("--check-labels", "--study", "tones", *runs)
    np.savez(place.predictions / "0001.npz", rows=np.array([99]), probabilities=np.ones((1, 2)))
    with pytest.raises(StudyError, match="is not of this study, which has 48 samples of 2 classes"):
        run("--check-labels", "--study", "tones", *runs)


def test_a_folder_of_weights_that_is_none_is_refused_before_the_data_are_read():
    with pytest.raises(WeightsError, match="--weights-dir nosuch is not a folder"):
        run("nowhere", "--check-labels", "--weights-dir", "nosuch")
