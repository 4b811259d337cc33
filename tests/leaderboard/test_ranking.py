import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automl.errors import SpecError
from automl.leaderboard import BOARDS, load_table, parse_boards, rank

# A busy machine is slow, not wrong.
patient = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
tops = st.one_of(st.integers(0, 100_000).map(lambda n: n / 1000), st.just(math.nan))


@st.composite
def tables(draw):
    size = draw(st.integers(1, 12))
    columns = {name: draw(st.lists(tops, min_size=size, max_size=size)) for name in (*BOARDS, "a_clean", "r_clean")}
    return pd.DataFrame({"model": [f"net{i}" for i in range(size)], "image_size": 224, **columns})


weights = st.dictionaries(st.sampled_from(BOARDS), st.floats(0.1, 10), min_size=1)


@patient
@given(tables(), weights, st.randoms())
def test_the_order_of_rows_does_not_matter(table, boards, random):
    order = list(range(len(table)))
    random.shuffle(order)
    pd.testing.assert_frame_equal(rank(table, boards), rank(table.iloc[order], boards))


@patient
@given(tables(), weights, st.floats(0.5, 3), st.floats(-20, 20))
def test_the_scale_of_a_board_does_not_matter(table, boards, factor, offset):
    name = next(iter(boards))
    rescaled = table.assign(**{name: table[name] * factor + offset})
    scores, others = (rank(rows, boards).set_index("model")["score"].sort_index() for rows in (table, rescaled))
    np.testing.assert_allclose(scores, others, atol=1e-6)


@patient
@given(tables(), weights, st.floats(0.1, 10))
def test_only_the_ratio_of_weights_matters(table, boards, factor):
    scaled = {name: weight * factor for name, weight in boards.items()}
    scores, others = (rank(table, b).set_index("model")["score"].sort_index() for b in (boards, scaled))
    np.testing.assert_allclose(scores, others, atol=1e-6)


@patient
@given(tables(), weights)
def test_a_score_is_missing_exactly_where_a_chosen_board_is_and_stands_last(table, boards):
    ranked = rank(table, boards)
    missing = ranked[list(boards)].isna().any(axis=1)
    assert (ranked["score"].isna() == missing).all()
    assert missing.is_monotonic_increasing
    assert ranked["score"].dropna().is_monotonic_decreasing
    assert sorted(ranked["model"]) == sorted(table["model"])


@patient
@given(tables())
def test_better_on_every_board_is_never_ranked_lower(table):
    ranked = rank(table).dropna(subset=["a", "r"]).reset_index(drop=True)
    for i, lower in ranked.iterrows():
        above = ranked.iloc[:i]
        assert not ((lower["a"] > above["a"] + 1e-3) & (lower["r"] > above["r"] + 1e-3)).any()


def test_the_default_is_a_and_r_alike_on_the_shipped_table():
    table = load_table()
    ranked = rank(table)
    a, r = ((ranked[n] - ranked[n].mean()) / ranked[n].std(ddof=0) for n in ("a", "r"))
    np.testing.assert_allclose(ranked["score"], (a + r) / 2, atol=1e-6)
    np.testing.assert_allclose(ranked["gap_r"], ranked["r_clean"] - ranked["r"], atol=1e-6)
    assert ranked["model"][0].startswith("eva02_large_patch14_448")
    assert "score" not in table


def test_parse_boards_reads_weights():
    assert parse_boards("a,r,sketch") == {"a": 1, "r": 1, "sketch": 1}
    assert parse_boards("a=2, r = 0.5") == {"a": 2, "r": 0.5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scetch", "valid, nearest first: sketch"),
        ("", "unknown board ''"),
        ("a,a", "twice"),
        ("a=x", "not a weight: 'a=x'"),
        ("a=0", "positive"),
        ("a=-1", "positive"),
        ("a=nan", "positive"),
        ("a=inf", "positive"),
    ],
)
def test_boards_that_cannot_be_read_are_refused(text, says):
    with pytest.raises(SpecError, match=says):
        parse_boards(text)


@patient
@given(st.text(max_size=30))
def test_any_text_is_boards_or_a_spec_error(text):
    try:
        boards = parse_boards(text)
    except SpecError:
        return
    assert set(boards) <= set(BOARDS)


def test_rank_refuses_no_board():
    with pytest.raises(SpecError, match="no board"):
        rank(load_table(), {})
