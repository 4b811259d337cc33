import numpy as np
import pytest

from automl.errors import StudyError
from automl.reports.predictions import read_winner
from automl.reports.study_summary import summarise_study
from tests.fixtures.reports import make_result, store_confirmed


def test_the_trial_speaks_for_itself_before_a_confirmation(tmp_path):
    result = make_result(tmp_path, trials=6)
    winner, best = read_winner(summarise_study(result)), summarise_study(result).best
    assert winner.source == f"trial {best.row.number}"
    model = winner.evaluation.models[0]
    assert model.probabilities.shape == (100, 2)
    counts = np.array(model.confusion)
    assert counts.sum() == 100
    assert len(model.mistakes) == min(20, counts.sum() - np.trace(counts))


def test_a_confirmed_recipe_has_all_its_seeds_and_the_middle_one(tmp_path):
    result = make_result(tmp_path, trials=6, classes=4)
    best = store_confirmed(result)
    winner = read_winner(summarise_study(result))
    assert [model.name for model in winner.evaluation.models] == ["seed 1", "seed 2", "seed 3"]
    assert [model.measured.values["accuracy"].value for model in winner.evaluation.models] == [0.9, 0.7, 0.8]
    assert winner.middle == 2
    assert winner.source == f"trial {best.row.number} trained again with fresh seeds (its 3 seeds)"
    mistakes = winner.evaluation.models[1].mistakes
    assert mistakes[0].path.startswith("/photos/")


def test_replicates_of_other_samples_are_passed_over(tmp_path):
    result = make_result(tmp_path, trials=6)
    best = store_confirmed(result)
    for path in result.folder.path.glob("confirm/*/predictions.npz"):
        np.savez(path, validation=np.full((3, 2), 0.5), labels=np.zeros(3, np.int64), recipe="{}")
    assert read_winner(summarise_study(result)).source == f"trial {best.row.number}"


def test_what_is_missing_is_said(tmp_path):
    result = make_result(tmp_path, trials=6)
    for path in result.folder.predictions.iterdir():
        path.unlink()
    with pytest.raises(StudyError, match="cannot read the predictions"):
        read_winner(summarise_study(result))
    with pytest.raises(StudyError, match="no trial is complete"):
        read_winner(summarise_study(make_result(tmp_path, trials=3, complete=0, name="none")))
