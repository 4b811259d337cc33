import pytest
import torch
from optuna.trial import TrialState

from automl.recipe import Recipe
from automl.study.artifacts import Artifacts
from automl.study.continuation import choose_continuation, last_checkpoint
from automl.study.setup import load_setup
from automl.study.trial import Stop
from automl.study.trial_record import read_spec, read_trial_record, recipe_of, write_study_record
from automl.study.worker import run_worker
from automl.training.fit import fit
from tests.fixtures.studies import SPACE
from tests.fixtures.trainings import DATA
from tests.fixtures.trainings import recipe_of as tones_recipe

LENGTHS = SPACE.replace("epochs: 2", "epochs: {ordered: [2, 6]}")


@pytest.fixture
def short_study(new_study):
    """A study whose first trial has ended, after two of up to six epochs."""
    assert LENGTHS != SPACE
    study, folder = new_study(trials=1, space=LENGTHS)
    study.enqueue_trial({"epochs": 0})
    run_worker(study, folder, "cpu", Stop())
    return study, folder


def test_the_best_trial_is_trained_for_longer_before_another_one_begins(short_study):
    study, folder = short_study
    spec = read_spec(study)
    longer = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": 3})})
    write_study_record(study, spec=longer.model_dump_json())
    run_worker(study, folder, "cpu", Stop())
    first, longer, other = study.get_trials()
    assert longer.state == TrialState.COMPLETE
    assert read_trial_record(longer).continues == 0
    assert read_trial_record(other).continues in (None, 1)
    recipe = recipe_of(longer)
    assert (recipe.epochs, recipe.restarts) == (6, (pytest.approx(1 / 3),))
    assert longer.params == first.params | {"epochs": 1}
    assert read_trial_record(longer).resumed_at == [2]
    assert list(longer.intermediate_values) == [8]
    assert "known_good" not in longer.user_attrs


def test_it_needs_its_checkpoint_time_and_something_to_add(short_study):
    study, folder = short_study
    setup = load_setup(study, folder)
    chosen = choose_continuation(study, setup, Artifacts(folder), float("inf"))
    assert chosen is not None
    assert chosen.recipe.epochs == 6
    assert choose_continuation(study, setup, Artifacts(folder), 1e-6) is None
    seconds = read_trial_record(study.get_trials()[0]).spent["fit_seconds"]
    cut = choose_continuation(study, setup, Artifacts(folder), 1.2 * seconds)
    assert cut is not None
    assert 2 * 1.3 <= cut.recipe.epochs < 2 + 2 * 1.2
    study.enqueue_trial({"epochs": 1}, user_attrs={"known_good": "long"})
    assert (
        choose_continuation(study, setup, Artifacts(folder), float("inf")) is None
    )  # what is known to be good comes first
    study.ask()
    last_checkpoint(folder, 0).unlink()
    assert choose_continuation(study, setup, Artifacts(folder), float("inf")) is None


def test_a_continued_run_is_the_run_of_its_recipe(tmp_path):
    short = tones_recipe(epochs=2, ema_decay=0.9, schedule={"name": "cosine", "warmup": 0.25})
    fit(short, DATA, last_checkpoint=lambda _: tmp_path / "last.pt", checkpoint=tmp_path / "unused.pt")
    whole = Recipe.from_mapping(short.model_dump() | {"epochs": 5, "restarts": (2 / 5,)})
    continued = fit(whole, DATA, checkpoint=tmp_path / "last.pt")
    from_the_beginning = fit(whole, DATA)
    for one, other in zip(continued.model.parameters(), from_the_beginning.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert continued.history[-1].metrics == from_the_beginning.history[-1].metrics
    assert [evaluation.eighth for evaluation in from_the_beginning.history] == [8]
