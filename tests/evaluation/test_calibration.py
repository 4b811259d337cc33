import numpy as np
import pytest

from automl.evaluation.calibration import measure_calibration


def test_the_error_is_computed_by_hand():
    positive = np.array([0.95, 0.95, 0.95, 0.95, 0.62, 0.62])
    labels = np.array([1, 1, 1, 0, 1, 0])
    found = measure_calibration(labels, np.stack([1 - positive, positive], axis=1))
    assert [(each.samples, each.accuracy) for each in found.bins] == [(2, 0.5), (4, 0.75)]
    assert found.ece == pytest.approx((2 * abs(0.62 - 0.5) + 4 * abs(0.95 - 0.75)) / 6)


def test_a_bin_holds_its_upper_end():
    found = measure_calibration(np.array([0]), np.array([[0.8, 0.2]]))  # 12 / 15
    assert (found.bins[0].low, found.bins[0].high) == pytest.approx((11 / 15, 12 / 15))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_logits_were_multiplied_with_comes_back(temperature):
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    hot = np.exp(logits * temperature)
    found = measure_calibration(labels, hot / hot.sum(axis=1, keepdims=True))
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.log_loss_at_temperature <= found.log_loss
    assert found.ece == pytest.approx(0, abs=0.02) if temperature == 1 else found.ece > 0.05
