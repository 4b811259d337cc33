import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import roc_auc_score

from automl.errors import DataError, SpecError
from automl.models.combine import Fusion, fit_fusion

PROBABILITY = st.floats(0, 1)
WEIGHT = st.floats(0, 3)
NOTHING = np.array([[np.nan, np.nan]])


def of(*positive):
    """Scores (N, 2) of the positive class 1."""
    values = np.array(positive, dtype=float)
    return np.stack([1 - values, values], axis=1)


def fusion(face=1.0, mel=0.5, intercept=0.1, neutral=0.0):
    return Fusion({"face": face, "mel": mel}, {"face": 1.5, "mel": 1.0}, {"face": neutral, "mel": -0.4}, intercept)


def squashed(log_odds):
    return 1 / (1 + np.exp(-np.asarray(log_odds)))


def random_views(seed, clips, views, separation=2.0):
    """Views that tell classes apart a little, and do not see all clips."""
    random = np.random.default_rng(seed)
    labels = np.arange(clips) % 2
    scores = {}
    for number in range(views):
        found = of(*squashed(random.normal(separation * (labels - 0.5), 1)))
        found[random.random(clips) < 0.3] = np.nan
        scores[f"view{number}"] = found
    return scores, labels, dict.fromkeys(scores, 0.5)


# --- scoring


@given(WEIGHT, st.tuples(PROBABILITY, PROBABILITY), PROBABILITY, st.floats(-3, 3))
def test_more_of_a_view_is_never_less_of_the_whole(weight, both, other, neutral):
    low, high = sorted(both)
    one, two = (
        fusion(face=weight, neutral=neutral).join_scores({"face": of(p), "mel": of(other)})[0, 1] for p in (low, high)
    )
    assert two >= one
    if weight > 0.1 and low > 0.01 and low + 0.01 < high < 0.99 and 0.01 < one < 0.99:
        assert two > one


@given(WEIGHT, PROBABILITY, st.floats(-3, 3))
def test_a_view_that_sees_nothing_or_is_neutral_adds_nothing(weight, other, neutral):
    joined = fusion(face=weight, neutral=neutral)
    alone = Fusion({"mel": 0.5}, {"mel": 1.0}, {"mel": -0.4}, 0.1).join_scores({"mel": of(other)})
    assert joined.join_scores({"face": NOTHING, "mel": of(other)}) == pytest.approx(alone)
    assert joined.join_scores({"face": of(squashed(neutral)), "mel": of(other)}) == pytest.approx(alone)


@given(PROBABILITY, PROBABILITY, WEIGHT)
def test_scores_are_probabilities_of_either_class(face, mel, weight):
    joined = fusion(face=weight)
    found = joined.join_scores({"mel": of(mel), "face": of(face)})  # the order of the views does not matter
    assert found.sum(axis=1) == pytest.approx([1])
    assert ((found >= 0) & (found <= 1)).all()
    turned = joined.join_scores({"face": of(face)[:, ::-1], "mel": of(mel)[:, ::-1]}, positive=0)
    assert turned[:, ::-1] == pytest.approx(found)


def test_the_figures():
    """By hand: the log-odds of .8 are log 4, the neutral ones 0, and the weight of a unit of 1.5 is 3."""
    found = fusion(face=3.0, mel=1.0, intercept=0.0).join_scores({"face": of(0.8), "mel": NOTHING})
    assert found[0, 1] == pytest.approx(16 / 17)
    assert fusion(intercept=0.3).join_scores({"face": NOTHING, "mel": NOTHING})[0, 1] == pytest.approx(squashed(0.3))


def test_shares_sum_to_one():
    assert fusion(face=3.0, mel=1.0).weight_shares() == {"face": 0.75, "mel": 0.25}
    assert fusion(face=0.0, mel=0.0).weight_shares() == {"face": 0.5, "mel": 0.5}


@given(WEIGHT, WEIGHT, st.floats(-5, 5), st.floats(-5, 5))
def test_it_survives_json(face, mel, intercept, neutral):
    one = fusion(face, mel, intercept, neutral)
    assert TypeAdapter(Fusion).validate_json(json.dumps(asdict(one))) == one


