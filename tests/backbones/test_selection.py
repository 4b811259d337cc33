import fnmatch
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automl.backbones.ranking import rank_table
from automl.backbones.selection import build_filters, explain_no_rows, find_backbones, select_rows
from automl.backbones.table import load_table
from automl.errors import PoolError, SpecError

# A busy machine is slow, not wrong.
patient = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
TABLE = rank_table(load_table())


@pytest.mark.parametrize(
    "pattern", ["convnext*", "*.fb_in22k*", "resnet50", "resnet50.a1_in1k", "vit_?ase*", "eva0[12]*"]
)
def test_wildcards_match_architecture_or_name(pattern):
    kept = select_rows(TABLE, [pattern])
    assert not kept.empty
    for model in TABLE["model"]:
        expected = any(fnmatch.fnmatchcase(name, pattern) for name in (model, model.partition(".")[0]))
        assert expected == (model in set(kept["model"]))


def test_several_wildcards_add_up():
    both = select_rows(TABLE, ["resnet18", "resnet34"])
    assert set(both["model"]) == set(select_rows(TABLE, ["resnet18"])["model"]) | set(
        select_rows(TABLE, ["resnet34"])["model"]
    )


@patient
@given(
    st.sampled_from([None, 0.5, 5.0, 88.6]),
    st.sampled_from([None, 224, 384]),
    st.sampled_from([None, "convnext", "resnet"]),
    st.sampled_from(["any", "commercial"]),
)
def test_every_filter_holds_and_the_order_stays(max_params, image_size, family, licence):
    kept = select_rows(TABLE, max_params=max_params, image_size=image_size, family=family, licence=licence)
    assert max_params is None or (kept["params_m"] <= max_params).all()
    assert image_size is None or (kept["image_size"] == image_size).all()
    assert family is None or (kept["family"] == family).all()
    assert list(kept.index) == list(range(len(kept)))
    assert kept["score"].dropna().is_monotonic_decreasing


def test_commercial_leaves_out_what_is_not_known_to_be_allowed():
    licences = set(select_rows(TABLE, licence="commercial")["licence"])
    assert {"apache-2.0", "mit", "bsd-3-clause"} <= licences
    assert not [name for name in licences if "nc" in name or name in {"", "unknown"} or name.endswith("-license")]


def test_no_filter_keeps_everything():
    assert len(select_rows(TABLE)) == len(TABLE)
    assert build_filters(TABLE) == {}


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"family": "convnet"}, "unknown family 'convnet'; valid, nearest first: convnext"),
        ({"licence": "comercial"}, "nearest first: commercial"),
        ({"max_params": 0}, "--max-params must be positive"),
        ({"max_params": float("nan")}, "--max-params must be positive"),
        ({"image_size": -1}, "--image-size must be positive"),
    ],
)
def test_mistakes_are_named(chosen, says):
    with pytest.raises(SpecError, match=says):
        select_rows(TABLE, **chosen)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"names": ["convnex9*"]}, "names convnex9.*keeps none; near: .*convnext"),
        ({"max_params": 0.01}, "the smallest has 0.27 million"),
        ({"family": "eva", "image_size": 225}, "after --family eva .* --image-size 225 keeps none; they have: 224"),
        ({"names": ["regnety_1280.swag*"], "licence": "commercial"}, "--licence commercial keeps none; .*cc-by-nc-4.0"),
    ],
)
def test_the_filter_that_leaves_nothing_is_named(chosen, says):
    assert re.search(says, explain_no_rows(TABLE, build_filters(TABLE, **chosen)))
    assert select_rows(TABLE, **chosen).empty


def test_nothing_is_said_while_rows_are_left():
    assert explain_no_rows(TABLE, build_filters(TABLE, ["resnet*"], max_params=30)) is None


def test_a_wildcard_means_the_leaderboard_or_else_encoders():
    assert find_backbones(["test_vit.*", "*tipsv2*"])[-4:] == [
        "vit_base_patch14_reg1_tipsv2.webli",
        "vit_giant_patch14_reg1_tipsv2.webli",
        "vit_large_patch14_reg1_tipsv2.webli",
        "vit_so400m_patch14_reg1_tipsv2.webli",
    ]
    assert set(find_backbones(["convnextv2_atto*"])) <= set(TABLE["model"])
    with pytest.raises(PoolError, match="names nosuchnet"):
        find_backbones(["nosuchnet*"])
