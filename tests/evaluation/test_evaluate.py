import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import automl
from automl.errors import DataError, SpecError, WeightsError
from automl.models.folder import make_validation_scores, write_ensemble, write_validation_scores
from automl.models.trained_on import write_trained_on
from automl.training.metrics import compute_metric
from automl.views.mel import Mel
from tests.fixtures.models import write
from tests.fixtures.reporter import RecordingReporter
from tests.fixtures.view_clips import background, tone, write_clip


def draw_set(folder, count=24, broken=(), generators=("", "gan", "", "diffusion"), label=("real", "fake")):
    """Images of noise with a label file; fakes are brighter."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["file,label,generator,clip"]
    for k in range(count):
        pixels = random.integers(0, 160, (40, 40, 3)) + 60 * (k % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"images/{k:02}.png")
        if k in broken:
            (folder / f"images/{k:02}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        rows.append(f"{k:02}.png,{label[k % 2]},{generators[k % len(generators)]},{k // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of random weights, the first of which has validation scores."""
    folder = tmp_path_factory.mktemp("models")
    one = write(folder / "one").path
    two = write(folder / "two", backbone="test_vit").path
    labels, score = np.arange(40) % 2, np.linspace(0.3, 0.7, 40)
    probabilities = [np.stack([1 - score, score], axis=1)]
    write_validation_scores(one, make_validation_scores("this model", labels, probabilities, ("real", "fake"), 1))
    return [one, two]


@pytest.fixture(scope="module")
def result(models, tmp_path_factory):
    """An evaluation of both with everything there is."""
    folder = tmp_path_factory.mktemp("set")
    data = {"path": draw_set(folder, broken=[5]), "group_column": "clip"}
    reporter = RecordingReporter()
    found = automl.evaluate(
        models, data, by=["generator"], out=folder / "out", device="cpu", fpr=0.1, reporter=reporter
    )
    return found, reporter.lines


def test_values_are_those_of_predictions(models, result):
    found, _ = result
    table = automl.load(models[1], "cpu").predict(found.samples.table["path"].tolist())
    probabilities = table[["real", "fake"]].to_numpy()
    assert np.abs(found.models[1].probabilities - probabilities).max() < 1e-6
    for name in ("auc", "accuracy", "log_loss", "eer"):
        wanted = compute_metric(name, found.samples.labels, probabilities, 1)
        assert found.models[1].measured.values[name].value == pytest.approx(wanted)
    assert found.metric == "auc"
    assert [model.name for model in found.models] == ["one", "two"]


def test_a_file_that_cannot_be_read_is_named_and_left_out(result):
    found, lines = result
    assert list(found.unreadable) == ["05.png"]
    assert len(found.samples.table) == 23
    assert any(line.startswith("warning: 1 image left out that cannot be read: 05.png (") for line in lines)


def test_two_models_are_compared_over_groups(result):
    found, _ = result
    by_metric = {one.metric: one.difference for one in found.comparisons}
    values = [model.measured.values["auc"].value for model in found.models]
    assert by_metric["auc"].value == pytest.approx(values[0] - values[1])
    assert by_metric["auc"].method == "bootstrap"  # samples of a group are not independent
    assert all(one.corrected_p is None for one in found.comparisons)
    assert found.groups.groups == 12
    assert "leaving out each of 12 groups, Student's t" in found.interval_method


def test_the_threshold_is_the_models_own(result):
    found, _ = result
    one, two = (model.threshold for model in found.models)
    assert two is None
    assert any(line.startswith("no threshold for two: its folder has no validation scores") for line in found.notes)
    assert one.validation_negatives == 20
    assert one.validation_fpr == 0.1
    scores = found.models[0].probabilities[:, 1]
    assert one.false_positives == ((scores > one.value) & (found.samples.labels == 0)).sum()


def test_what_is_written(result):
    found, _ = result
    metrics = json.loads((found.folder / "metrics.json").read_text())
    assert metrics["data"]["samples"] == 23
    assert metrics["data"]["classes"] == {"fake": 11, "real": 12} == dict(sorted(metrics["data"]["classes"].items()))
    assert metrics["models"]["one"]["metrics"]["auc"]["value"] == found.models[0].measured.values["auc"].value
    assert [part["value"] for part in metrics["by"]["generator"]] == ["(empty)", "diffusion", "gan"]
    assert metrics["by"]["generator"][1]["compared_with"] == "all 12 of class real"
    table = pd.read_csv(found.folder / "predictions.csv", keep_default_na=False)
    assert list(table) == ["name", "label", "group", "generator", "one", "two"]
    assert table["one"].to_numpy() == pytest.approx(found.models[0].probabilities[:, 1])
    assert table["label"].value_counts().to_dict() == {"real": 12, "fake": 11}


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.scripts = [], "", []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        inside = self.tags[-1][0] if self.tags else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside != "style":
            self.text += data


