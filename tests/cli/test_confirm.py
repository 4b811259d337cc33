import re

import pytest
from typer.testing import CliRunner

from automl.cli.main import app
from automl.errors import SpecError, StudyError
from automl.study.confirm import Candidate, Confirmation, store_confirmation
from automl.training.intervals import Interval
from tests.fixtures.replicates import RECIPE


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


def confirmation(**given):
    recipes = [RECIPE, RECIPE.model_copy(update={"epochs": 2})]
    candidates = [
        Candidate(
            trial=number,
            search_value=0.95,
            seeds=(1, 2),
            validation=(0.9, 0.9 + 0.02 * number),
            mean=0.9 + 0.01 * number,
            recipe=recipe,
            predictions=(f"confirm/{number:04d}-1/predictions.npz", f"confirm/{number:04d}-2/predictions.npz"),
        )
        for number, recipe in enumerate(recipes)
    ]
    values = {
        "metric": "auc",
        "chosen": 1,
        "validation": Interval(0.91, 0.87, 0.95),
        "holdout": Interval(0.88, 0.81, 0.93),
        "validation_metrics": {"auc": 0.91, "accuracy": 0.8},
        "holdout_metrics": {"auc": 0.88, "accuracy": 0.75},
        "search_value": 0.95,
        "optimism": 0.07,
        "validation_optimism": 0.03,
        "interval_method": "95% percentile bootstrap (some papers)",
        "validation_samples": 400,
        "holdout_samples": 200,
        "times_scored": 1,
        "candidates": tuple(candidates),
    }
    return Confirmation(**(values | given))


def plain(text):
    return re.sub(r" +", " ", text)


def test_a_study_is_confirmed_and_shown(searched, untrained):
    folder = searched(0.9, 0.8, 0.7)
    found = run("confirm", "tones", "--top", 2, "--seeds", 2, "--timeout", "1h", "--runs", folder.path.parent)
    assert found.exit_code == 0, found.output
    assert sorted((one.trial, one.recipe.seed) for one in untrained) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    for part in ("2 recipes, 2 fresh seeds each", "4 of 4: trial 1", "confirmed: the recipe of trial", "holdout"):
        assert part in found.stdout
    assert f"written: {folder.confirmed}" in found.stdout
    assert f"automl train tones --runs {folder.path.parent}" in found.stdout
    again = run("confirm", "--runs", folder.path.parent)  # the latest study
    assert again.exit_code == 0
    assert "is confirmed already; --again" in again.stdout
    assert again.stdout.count("confirmed: the recipe of trial") == 1


def test_near_copies_are_one_line(searched):
    folder = searched(0.95, 0.95)
    store_confirmation(folder, confirmation(validation_copies=1, without_copies=0.87654))
    out = run("best", "tones", "--runs", folder.path.parent).stdout
    assert "\nvalidation auc 0.9100; without 1 near copy of training samples 0.8765\n" in out


def test_what_is_shown_of_a_confirmation(searched):
    folder = searched(0.95, 0.95)
    store_confirmation(folder, confirmation())
    found = plain(run("best", "tones", "--runs", folder.path.parent).stdout)
    for part in (
        "trial backbone seed 1 seed 2 mean auc in the search",
        "0 test_byobnet.r160_in1k 0.9000 0.9000 0.9000 ± 0.0000 0.9500",
        "1 test_byobnet.r160_in1k 0.9000 0.9200 0.9100 ± 0.0141 0.9500 chosen",
        "validation holdout",
        "samples 400 200",
        "auc 0.9100 0.8800",
        "95 % interval 0.8700 – 0.9500 0.8100 – 0.9300",
        "accuracy 0.8000 0.7500",
        "the search's 0.9500 by +0.0700, validation with fresh seeds by +0.0300",
        "95% percentile bootstrap (some papers)",
        "automl predict models/tones --data DIR --out submission.csv",
    ):
        assert part in found
    assert "automl confirm" not in found
    assert "no longer unseen" not in found
    assert "--again" not in found


def test_a_better_trial_since_is_named(searched):
    folder = searched(0.95, 0.95, 0.99)
    store_confirmation(folder, confirmation())
    found = run("best", "tones", "--runs", folder.path.parent)
    assert f"trial 2 is not in it; automl confirm tones --runs {folder.path.parent} --again" in found.stdout


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"times_scored": 2}, "the holdout was scored 2 times: it is no longer unseen"),
        (
            {"holdout": None, "optimism": None, "validation_optimism": None, "holdout_note": "holdout: none set aside"},
            "no holdout: none set aside; validation chose the recipe, so expect a lower score on new data",
        ),
    ],
)
def test_what_the_holdout_is_worth_is_said(searched, given, part):
    folder = searched(0.95, 0.95)
    store_confirmation(folder, confirmation(**given))
    assert part in run("best", "tones", "--runs", folder.path.parent).stdout


def test_nothing_is_shown_when_there_is_no_time(searched):
    folder = searched(0.9, seconds=100.0)
    found = run("confirm", "--timeout", "10s", "--runs", folder.path.parent)
    assert found.exit_code == 0
    told = r"not confirmed: .* again takes about 1m55s, and [\d.]+s are left; automl confirm tones --runs /"
    assert re.match(told, found.stdout)
    assert "next" not in found.stdout


def test_mistakes(searched, tmp_path):
    folder = searched(0.9)
    assert run("confirm", "--top", 0).exit_code == 2
    assert run("confirm", "--seeds", "many").exit_code == 2
    for given, error, message in (
        (["bees", "--runs", folder.path.parent], StudyError, "no study 'bees'"),
        (["--runs", tmp_path / "nowhere"], StudyError, "no studies in"),
        (["--runs", folder.path.parent, "--timeout", "soon"], SpecError, "not a duration: 'soon'"),
        (["--runs", folder.path.parent, "--device", "cuda:97"], StudyError, "no device 'cuda:97'"),
    ):
        found = run("confirm", *given)
        assert isinstance(found.exception, error), found.output
        assert message in str(found.exception)
