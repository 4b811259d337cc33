import pytest

from automl.evaluation.comparison import Difference
from automl.evaluation.evaluation import Comparison
from automl.evaluation.tables import describe_calibration, describe_differences


def compare(one, other, value, p, metric="auc", corrected=None):
    return Comparison(one, other, metric, Difference(value, value - 0.1, value + 0.1, p, "bootstrap"), corrected)


@pytest.mark.parametrize(
    ("comparison", "sentence"),
    [
        (
            compare("one", "two", -0.0868, 0.1319),
            "two is better than one by 0.0868 in auc; with p = 0.1319 this may be chance",
        ),
        (
            compare("one", "two", 0.2, 1e-5),
            "one is better than two by 0.2000 in auc; with p < 0.0001 chance alone seldom gives so much",
        ),
        (
            compare("one", "two", 0.2, 0.04, "log_loss"),  # the less, the better
            "two is better than one by 0.2000 in log_loss; with p = 0.0400 chance alone seldom gives so much",
        ),
        (compare("one", "two", 0.0, 1.0), "one and two have the same auc"),
    ],
)
def test_the_sentence_names_the_better_model_and_what_p_means(comparison, sentence):
    assert describe_differences([comparison]) == sentence


def test_of_several_models_the_corrected_p_decides():
    pairs = [compare("a", "b", 0.2, 0.01, corrected=0.03), compare("a", "c", -0.1, 0.03, corrected=0.06)]
    assert describe_differences(pairs) == (
        "Chance alone seldom gives 1 of 2 differences in auc (p below 0.05); better: a than b"
    )
    assert describe_differences(pairs[1:] * 2) == "Each difference in auc may be chance (no p below 0.05)"


def test_a_verdict_on_calibration_needs_both_measures():
    assert describe_calibration("m", 0.046, 1.3) == (
        "m is too sure: mean confidence 0.046 above accuracy, best temperature 1.300"
    )
    assert describe_calibration("m", -0.046, 0.8).startswith("m is not sure enough: mean confidence 0.046 below")
    mixed = describe_calibration("m", 0.046, 0.821)
    assert mixed.startswith("m is too sure by one measure, not sure enough by the other: mean confidence 0.046 above")
    assert "best temperature 0.821 (accuracy counts answers as right or wrong" in mixed