def test_the_page_is_whole(result):
    found, _ = result
    text = (found.folder / "index.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    sources = [value for _, each in page.tags for name, value in each.items() if name in ("src", "href")]
    assert sources
    assert all(value.startswith("data:image/jpeg;base64,") for value in sources)
    assert sum(len(script) > 1_000_000 for script in page.scripts) == 1  # Plotly, once
    assert "default-src 'none'" in text
    figures = [each for tag, each in page.tags if tag == "figure"]
    assert len(figures) == 6  # ROC, scores, calibration, by generator, and two confusion matrices
    assert all(re.search(r"\d", each["aria-label"]) for each in figures)
    assert all(each["alt"] for tag, each in page.tags if tag == "img")
    assert "prefers-color-scheme: dark" in text
    assert {"viewport"} <= {each.get("name") for tag, each in page.tags if tag == "meta"}
    assert len(text) < 2_500_000  # Plotly, compressed, is most of it


@pytest.mark.slow
def test_a_browser_draws_the_page(result, browser):
    with browser(result[0].folder / "index.html", width=390) as opened:
        opened.wait_for_figures()
        assert opened.page.locator(".plot .main-svg").count() >= 6
        assert (opened.errors, opened.requests) == ([], [])


def test_nothing_is_overwritten_unasked(models, tmp_path):
    data, out = draw_set(tmp_path / "set", count=4), tmp_path / "out"
    given = {"out": out, "device": "cpu", "reporter": RecordingReporter()}
    automl.evaluate(models[0], data, **given)
    with pytest.raises(DataError, match="holds an evaluation; choose another --out, or --overwrite it"):
        automl.evaluate(models[0], data, **given)
    assert automl.evaluate(models[0], data, overwrite=True, **given).folder == out
    for folder in (tmp_path / "set", data):
        with pytest.raises(DataError, match=r"is not empty and holds no evaluation|it is a file"):
            automl.evaluate(models[0], data, overwrite=True, **given | {"out": folder})


def test_three_samples_have_no_interval(models, tmp_path):
    found = automl.evaluate(models, draw_set(tmp_path, count=3), device="cpu", reporter=RecordingReporter())
    assert "no intervals: a class has 1 sample, fewer than 5" in found.notes
    assert found.models[0].measured.values["auc"].low is None
    assert found.comparisons == ()


def test_one_class_alone_has_no_auc(models, tmp_path):
    data = draw_set(tmp_path, count=12, label=("fake", "fake"))
    found = automl.evaluate(models[0], data, device="cpu", reporter=RecordingReporter(), out=tmp_path / "out")
    assert found.metric == "accuracy"
    note = next(line for line in found.notes if line.startswith("not computed: auc"))
    assert "all 12 samples are of class" in note
    assert found.models[0].measured.values["accuracy"].low is not None
    assert (tmp_path / "out/index.html").is_file()


def test_groups_are_joined_and_independent_samples_are_tested_by_delong(models, tmp_path):
    found = automl.evaluate(models, draw_set(tmp_path), device="cpu", reporter=RecordingReporter())
    assert found.groups is None
    assert {one.metric: one.difference.method for one in found.comparisons}["auc"] == "DeLong"


def test_three_models_are_corrected_for(models, tmp_path):
    third = write(tmp_path / "three", backbone="test_resnet").path
    found = automl.evaluate([*models, third], draw_set(tmp_path / "set"), device="cpu", reporter=RecordingReporter())
    of_auc = [one for one in found.comparisons if one.metric == "auc"]
    assert [(one.one, one.other) for one in of_auc] == [("one", "two"), ("one", "three"), ("two", "three")]
    assert all(one.corrected_p >= one.difference.p for one in of_auc)


def test_the_order_of_a_models_classes_does_not_matter(models, tmp_path):
    turned = write(tmp_path / "turned", classes=("fake", "real")).path
    found = automl.evaluate([models[0], turned], draw_set(tmp_path / "set"), device="cpu", reporter=RecordingReporter())
    table = automl.load(turned, "cpu").predict(found.samples.table["path"].tolist())
    assert np.abs(found.models[1].probabilities[:, 1] - table["fake"]).max() < 1e-6


def test_three_classes(tmp_path):
    model = write(tmp_path / "model", classes=("ant", "bee", "fly")).path
    folder = tmp_path / "set"
    for k, name in enumerate(("ant", "bee", "fly") * 6):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (12 * k, 90, 0)).save(folder / name / f"{k}.png")
    found = automl.evaluate(model, folder, device="cpu", out=tmp_path / "out", reporter=RecordingReporter())
    assert found.metric == "auc"  # the model's own
    assert set(found.predictions) == {"name", "label", "model: ant", "model: bee", "model: fly", "model: predicted"}
    assert found.models[0].roc is None
    assert (tmp_path / "out/index.html").is_file()


