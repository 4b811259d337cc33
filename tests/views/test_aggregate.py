import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from automl.views.aggregate import Maximum, Mean, TopShare, TrimmedMean, aggregate_scores, score_clips

WAYS = [Mean(), Maximum(), TrimmedMean(trim=0.25), TopShare(share=0.4)]


@st.composite
def images(draw):
    """Probabilities (K, C) of the images of a clip."""
    shape = draw(st.integers(1, 12)), draw(st.integers(2, 4))
    found = draw(arrays(np.float64, shape, elements=st.floats(0.01, 1)))
    return found / found.sum(axis=1, keepdims=True)


@given(probabilities=images(), how=st.sampled_from(WAYS), positive=st.integers(0, 1))
def test_a_score_is_a_distribution_between_its_images(probabilities, how, positive):
    score = aggregate_scores(how, probabilities, positive)
    assert score.shape == probabilities.shape[1:]
    assert score.sum() == pytest.approx(1)
    if len(score) == 2:
        low, high = probabilities[:, positive].min(), probabilities[:, positive].max()
        assert low - 1e-9 <= score[positive] <= high + 1e-9
        assert score[positive] <= aggregate_scores(Maximum(), probabilities, positive)[positive] + 1e-9


@given(probabilities=images(), how=st.sampled_from(WAYS), data=st.data())
def test_the_order_of_images_does_not_count(probabilities, how, data):
    order = data.draw(st.permutations(range(len(probabilities))))
    assert aggregate_scores(how, probabilities[order], 1) == pytest.approx(aggregate_scores(how, probabilities, 1))


@given(probability=images(), how=st.sampled_from(WAYS))
def test_one_image_is_its_own_score(probability, how):
    assert (aggregate_scores(how, probability[:1], 1) == probability[0]).all()


@pytest.mark.parametrize(
    ("how", "positive", "expected"),
    [
        (Mean(), 1, 0.5),
        (Maximum(), 1, 0.9),
        (Maximum(), 0, 0.9),
        (TrimmedMean(trim=0.2), 1, 0.5),
        (TrimmedMean(trim=0.49), 1, 0.5),
        (TopShare(share=0.4), 1, 0.8),
        (TopShare(share=0.41), 1, (0.9 + 0.7 + 0.5) / 3),
        (TopShare(share=0.01), 1, 0.9),
        (TopShare(share=1), 1, 0.5),
    ],
)
def test_known_scores(how, positive, expected):
    fake = np.array([0.5, 0.9, 0.1, 0.3, 0.7])
    score = aggregate_scores(how, np.stack([1 - fake, fake], axis=1), positive)
    assert score[positive] == pytest.approx(expected)


def test_a_trimmed_outlier_does_not_count():
    fake = np.array([0.2, 0.2, 0.2, 0.2, 1.0])
    score = aggregate_scores(TrimmedMean(trim=0.2), np.stack([1 - fake, fake], axis=1), 1)
    assert score[1] == pytest.approx(0.2)


def test_a_clip_without_images_has_the_prior():
    found = score_clips(Mean(), np.array([[0.2, 0.8], [0.4, 0.6]]), np.array([0, 2, 0]), 1, np.array([0.25, 0.75]))
    assert found == pytest.approx(np.array([[0.25, 0.75], [0.3, 0.7], [0.25, 0.75]]))


def test_image_files_are_as_they_were():
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 5)
    assert (score_clips(Maximum(), probabilities, np.ones(5, dtype=int), 1, np.zeros(0)) == probabilities).all()