@pytest.mark.parametrize(
    "values",
    [
        {"weights": {}, "scales": {}, "neutral": {}},
        {"neutral": {"mel": 0.5}},
        {"neutral": {"face": float("inf")}},
        {"scales": {"face": 0}},
        {"scales": {"mel": 1}},
        {"intercept": None},
        {"weights": {"face": float("nan")}},
        {"weights": {"face": -1}},
    ],
)
def test_damaged_json_is_refused(values):
    good = {"weights": {"face": 1}, "scales": {"face": 1}, "neutral": {"face": 0}, "intercept": 0}
    assert TypeAdapter(Fusion).validate_json(json.dumps(good)).weights == {"face": 1}
    with pytest.raises(ValidationError):
        TypeAdapter(Fusion).validate_json(json.dumps(good | values))


# --- learning


@given(st.integers(0, 10**6), st.integers(4, 40), st.integers(1, 5))
@settings(max_examples=40)
def test_weights_stay_small_however_few_clips_there_are(seed, clips, views):
    scores, labels, priors = random_views(seed, clips, views, separation=20.0)
    found = fit_fusion(scores, labels, priors)
    assert list(found.weights) == list(scores)
    weights = np.array(list(found.weights.values()))
    assert (weights >= 0).all()
    assert np.linalg.norm(weights - 0.5) <= np.sqrt(2 * clips * np.log(2) + views / 4) + 1e-3
    assert np.isfinite(found.join_scores(scores)).all()


def test_certain_and_perfect_views_do_not_blow_up():
    labels = np.array([0, 0, 1, 1])
    scores = {"face": of(0, 0, 1, 1), "mel": of(0, 0, 1, 1)}
    found = fit_fusion(scores, labels, {"face": 0.5, "mel": 0.5})
    assert all(0 < weight < 2 for weight in found.weights.values())
    assert found.weights["face"] == pytest.approx(found.weights["mel"], abs=1e-3)
    assert roc_auc_score(labels, found.join_scores(scores)[:, 1]) == 1


def test_a_calibrated_view_alone_stays_as_it_is_and_an_overconfident_one_is_corrected():
    random = np.random.default_rng(0)
    odds = random.normal(0, 2, 4000)
    labels = (random.random(4000) < squashed(odds)).astype(int)
    for scale in (0.1, 1.0, 3.0):
        scores = {"face": of(*squashed(scale * odds))}
        found = fit_fusion(scores, labels, {"face": 0.5})
        assert found.weights["face"] / found.scales["face"] == pytest.approx(1 / scale, rel=0.1)
        assert found.intercept == pytest.approx(0, abs=0.1)
        assert found.join_scores(scores)[:, 1] == pytest.approx(squashed(odds), abs=0.05)


def test_the_better_view_counts_more_and_noise_hardly():
    random = np.random.default_rng(1)
    labels = np.arange(400) % 2
    views = {
        name: of(*squashed(random.normal(lift * (labels - 0.5), 1)))
        for name, lift in {"good": 3.0, "fair": 1.0, "noise": 0.0}.items()
    }
    weights = fit_fusion(views, labels, dict.fromkeys(views, 0.5)).weights
    assert weights["good"] > weights["fair"] > weights["noise"]
    assert weights["noise"] < 0.3


def test_how_loud_a_view_is_does_not_matter_until_it_is_all_but_silent():
    random = np.random.default_rng(2)
    labels = np.arange(24) % 2
    odds = [random.normal(2 * (labels - 0.5), 1) for _ in range(2)]

    def fitted(loudness):
        views = {"a": of(*squashed(odds[0])), "b": of(*squashed(loudness * odds[1]))}
        return fit_fusion(views, labels, {"a": 0.5, "b": 0.5})

    assert fitted(0.2).weights == pytest.approx(fitted(1.0).weights, rel=1e-3)
    silent = fitted(1e-4)
    assert silent.scales["b"] == 0.05
    assert silent.weights["b"] == pytest.approx(0.5, abs=0.05)


