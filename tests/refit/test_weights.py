import pytest
import torch
from torch import nn

from automl.refit.weights import BestWeights, MeanWeights, average_weights
from automl.training.types import Evaluation, Snapshot


def model_of(value):
    """One weight, and a BatchNorm with its statistics and count."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(model[0].weight, value)
    model[1].running_mean.fill_(value)
    model[1].num_batches_tracked.fill_(int(value))
    return model


def snapshot(eighth, value, auc=None):
    evaluation = Evaluation(eighth, 10 * eighth, eighth / 8, {"auc": auc}, 0.5, 1.0, 1.0) if auc is not None else None
    return Snapshot(eighth, 10 * eighth, eighth / 8, 0.5, 1.0, model_of(value), evaluation)


def test_the_mean_is_of_parameters_and_statistics_but_not_of_counts():
    mean = average_weights([model_of(value).state_dict() for value in (1, 2, 6)])
    assert mean["0.weight"].item() == 3
    assert mean["1.running_mean"].item() == 3
    assert mean["1.num_batches_tracked"].item() == 6
    assert {tensor.dtype for tensor in mean.values()} == {torch.float32, torch.int64}


def test_a_soup_is_of_the_last_eighths_even_when_a_killed_run_tells_one_again(tmp_path):
    for soup in (MeanWeights(tmp_path, 3), MeanWeights(tmp_path, 3)):  # the second one: after the kill
        for eighth in range(5, 8):
            soup.on_snapshot(snapshot(eighth, float(eighth)))
    soup.on_snapshot(snapshot(8, 8.0))
    assert soup.kept_weights(model_of(99))["0.weight"].item() == 7


@pytest.mark.parametrize("killed_after", [None, 2, 3, 4])
def test_the_best_weights_are_kept_and_end_the_run(tmp_path, killed_after):
    scores = {1: 0.6, 2: 0.8, 3: 0.8, 4: 0.7, 5: 0.9}
    best, ended = BestWeights(tmp_path, "auc", patience=2), None
    for eighth, auc in scores.items():
        best.on_snapshot(snapshot(eighth, float(eighth), auc))
        best.on_evaluation(snapshot(eighth, 0.0, auc).evaluation)  # fit tells it once more after the checkpoint
        if eighth == killed_after:
            best = BestWeights(tmp_path, "auc", patience=2)
            for earlier in range(1, eighth + 1):
                best.on_evaluation(snapshot(earlier, 0.0, scores[earlier]).evaluation)
        if best.ended:
            ended = eighth
            break
    assert ended == 4  # an equal score is no improvement
    assert best.last.eighth == 2
    assert best.kept_weights(None)["0.weight"].item() == 2


def test_a_metric_that_is_better_when_smaller(tmp_path):
    best = BestWeights(tmp_path, "eer", patience=1)
    for eighth, eer in ((1, 0.3), (2, 0.2), (3, 0.4)):
        evaluation = Evaluation(eighth, eighth, 0, {"eer": eer}, 0, 0, 0)
        best.on_snapshot(Snapshot(eighth, eighth, 0, 0, 0, model_of(float(eighth)), evaluation))
    assert best.ended
    assert best.kept_weights(None)["0.weight"].item() == 2
