import re

import pytest
import yaml

from automl.backbones.input import InputSpec
from automl.models.card import find_weights_licence, render_model_card
from automl.models.folder import Labels
from automl.recipe import Recipe
from automl.recipe.augmentation import Augmentation
from automl.recipe.learning import Mixup

RECIPE = Recipe(backbone="mobilenetv2_100.ra_in1k", learning_rate=0.0025, mixing=Mixup(alpha=0.3))
LABELS = Labels(("real", "fake"), 1, (0.5, 0.5))
INPUTS = InputSpec(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
METRICS = {
    "trained_on": {"train": {"real": 600, "fake": 600}, "validation": 400},
    "metric": "auc",
    "validation": {"source": "confirm", "value": 0.97, "low": 0.95, "high": 0.985, "n": 400, "all": {"eer": 0.08}},
    "holdout": {"source": "this model", "value": 0.95, "low": 0.91, "high": 0.975, "n": 120, "all": {"eer": 0.1}},
    "training": {"seconds": 3700, "images_per_second": 41.25, "last_loss": 0.05, "epochs": 6.0, "steps": 900},
    "memory": {"predicted_bytes": 2_500_000_000, "measured_peak_bytes": 2_100_000_000, "device": "cuda:0"},
    "versions": {"torch": "2.15.0", "timm": "1.0.31"},
    "weights": {"source": "hub", "licence": "apache-2.0"},
}
DATA = {
    "name": "ffdi",
    "format": "ffdi",
    "counts": {"train": {"real": 600, "fake": 601}, "validation": {"real": 200, "fake": 200}},
    "groups": {"train": 300, "validation": 100},
}


def card(recipe=RECIPE, labels=LABELS, metrics=METRICS, data=DATA):
    return render_model_card(recipe, labels, INPUTS, metrics, data)


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def section(text, title):
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_front_matter_is_the_hubs():
    found = front(card())
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "timm/mobilenetv2_100.ra_in1k"
    assert (found["library_name"], found["pipeline_tag"]) == ("timm", "image-classification")
    assert "binary-classification" in found["tags"]


def test_metrics_say_what_they_were_measured_on():
    lines = section(card(), "Metrics").splitlines()
    validation = next(line for line in lines if line.startswith("| validation |"))
    assert "0.9700 | 0.9500 to 0.9850 | 400" in validation
    assert "automl confirm" in validation
    assert next(line for line in lines if line.startswith("| holdout |")).endswith("| this model |")
    assert "| eer | 0.0800 | 0.1000 |" in lines
    assert any(line.startswith("Optimism") and "+0.0200" in line for line in lines)


def test_optimism_of_a_metric_that_is_better_when_smaller():
    scores = {"metric": "log_loss", "validation": {"value": 0.2}, "holdout": {"value": 0.3}}
    assert "+0.1000" in section(card(metrics=scores), "Metrics")


def test_data_costs_recipe_and_versions():
    text = card()
    assert "| train | 1201 | 600 | 601 |" in section(text, "Data")
    assert "train 300, validation 100" in section(text, "Data")
    assert "train (real 600, fake 600), validation 400" in section(text, "Data")
    costs = section(text, "Memory and time")
    assert all(part in costs for part in ("predicted: 2.5GB", "measured: 2.1GB (cuda\\:0)", "1h01m", "41.25"))
    assert "| mixing | mixup (alpha 0.3, probability 1) |" in section(text, "Recipe")
    assert "| learning rate | 0.0025 |" in section(text, "Recipe")
    assert "torch 2.15.0" in section(text, "Versions")


def test_what_is_missing_is_left_out():
    text = card(metrics={}, data={})
    for title in ("Data", "Metrics", "Memory and time", "Versions"):
        assert f"## {title}" not in text
    assert "None" not in text
    partly = card(metrics=METRICS | {"holdout": None, "memory": {"predicted_bytes": None}, "training": None})
    assert "Optimism" not in partly
    assert "None" not in partly
    assert "## Memory and time" not in partly


def test_a_model_that_was_not_measured_says_so():
    assert "not measured" in section(card(metrics={"trained_on": {"train": 10}}), "Metrics")


def test_names_that_are_markup_stay_text():
    name = "a|b*c_\n# title\n---\n<script>[x](http://y)`\u202e"
    text = card(labels=Labels((name, "ok"), 0, (0.5, 0.5)), data={"name": "x: [\n- y", "counts": {"train": {name: 5}}})
    assert front(text)["pipeline_tag"] == "image-classification"
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        "# mobilenetv2\\_100.ra\\_in1k on x\\: \\[ - y"
    ]
    assert not re.search(r"(?<!\\)<script", text)
    assert not re.search(r"(?<!\\)\[x", text)
    assert "\u202e" not in text
    header, rule, row = (line for line in section(text, "Data").splitlines() if line.startswith("|"))
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in (header, rule, row)}) == 1


def test_many_classes_are_cut():
    names = tuple(f"class{i}" for i in range(300))
    text = card(labels=Labels(names, 299, (1 / 300,) * 300), data={"counts": {"train": dict.fromkeys(names, 3)}})
    assert "and 280 more" in text
    assert "| train | 900 | 3 |" in text
    assert "class299" not in text
    assert "one generator" not in section(text, "Limits")


@pytest.mark.parametrize("metrics", [{}, {"weights": {"source": None, "licence": "mit"}}])
def test_from_scratch_no_weights_bring_a_licence(metrics):
    recipe = RECIPE if metrics else RECIPE.model_copy(update={"pretrained": False})
    text = card(recipe, metrics=metrics)
    assert "license" not in front(text)
    assert "base_model" not in front(text)
    assert "trained from scratch" in text


def test_the_licence_comes_from_the_leaderboard_or_from_the_metrics():
    assert front(card(metrics={}))["license"] == "apache-2.0"
    odd = front(card(metrics={"weights": {"source": "hub", "licence": "cvnets-license"}}))
    assert (odd["license"], odd["license_name"]) == ("other", "cvnets-license")
    assert find_weights_licence("mobilenetv2_100") == find_weights_licence("mobilenetv2_100.ra_in1k") == "apache-2.0"
    assert find_weights_licence("no_such.weights") == "unknown"
    assert "user's matter" in section(card(), "Licence")


@pytest.mark.parametrize(
    ("crop", "said"), [("resize", "the middle square"), ("native", "the middle, not"), ("squash", "nothing cut off")]
)
def test_the_card_says_what_of_an_image_is_seen(crop, said):
    augmentation = Augmentation.model_validate({"crop": {"name": crop}})
    assert said in card(RECIPE.model_copy(update={"augmentation": augmentation}))