def test_a_view_that_leans_to_one_side_is_not_held_against_the_clips_that_it_sees():
    """Both views are the same but for a constant; half of the clips are seen by the one that leans alone."""
    random = np.random.default_rng(4)
    labels = np.arange(400) % 2
    odds = random.normal(3 * (labels - 0.5), 1)
    straight, leaning = of(*squashed(odds)), of(*squashed(odds + 2))
    straight[:200] = leaning[200:] = np.nan
    scores = {"straight": straight, "leaning": leaning}
    found = fit_fusion(scores, labels, {"straight": 0.5, "leaning": 0.5})
    assert found.neutral["straight"] == pytest.approx(0, abs=0.3)
    assert found.neutral["leaning"] == pytest.approx(2, abs=0.3)
    assert roc_auc_score(labels, found.join_scores(scores)[:, 1]) == pytest.approx(
        roc_auc_score(labels, odds), abs=0.005
    )


def test_of_few_clips_the_shares_in_training_are_believed():
    scores, labels = {"face": of(0.7, 0.7, 0.9, 0.9, 0.2)}, np.array([0, 0, 1, 1, 1])
    neutral = [fit_fusion(scores, labels, {"face": prior}).neutral["face"] for prior in (0.3, 0.5)]
    assert neutral[0] < neutral[1]
    assert np.log(0.3 / 0.7) < neutral[0] < 0
    one_class = {"face": np.where(np.array([0, 0, 1, 1, 1])[:, None] > 0, scores["face"], np.nan)}
    assert fit_fusion(one_class, labels, {"face": 0.3}).neutral["face"] == pytest.approx(np.log(0.3 / 0.7))


def test_either_class_may_be_the_positive_one():
    scores, labels, priors = random_views(3, 40, 2)
    one = fit_fusion(scores, labels, priors)
    other = fit_fusion({view: found[:, ::-1] for view, found in scores.items()}, 1 - labels, priors, positive=0)
    assert other.weights == pytest.approx(one.weights)
    assert other.intercept == pytest.approx(one.intercept)


def test_a_view_that_is_the_wrong_way_round_does_not_count():
    random = np.random.default_rng(5)
    labels = np.arange(200) % 2
    odds = random.normal(2 * (labels - 0.5), 1, (2, 200))
    found = fit_fusion(
        {"face": of(*squashed(odds[0])), "mel": of(*squashed(-odds[1]))}, labels, {"face": 0.5, "mel": 0.5}
    )
    assert found.weights["mel"] == 0
    assert found.weights["face"] > 1
    assert found.weight_shares() == {"face": 1, "mel": 0}


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=20)
def test_the_weights_are_the_most_probable_ones(seed, views):
    """No step in any direction that is allowed makes likelihood times prior larger."""
    scores, labels, priors = random_views(seed, 20, views)
    found = fit_fusion(scores, labels, priors)

    def loss(weights, intercept):
        given = Fusion(dict(zip(scores, weights, strict=True)), found.scales, found.neutral, intercept).join_scores(
            scores
        )
        return -np.log(given[np.arange(20), labels]).sum() + np.square(np.subtract(weights, 0.5)).sum() / 2

    weights = np.array(list(found.weights.values()))
    least = loss(weights, found.intercept)
    for step in np.vstack([np.eye(views + 1), -np.eye(views + 1)]) * 0.01:
        assert loss(np.maximum(weights + step[:-1], 0), found.intercept + step[-1]) >= least - 1e-9


def test_of_a_view_that_sees_no_clip_nothing_is_learned():
    found = fit_fusion(
        {"face": of(0.2, 0.3, 0.7, 0.8), "mel": np.full((4, 2), np.nan)},
        np.array([0, 0, 1, 1]),
        {"face": 0.5, "mel": 0.5},
    )
    assert (found.weights["mel"], found.scales["mel"], found.neutral["mel"]) == (0.5, 1, 0)
    assert found.weights["face"] > 0


def test_what_cannot_be_learned_from():
    with pytest.raises(DataError, match="all 2 clips are of one"):
        fit_fusion({"face": of(0.1, 0.2)}, np.array([1, 1]), {"face": 0.5})
    with pytest.raises(SpecError, match="two classes"):
        fit_fusion({"face": np.full((2, 3), 1 / 3)}, np.array([0, 1]), {"face": 0.5})