def test_mistakes_are_one_line(models, tmp_path):
    data = draw_set(tmp_path / "set", count=4)
    other = write(tmp_path / "other", classes=("cat", "dog")).path
    given = {"device": "cpu", "reporter": RecordingReporter()}
    for arguments, options, error, message in (
        (([], data), {}, SpecError, "give one model folder or several"),
        (([models[0], models[0]], data), {}, SpecError, "several different ones"),
        ((models, None), {}, SpecError, "--data"),
        ((models, {"path": data, "positive_class": "real"}), {}, SpecError, "positive_class of data"),
        ((models, {"path": data, "colour": 1}), {}, SpecError, "colour"),
        ((models, data), {"fpr": 1.5}, SpecError, "--fpr 1.5"),
        ((models, data), {"tta": "spin"}, SpecError, "spin"),
        ((models, data), {"rename_label": ["0"]}, SpecError, "write OLD=NEW"),
        ((models, data), {"degrade": "jpg*"}, SpecError, "no degradation is named 'jpg"),
        ((models, data), {"degrade_samples": 0}, SpecError, "--degrade-samples 0"),
        (([models[0], other], data), {}, WeightsError, "one has real, fake, .*other has cat, dog"),
        ((tmp_path / "nothing", data), {}, WeightsError, "no model in"),
        ((models, tmp_path / "nothing"), {}, DataError, "no such file or folder"),
    ):
        with pytest.raises(error, match=message) as caught:
            automl.evaluate(*arguments, **given | options)
        assert "\n" not in str(caught.value)


def test_images_that_cannot_be_read_at_all(models, tmp_path):
    with pytest.raises(DataError, match="none of 4 images can be read"):
        automl.evaluate(
            models[0], draw_set(tmp_path, count=4, broken=range(4)), device="cpu", reporter=RecordingReporter()
        )


def test_names_on_the_page_are_escaped(tmp_path):
    name = "<script>alert(1)</script>"
    model = write(tmp_path / "m", classes=("a", name)).path
    rows = "".join(f"{k:02}.png,{(name, 'a')[k % 2]},{name}\n" for k in range(12))
    data = draw_set(tmp_path / "set", count=12)
    data.write_text(f"file,label,kind\n{rows}")
    automl.evaluate(model, data, by="kind", device="cpu", out=tmp_path / "out", reporter=RecordingReporter())
    text = (tmp_path / "out/index.html").read_text()
    assert name not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


