import numpy as np
import pytest
from scipy.stats import norm

from automl.evaluation.comparison import compare_aucs, compare_replicates, correct_p, delong_covariance


def scores(n=60, seed=0, gain=0.4):
    """Truth, and the scores of two models that see partly the same."""
    random = np.random.default_rng(seed)
    truth = np.arange(n) % 2 == 1
    shared = random.normal(size=n) + truth
    return truth, shared + random.normal(size=n), shared + random.normal(size=n) + gain * truth


def test_hanley_and_mcneils_ratings():
    """109 CT images (Hanley & McNeil 1982, table I); Stata's roctab gives 0.8932 and, by DeLong, 0.0307 for them."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    ratings = np.concatenate([np.repeat(np.arange(5), counts) for counts in (normal, abnormal)]).astype(float)
    truth = np.arange(109) >= 58
    aucs, covariance = delong_covariance(truth, ratings[None])
    assert aucs[0] == pytest.approx(0.8932, abs=5e-5)
    assert np.sqrt(covariance[0, 0]) == pytest.approx(0.0307, abs=5e-5)


def test_it_is_what_delong_wrote():
    """Their U-statistics, pair by pair, with ties."""
    truth, one, other = scores()
    one, other = np.round(one, 1), np.round(other, 1)
    parts = []
    for score in (one, other):
        pairs = np.sign(score[truth][:, None] - score[~truth][None]) / 2 + 0.5
        parts.append((pairs.mean(), pairs.mean(axis=1), pairs.mean(axis=0)))
    of_hits, of_misses = (np.cov([part[k] for part in parts]) for k in (1, 2))
    covariance = of_hits / truth.sum() + of_misses / (~truth).sum()
    difference = parts[0][0] - parts[1][0]
    deviation = np.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1]))
    found = compare_aucs(truth, one, other)
    assert found.value == pytest.approx(difference)
    assert found.p == pytest.approx(2 * norm.sf(abs(difference) / deviation))
    assert (found.low, found.high) == pytest.approx(
        (difference - 1.959964 * deviation, difference + 1.959964 * deviation)
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_its_p_is_about_that_of_a_permutation_test(seed):
    """Models are exchanged sample by sample, after their scores became ranks (Venkatraman & Begg 1996)."""
    truth, one, other = scores(n=200, seed=seed, gain=0.25)
    ranks = np.stack([one, other]).argsort(axis=1).argsort(axis=1).astype(float)

    def difference(pair):
        aucs = delong_covariance(truth, pair)[0]
        return abs(aucs[0] - aucs[1])

    random, observed = np.random.default_rng(0), difference(ranks)
    swapped = [
        difference(np.where(random.random(200) < 0.5, ranks, ranks[::-1])) >= observed - 1e-12 for _ in range(2000)
    ]
    assert compare_aucs(truth, one, other).p == pytest.approx(np.mean(swapped), abs=0.03)


def test_equal_models_do_not_differ():
    truth, one, _ = scores()
    found = compare_aucs(truth, one, one * 2 + 1)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert compare_replicates(0.0, np.zeros(99)).p == 1


def test_p_is_uniform_where_there_is_no_difference():
    values = [compare_aucs(*scores(n=100, seed=seed, gain=0)).p for seed in range(300)]
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(values) == pytest.approx(0.5, abs=0.05)


def test_the_bootstrap_p_counts_the_smaller_side_twice():
    found = compare_replicates(0.2, np.array([-0.1, *np.linspace(0.01, 0.4, 98)]))
    assert found.p == pytest.approx(2 * 2 / 100)
    assert found.low < 0.2 < found.high


def test_holm():
    # sorted .01 .02 .03 .04, times 4 3 2 1, never falling
    assert correct_p([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert correct_p([0.6, 0.7]) == [1.0, 1.0]
    assert correct_p([0.2]) == [0.2]
