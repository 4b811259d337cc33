"""The studies of what validation predicts, and of how often intervals cover: their arithmetic."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from tests.fixtures.scripts import load_script

candidates = load_script("benchmarks/validation/candidates.py")
worlds = load_script("benchmarks/validation/worlds.py")
predict_unseen = load_script("benchmarks/validation/predict_unseen.py")
interval_coverage = load_script("benchmarks/validation/interval_coverage.py")
tables = load_script("benchmarks/validation/tables.py")


def test_auc_counts_pairs_that_are_ranked_right():
    assert candidates.compute_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.9])) == 0.875
    assert np.isnan(candidates.compute_auc(np.ones(3, int), np.arange(3.0)))


def test_features_are_rotated_without_what_is_unseen(tmp_path):
    random = np.random.default_rng(0)
    table = pd.DataFrame({"name": [str(i) for i in range(30)], "group": "", "domain": "", "copy": "none", "fake": 0})
    layers = {name: random.normal(size=(30, 8)).astype(np.float16) for name in ("blocks.2", "pre_logits")}
    rotated = []
    for factor in (1, 9):  # of samples that are not known
        layers["pre_logits"][20:] *= factor
        np.savez(tmp_path / "set-net.npz", **layers)
        world = candidates.World(table, tmp_path, "set")
        rotated.append(world.rotate_features(np.arange(20), np.arange(25))["net", "last"])
    np.testing.assert_allclose(rotated[0][:20], rotated[1][:20], atol=1e-5)
    assert rotated[0][:20].std(0) == pytest.approx(np.sort(rotated[0][:20].std(0))[::-1])
    np.testing.assert_allclose(np.corrcoef(rotated[0][:20].T), np.eye(8), atol=1e-3)


def test_selection_is_judged_by_what_it_loses():
    rho, regret, bias = tables.judge_selection(np.array([0.9, 0.8, 0.7]), np.array([0.6, 0.8, 0.5]))
    assert (rho, regret, bias) == (0.5, pytest.approx(0.2), pytest.approx(0.3))


def test_the_mean_weighs_what_is_unseen_alike():
    mean, low, high = tables.bootstrap_mean({("w", "a"): [0.1, 0.1, 0.1], ("w", "b"): [0.3]})
    assert (mean, low, high) == pytest.approx((0.2, 0.1, 0.3))


def test_delong_is_near_what_a_normal_model_gives():
    random, labels = np.random.default_rng(0), np.repeat([0, 1], 2000)
    low, high = interval_coverage.delong_interval(labels, (random.normal(size=4000) + 1.5 * labels)[:, None])
    assert low < norm.cdf(1.5 / 2**0.5) < high
    assert high - low == pytest.approx(0.0222, abs=0.002)  # Hanley & McNeil 1982: standard error .0057


def test_few_groups_make_a_wide_interval():
    random, labels = np.random.default_rng(1), np.tile([0, 1], 90)
    groups = np.repeat(["a", "b", "c"], 60)
    shift = np.repeat([0.5, 1.0, 2.0], 60)
    logits = (random.normal(size=180) + shift * labels)[:, None]
    apart = interval_coverage.delong_interval(labels, logits)
    for interval in (interval_coverage.delong_interval, interval_coverage.jackknife_interval):
        low, high = interval(labels, logits, groups)
        assert low < apart[0] < apart[1] < high


def test_an_exact_interval_covers_less_where_the_rest_is_small():
    assert tables.expect_coverage(10_000, 10**9) == pytest.approx(0.95, abs=1e-3)
    assert tables.expect_coverage(160, 840) == pytest.approx(0.928, abs=2e-3)


def test_photographs_are_dealt_out_whole():
    groups = np.repeat([f"photo {number}" for number in range(12)], 20)
    labels = np.tile([0, 1], 120)
    case = interval_coverage.Case("demo", (40, 20, 20), (4, 2, 2))
    parts = interval_coverage.deal_samples(labels, groups, case, np.random.default_rng(0))
    assert [len(part) for part in parts] == [40, 20, 20, 80]
    assert [len(set(groups[part])) for part in parts] == [4, 2, 2, 4]
    assert len(set().union(*(set(groups[part]) for part in parts))) == 12
    assert case.count_parts((240, 12)) == (2, 4)