@pytest.mark.slow
def test_degraded_copies(models, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("AUTOML_CACHE", str(cache))
    (tmp_path / "own.yaml").write_text(
        "image:\n"
        "  - {name: same, steps: [{operation: brightness, factor: 1}]}\n"
        "  - {name: dark, steps: [{operation: brightness, factor: 0.05}]}\n"
        "sound:\n  - {name: mp3, steps: [{operation: mp3, kilobits: 32}]}\n"
    )
    reporter = RecordingReporter()
    found = automl.evaluate(
        models,
        draw_set(tmp_path / "set"),
        degrade=tmp_path / "own.yaml",
        degrade_samples=20,
        out=tmp_path / "out",
        device="cpu",
        reporter=reporter,
    )
    robust = found.robustness
    assert [one.name for one in robust.degradations] == ["same", "dark"]
    assert (robust.samples, robust.of) == (20, 24)
    same, dark = robust.degradations
    assert same.drops == (0, 0)
    assert same.metrics == robust.clean
    assert dark.drops[0] == pytest.approx(robust.clean[0].value - dark.metrics[0].value)
    assert robust.mean[0] == pytest.approx((same.metrics[0].value + dark.metrics[0].value) / 2)
    assert robust.worst_values[0] == min(same.metrics[0].value, dark.metrics[0].value)
    assert any(f"20 of 24 samples in 2 ways; the copies lie in {cache}" in line for line in reporter.lines)
    assert not list(cache.glob("degraded-*"))
    assert "Degraded copies" in (tmp_path / "out/index.html").read_text()


@pytest.mark.slow
def test_clips_that_show_nothing_have_the_prior(tmp_path):
    model = write(tmp_path / "model", view=Mel(count=2)).path
    for k in range(4):
        folder = tmp_path / "set" / ("real", "fake")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_clip(folder / f"{k}.mkv", [background()] * 4, None if k == 3 else tone(0.4))
    reporter = RecordingReporter()
    result = automl.evaluate(model, tmp_path / "set", device="cpu", out=tmp_path / "out", reporter=reporter)
    assert len(result.samples.table) == 4
    assert result.unreadable == {}
    (row,) = result.models[0].unseen
    assert result.samples.table["name"][row] == "fake/3.mkv"
    assert result.models[0].probabilities[row].tolist() == [0.5, 0.5]
    assert "model sees nothing of 1 file, scored by the training prior: fake/3.mkv" in reporter
    with pytest.raises(DataError, match=r"was trained on image files, and .* holds video files"):
        automl.evaluate(write(tmp_path / "images").path, tmp_path / "set", device="cpu", reporter=reporter)


def test_samples_that_a_model_was_trained_on_are_counted_in_a_warning(models, tmp_path):
    labels, model = draw_set(tmp_path / "set"), tmp_path / "learned"
    shutil.copytree(models[0], model)
    files = sorted((tmp_path / "set/images").iterdir())
    write_trained_on(model, files[:18])
    copy = tmp_path / "elsewhere"
    shutil.copytree(labels.parent, copy)
    reporter = RecordingReporter()
    found = automl.evaluate(model, copy / "labels.csv", out=tmp_path / "out", device="cpu", reporter=reporter)
    line = f"18 of 24 samples have the name and size of files that {model} was trained on: its figures are too good"
    where = reporter.lines.index(f"warning: {line}")
    assert where < next(k for k, each in enumerate(reporter.lines) if each.startswith("predicting"))
    assert line in found.warnings
    assert line in json.loads((tmp_path / "out/metrics.json").read_text())["warnings"]
    assert line in (tmp_path / "out/index.html").read_text()


def test_a_model_that_learned_from_other_files_has_no_warning_and_an_old_one_a_note(models, tmp_path):
    labels, model = draw_set(tmp_path / "set"), tmp_path / "learned"
    shutil.copytree(models[0], model)
    write_trained_on(model, [labels])
    found = automl.evaluate([model, models[1]], labels, device="cpu", reporter=RecordingReporter())
    assert found.warnings == ()
    (line,) = (line for line in found.notes if "was trained on these samples is not known" in line)
    assert line.startswith(f"whether {models[1]} was trained")


def test_an_ensemble_has_learned_what_its_members_have(models, tmp_path):
    labels, ensemble = draw_set(tmp_path / "set"), tmp_path / "both"
    files = sorted((tmp_path / "set/images").iterdir())
    for model, learned in zip(models, (files[:3], files[2:6]), strict=True):
        shutil.copytree(model, ensemble / model.name)
        write_trained_on(ensemble / model.name, learned)
    write_ensemble(ensemble, {model.name: 0.5 for model in models})
    found = automl.evaluate(ensemble, labels, device="cpu", reporter=RecordingReporter())
    assert found.warnings[0].startswith("6 of 24 samples have the name and size")


def test_missing_data_are_reported_before_missing_weights(models, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(models[0], model)
    (model / "base.json").write_text(json.dumps({"backbone": "test_byobnet.r160_in1k", "sha256": "0" * 64}))
    (model / "model.safetensors").write_bytes(b"")  # read last, as the pretrained weights would be fetched
    with pytest.raises(DataError, match=r"none\.csv"):
        automl.evaluate(model, tmp_path / "none.csv", device="cpu", reporter=RecordingReporter())
    with pytest.raises(WeightsError):
        automl.evaluate(model, draw_set(tmp_path / "set"), device="cpu", reporter=RecordingReporter())
