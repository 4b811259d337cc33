import json
import math
from dataclasses import replace

import pytest

from automl.features.screening import ScreeningRow
from automl.spec import StudySpec
from automl.study import screening
from automl.study.pool import Pool
from automl.study.screening import SHARE, describe_rows, plan_screening, screen_pool, store_rows
from automl.study.setup import load_setup
from tests.fixtures.frozen_backbones import write_weights
from tests.fixtures.studies import entry


def spec(timeout=None, **values):
    budget = {"timeout": timeout} if timeout else {}
    return StudySpec.from_mapping({"budget": budget, **values})


def pool(*scores, weights="file"):
    return Pool(tuple(entry(f"test_vit{number}", score=s, weights=weights) for number, s in enumerate(scores)))


@pytest.mark.parametrize(
    ("scores", "values", "seconds"),
    [
        ((1.0, 0.5), {}, 0),
        ((1.0, 0.5), {"screening": True}, 600),
        ((1.0, 0.5), {"screening": True, "timeout": "20m"}, SHARE * 1200),
        ((1.0, None), {"timeout": "20m"}, SHARE * 1200),
        ((1.0, None), {"timeout": "20m", "screening": False}, 0),
        ((None,), {"timeout": "20m"}, 0),
        ((1.0, None), {"timeout": "60s"}, 0),
        ((1.0, None), {"timeout": "9h"}, 600),
    ],
)
def test_it_takes_a_share_of_the_time_where_the_order_is_not_known(scores, values, seconds):
    assert plan_screening(spec(**values), pool(*scores)) == seconds


def test_backbones_without_weights_are_not_screened():
    assert plan_screening(spec(screening=True), pool(1.0, 0.5, weights=None)) == 0


@pytest.mark.slow
def test_the_pool_is_in_the_order_of_the_rows(new_study, tmp_path):
    names = ("test_resnet", "test_vit", "test_efficientnet")
    entries = tuple(
        entry(name, score=number, weights="file", weights_path=str(write_weights(tmp_path, name).path))
        for number, name in enumerate(names)
    )
    broken = entry("test_convnext", score=9.0, weights="file", weights_path=str(tmp_path / "missing.safetensors"))
    study, folder = new_study()
    setup = replace(load_setup(study, folder), pool=Pool((*entries, broken), ("a note",)))
    lines = []
    ordered, rows = screen_pool(setup, "cpu", 30, lines.append)
    assert [e.backbone for e in ordered.entries] == [row.backbone for row in rows]
    assert {e.backbone for e in ordered.entries} == {*names, "test_convnext"}
    assert ordered.notes == ("a note",)
    assert rows[-1].backbone == "test_convnext"
    assert rows[-1].reason
    scores = [row.score for row in rows[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert len(lines) == 4
    assert json.loads(json.dumps(store_rows(rows)))[-1]["score"] is None


def test_lines_for_a_person():
    rows = [
        ScreeningRow("a", 0.9, 0.01, "blocks.3", 0.8, 200, 3.0),
        ScreeningRow("b", 0.8, 0.02, "pre_logits", 0.7, 100, 2.0, cut_early=True),
        ScreeningRow("c", reason="it has no pretrained weights here"),
    ]
    assert math.isnan(rows[2].score)
    assert list(describe_rows(rows, "auc", 5.0, 90.0)) == [
        "screened 0: a · auc of a linear probe 0.900 ± 0.010 on 200 images · best layer blocks.3 · "
        "nearest neighbours 0.800 · 3.0s",
        "screened 1: b · auc of a linear probe 0.800 ± 0.020 on 100 images · best layer pre_logits · "
        "nearest neighbours 0.700 · 2.0s · cut early",
        "screened 2: c · not scored: it has no pretrained weights here",
        "screening took 5.0s of 1m30s allowed: the pool is in that order; --no-screening keeps the leaderboard's",
    ]


@pytest.mark.slow
def test_beside_a_gpu_another_process_screens(new_study, tmp_path, monkeypatch):
    monkeypatch.setattr(screening, "is_gpu", lambda _: True)
    names = ("test_resnet", "test_vit")
    entries = (entry(name, weights="file", weights_path=str(write_weights(tmp_path, name).path)) for name in names)
    study, folder = new_study()
    setup = replace(load_setup(study, folder), pool=Pool(tuple(entries)))
    ordered, rows = screen_pool(setup, "cpu", 30, print)
    assert {row.backbone for row in rows} == set(names)
    assert not any(row.reason for row in rows)
    assert [e.backbone for e in ordered.entries] == [row.backbone for row in rows]
