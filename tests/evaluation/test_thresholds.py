import numpy as np
import pytest

from automl.errors import SpecError
from automl.evaluation.thresholds import apply_threshold, choose_threshold
from automl.models.folder import ValidationScores

KEPT = ValidationScores("this model", {"real": tuple(np.arange(100) / 100), "fake": (0.5, 0.985, 0.99)}, "fake")


@pytest.mark.parametrize(("fpr", "value"), [(0.01, 0.98), (0.05, 0.94), (0.001, 0.99), (0.29, 0.70)])
def test_at_most_so_many_negatives_are_above(fpr, value):
    negatives = KEPT.scores["real"]
    found = choose_threshold(negatives, fpr)
    assert found == pytest.approx(value)
    assert (np.array(negatives) > found).mean() <= fpr


def test_equal_scores_are_not_taken_for_different():
    assert choose_threshold([0.9] * 5 + [0.1] * 95, 0.03) == 0.9


@pytest.mark.parametrize("fpr", [0, 1, -0.1, 2, float("nan")])
def test_a_rate_is_between_0_and_1(fpr):
    with pytest.raises(SpecError, match=r"--fpr .* between 0 and 1"):
        choose_threshold([0.1], fpr)


def test_its_effect_on_other_samples():
    labels, scores = np.array([0, 0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.99, 0.985, 0.99, 0.2])
    found = apply_threshold(KEPT, ("real", "fake"), 1, labels, scores, 0.01)
    assert (found.false_positives, found.negatives, found.true_positives, found.positives) == (2, 4, 1, 2)
    assert (found.fpr, found.tpr) == (0.5, 0.5)
    assert (found.validation_negatives, found.validation_fpr) == (100, 0.01)
    assert found.validation_tpr == pytest.approx(2 / 3)


def test_samples_of_one_class_and_none_to_choose_by():
    found = apply_threshold(KEPT, ("real", "fake"), 1, np.array([1]), np.array([0.99]), 0.01)
    assert (found.fpr, found.tpr) == (None, 1)
    nothing = ValidationScores("this model", {"real": (), "fake": (0.1,)}, "fake")
    assert apply_threshold(nothing, ("real", "fake"), 1, np.array([1]), np.array([0.9]), 0.01) is None


def test_a_model_with_another_positive_class():
    turned = ValidationScores("m", {name: tuple(1 - np.array(each)) for name, each in KEPT.scores.items()}, "real")
    found = apply_threshold(turned, ("real", "fake"), 1, np.array([0]), np.array([0.985]), 0.01)
    assert found.value == pytest.approx(0.98)
