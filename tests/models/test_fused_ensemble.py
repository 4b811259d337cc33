import json

import pytest

from automl.errors import StudyError
from automl.models.combine import Fusion
from automl.models.fused_ensemble import FusedEnsemble, FusedMember, Scored
from automl.refit.fused_ensemble import load_fused_ensemble, store_fused_ensemble
from automl.study.folder import StudyFolder
from automl.training.intervals import Interval
from tests.fixtures.clips_study import FRAME, MEL, recipe


def scored(value):
    return Scored(interval=Interval(value, value - 0.1, value + 0.05), metrics={"auc": value})


def ensemble(**given):
    members = [
        FusedMember(
            name=view.name,
            trial=trial,
            search_value=0.9,
            recipe=recipe(view),
            seen=100 - trial,
            train_samples=60,
            validation=scored(0.8),
            holdout=scored(0.75),
        )
        for trial, view in ((3, FRAME), (5, MEL))
    ]
    points = {"frame": 1.0, "mel": 1.0}
    values = {
        "metric": "auc",
        "members": tuple(members),
        "fusion": Fusion({"frame": 1.25, "mel": 0.5}, points, points, 0.0),
        "validation": scored(0.9),
        "holdout": scored(0.85),
        "samples": 100,
        "validation_samples": 20,
        "holdout_samples": 10,
        "interval_method": "95% percentile bootstrap (some papers)",
        "times_scored": 1,
    }
    return FusedEnsemble(**(values | given))


def test_it_comes_back_from_the_disk(tmp_path):
    folder = StudyFolder(tmp_path / "clips")
    assert load_fused_ensemble(folder) is None
    for found in (ensemble(), ensemble(holdout=None, holdout_note="holdout: none")):
        store_fused_ensemble(folder, found)
        assert load_fused_ensemble(folder) == found


def test_a_record_of_a_version_that_joined_views_alone_is_read(tmp_path):
    folder = StudyFolder(tmp_path)
    store_fused_ensemble(folder, ensemble())
    record = json.loads(folder.ensemble.read_text())
    del record["by"]
    for member in record["members"]:
        member["view"] = member.pop("name")
    folder.ensemble.write_text(json.dumps(record))
    assert load_fused_ensemble(folder) == ensemble()


def test_rows_for_people():
    header, *rows = ensemble().rows()
    assert header == (
        "view",
        "trial",
        "backbone",
        "weight",
        "clips seen of 100",
        "validation auc",
        "holdout auc",
        "95 % interval",
    )
    assert rows == [
        ("frame", "3", "test_byobnet.r160_in1k", "1.250", "97", "0.8000", "0.7500", "0.6500 – 0.8000"),
        ("mel", "5", "test_byobnet.r160_in1k", "0.500", "95", "0.8000", "0.7500", "0.6500 – 0.8000"),
        ("fused", "", "", "", "", "0.9000", "0.8500", "0.7500 – 0.9000"),
    ]
    assert ensemble().lines() == [
        "the weights were learned from the 20 validation clips, so the fused validation score is too good",
        "the 10 holdout clips were used for nothing else",
        "95% percentile bootstrap (some papers)",
    ]
    without = ensemble(holdout=None, holdout_note="holdout: none was set aside")
    assert without.rows()[-1][-2:] == ("–", "–")
    assert without.lines()[0].endswith("; there is no holdout: none was set aside")
    assert ensemble(times_scored=3).lines()[1] == "the holdout was scored 3 times: it is no longer unseen"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"ensemble\.json: .*\nit is damaged: delete it"),
        (b"{}", r"ensemble\.json: metric: is missing"),
        (None, "the members are \\['frame', 'mel'\\], but there are weights of \\['frame'\\]"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, content, message):
    folder = StudyFolder(tmp_path)
    broken = ensemble().model_dump_json().replace('"mel":0.5', '"x":1').encode()
    if content is None:
        one = {"frame": 1.0}
        broken = ensemble().model_copy(update={"fusion": Fusion(one, one, one, 0.0)}).model_dump_json().encode()
    folder.ensemble.write_bytes(content or broken)
    with pytest.raises(StudyError, match=message):
        load_fused_ensemble(folder)
