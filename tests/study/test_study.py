import os
import threading
import uuid

import optuna
import pytest
from optuna.trial import TrialState

from automl.errors import StudyError
from automl.space.space import parse_space
from automl.study import worker
from automl.study.artifacts import Artifacts
from automl.study.folder import StudyFolder, find_study, hold_lock, list_studies, study_name
from automl.study.membership import Membership
from automl.study.samplers import make_pruner
from automl.study.setup import create_study
from automl.study.storage import open_storage, open_study, read_storage_url
from automl.study.trial import TrialResult
from automl.study.trial_record import best_trial, list_finished, read_spec, read_study_record, recipe_of
from automl.training.schedule import EIGHTHS
from tests.fixtures.studies import SPACE, folder_of, setup_without_files, spec_without_files, take_trial

SETUP = setup_without_files()
SAMPLERS = ["tpe", "gp", "random", "qmc"]
PRUNERS = ["halving", "hyperband", "median", "none"]


def quick(folder, **values):
    """A spec whose study lies in a journal, which takes a tenth of the time: where the storage is not what is tried."""
    return spec_without_files(storage=str(folder.path.with_suffix(".log")), **values)


@pytest.fixture(params=["sqlite", "journal", "server"])
def storage(request, tmp_path):
    """A storage of each kind; None is the embedded one."""
    if request.param == "server":
        url = os.environ.get("AUTOML_TEST_STORAGE")
        if not url:
            pytest.skip("needs a database server: AUTOML_TEST_STORAGE=postgresql://…")
        return url
    return None if request.param == "sqlite" else str(tmp_path / "study.log")


def value_at(params, eighth):
    """A made-up learning curve: better with a learning rate near 3e-3 and with every eighth."""
    return 1 - abs(params["learning_rate"] - 3e-3) * 50 - 0.5 / eighth


def train(study, folder, rank=0):
    """Takes one trial as a worker does, and pretends to train it; None when there are enough."""
    space = parse_space(SPACE)
    with take_trial(study, folder) as taken:
        if taken is None:
            return None
        trial, _ = taken
        values = space.suggest_recipe(trial, backbones=3, self_blend=False)
        outcome = None
        for eighth in range(1, EIGHTHS + 1):
            value = value_at(values, eighth)
            trial.report(value, eighth)
            if trial.should_prune():
                outcome = TrialResult(TrialState.PRUNED, reason="behind")
                break
        worker._end_trial(study, Artifacts(folder), trial, outcome or TrialResult(TrialState.COMPLETE, value))
        return trial.number


def run(study, folder):
    study.pruner = make_pruner(read_spec(study))
    while train(study, folder) is not None:
        pass


def drawn(study):
    return [trial.params for trial in study.get_trials(deepcopy=False)]


# --- every storage, sampler and pruner ----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_storage_and_sampler_run_a_study_to_its_budget_and_on(tmp_path, storage, sampler):
    folder = folder_of(tmp_path, f"tones-{uuid.uuid4().hex[:8]}" if storage else "tones")
    spec = spec_without_files(sampler=sampler, storage=storage)
    run(create_study(folder, spec, SETUP), folder)
    study = open_study(folder)
    assert [trial.number for trial in study.trials] == list(range(8))
    assert all(trial.state.is_finished() for trial in study.trials)
    assert best_trial(study).value == max(t.value for t in study.trials if t.state == TrialState.COMPLETE)
    assert train(study, folder) is None
    more = create_study(folder, spec_without_files(sampler=sampler, storage=storage, budget={"trials": 10}), SETUP)
    run(more, folder)
    assert len(open_study(folder).trials) == 10
    assert len({tuple(params.items()) for params in drawn(more)}) == 10


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_runs_with_gaps_in_the_steps(tmp_path, pruner):
    folder = folder_of(tmp_path)
    study = create_study(folder, quick(folder, sampler="random", pruner=pruner, budget={"trials": 14}), SETUP)
    run(study, folder)
    states = {trial.state for trial in study.trials}
    assert TrialState.COMPLETE in states
    assert states <= {TrialState.COMPLETE, TrialState.PRUNED}
    if pruner in ("halving", "median", "hyperband"):
        assert TrialState.PRUNED in states
    if pruner == "none":
        assert states == {TrialState.COMPLETE}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_draws_the_same_and_another_one_does_not(tmp_path, sampler):
    found = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        folder = folder_of(tmp_path, name)
        study = create_study(folder, quick(folder, sampler=sampler, seed=seed, name=name), SETUP)
        run(study, folder)
        found.append(drawn(study))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_in_many_sittings_draws_what_one_sitting_draws(tmp_path, sampler):
    folder = folder_of(tmp_path, "whole")
    whole = create_study(folder, quick(folder, sampler=sampler), SETUP)
    run(whole, folder)
    folder = folder_of(tmp_path, "parts")
    create_study(folder, quick(folder, sampler=sampler), SETUP)
    while True:
        study = open_study(folder)
        study.pruner = make_pruner(read_spec(study))
        if train(study, folder) is None:
            break
    assert drawn(study) == drawn(whole)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_choices_vary(tmp_path, sampler):
    folder = folder_of(tmp_path)
    study = create_study(folder, quick(folder, sampler=sampler, pruner="none", budget={"trials": 12}), SETUP)
    run(study, folder)
    for name in ("optimizer", "schedule", "backbone"):
        assert len({params[name] for params in drawn(study)}) > 1, name


# --- the same study, or another one -------------------------------------------------------------------------------


def test_budgets_may_change_and_nothing_else(tmp_path):
    folder = folder_of(tmp_path)
    create_study(folder, spec_without_files(budget={"timeout": "1h"}), SETUP)
    again = create_study(folder, spec_without_files(budget={"trials": 20, "timeout": "2h"}), SETUP)
    assert read_spec(again).budget.trials == 20
    changed = spec_without_files(seed=5, sampler="gp", budget={"trials": 30, "gpu_mem": "8GB"})
    with pytest.raises(StudyError) as caught:
        create_study(folder, changed, SETUP)
    text = str(caught.value)
    for part in ("seed was 0, is 5", "sampler was tpe, is gp", "budget.gpu_mem was None, is 8000000000", "--name"):
        assert part in text
    assert "trials" not in text
    assert read_spec(open_study(folder)).budget.trials == 20


@pytest.mark.parametrize(
    ("name", "other"),
    [("space", setup_without_files("backbone: {pool: {}}")), ("samples", setup_without_files(name="b"))],
)
def test_another_space_or_other_samples_are_another_study(tmp_path, name, other):
    folder = folder_of(tmp_path)
    create_study(folder, spec_without_files(), SETUP)
    with pytest.raises(StudyError, match=f"the {name} of study 'tones' changed.*--name"):
        create_study(folder, spec_without_files(), other)


@pytest.mark.parametrize(("first", "then"), [(None, "other.log"), ("one.log", None), ("one.log", "other.log")])
def test_a_study_does_not_change_its_storage_unnoticed(tmp_path, first, then):
    folder = folder_of(tmp_path)
    first, then = (str(tmp_path / name) if name else None for name in (first, then))
    create_study(folder, spec_without_files(storage=first), SETUP)
    with pytest.raises(StudyError, match="exists in the storage"):
        create_study(folder, spec_without_files(storage=then), SETUP)
    assert read_storage_url(folder) == (first or folder.storage_url)
    assert len(list_studies(tmp_path / "runs")) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("study.db", "not a storage: 'study.db'; give a URL"),
        ("nosuchdb://x/y", "not a storage: 'nosuchdb://x/y'; databases are sqlite, postgresql and mysql"),
        ("sqlite:////no/such/folder/study.db", "cannot open the storage sqlite"),
        ("/no/such/folder/study.log", "cannot open the storage /no"),
        ("postgresql://127.0.0.1:1/none", "cannot open the storage postgresql"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named(url, message):
    with pytest.raises(StudyError, match=message):
        open_storage(url)


def test_an_unknown_study_names_the_known_ones(tmp_path):
    create_study(folder_of(tmp_path, "faces"), spec_without_files(), SETUP)
    with pytest.raises(StudyError, match=r"no study 'bees' in .*runs; studies there: faces"):
        open_study(folder_of(tmp_path, "bees"))
    with pytest.raises(StudyError, match="studies there: none"):
        open_study(StudyFolder(tmp_path / "empty" / "bees"))


def test_a_study_of_someone_else_is_told_apart(tmp_path):
    folder = folder_of(tmp_path)
    folder.make_folders()
    study = optuna.create_study(study_name="tones", storage=folder.storage_url)
    with pytest.raises(StudyError, match="was not made by automl"):
        read_spec(study)


def test_studies_are_listed_oldest_first(tmp_path):
    for age, name in enumerate(("old", "new")):
        folder = folder_of(tmp_path, name)
        create_study(folder, spec_without_files(), SETUP)
        os.utime(folder.samples, (1000 + age, 1000 + age))
    (tmp_path / "runs" / "notes").mkdir()
    assert [folder.name for folder in list_studies(tmp_path / "runs")] == ["old", "new"]
    assert list_studies(tmp_path / "nowhere") == []


def test_reading_a_study_does_not_make_it_the_latest(tmp_path):
    for age, name in enumerate(("old", "new")):
        folder = folder_of(tmp_path, name)
        create_study(folder, spec_without_files(), SETUP)
        os.utime(folder.samples, (1000 + age, 1000 + age))
        os.utime(folder.path, (1000 + age, 1000 + age))
    assert open_study(folder_of(tmp_path, "old")).trials == []
    (folder_of(tmp_path, "old").path / "study.db-wal").touch()  # as SQLite does, and takes away again
    assert find_study(tmp_path / "runs", None).name == "new"


@pytest.mark.parametrize(
    ("text", "name"), [("my data", "my-data"), ("../..", "study"), ("a/b\\c", "a-b-c"), ("é", "study")]
)
def test_a_study_is_named_after_its_data_without_leaving_its_folder(text, name):
    assert study_name(text) == name


def test_the_best_trial_of_a_metric_to_be_small(tmp_path):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(), setup_without_files(metric="log_loss"))
    assert best_trial(study) is None
    for value in (0.7, 0.0, 0.3, 0.0):
        worker._end_trial(study, Artifacts(folder), study.ask(), TrialResult(TrialState.COMPLETE, value))
    worker._end_trial(study, Artifacts(folder), study.ask(), TrialResult(TrialState.PRUNED, reason="behind"))
    assert best_trial(study).number == 1
    assert [trial.number for trial in list_finished(study)] == [0, 1, 2, 3, 4]
    with pytest.raises(StudyError, match="trial 1 has no recipe"):
        recipe_of(best_trial(study))


# --- taking and telling trials ------------------------------------------------------------------------------------


def test_a_trial_whose_worker_died_is_taken_up_and_one_that_is_held_is_not(tmp_path):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(sampler="random"), SETUP)
    with take_trial(study, folder) as (first, _), take_trial(study, folder) as (second, _):
        first.report(0.5, 1)
        assert (first.number, second.number) == (0, 1)
    with take_trial(study, folder) as (again, frozen):  # nobody holds 0 any more
        assert again.number == 0
        assert frozen.intermediate_values == {1: 0.5}
        with take_trial(study, folder) as (other, _):
            assert other.number == 1
            with take_trial(study, folder) as (new, _):
                assert new.number == 2
    assert study.trials[0].user_attrs["taken_up"] == 1


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_trial_taken_up_before_it_drew_anything_draws_the_same(tmp_path, sampler):
    found = []
    for name in ("calm", "killed"):
        folder = folder_of(tmp_path, name)
        study = create_study(folder, quick(folder, sampler=sampler, pruner="none"), SETUP)
        if name == "killed":
            with take_trial(study, folder):
                pass
            study = open_study(folder)
        run(study, folder)
        found.append(drawn(study)[0])
    assert found[0] == found[1]


def test_a_trial_that_ended_between_two_looks_is_not_taken_up(tmp_path, monkeypatch):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(sampler="random"), SETUP)
    with take_trial(study, folder) as (trial, _):
        slow = open_study(folder)
        stale = slow.get_trials(deepcopy=True)
        monkeypatch.setattr(slow, "get_trials", lambda **_: stale)
        worker._end_trial(study, Artifacts(folder), trial, TrialResult(TrialState.COMPLETE, 0.5))
    with Membership(slow, "cpu") as member:
        assert worker._adopt_trial(slow, Artifacts(folder), member, None) is None
    assert study.trials[0].value == 0.5


def test_a_trial_that_always_kills_its_worker_fails_one_day(tmp_path):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(sampler="random"), SETUP)
    study.ask().set_user_attr("taken_up", worker._MAX_TAKEN)
    with take_trial(study, folder) as (trial, _):
        assert trial.number == 1
    assert study.trials[0].state == TrialState.FAIL
    assert "its worker died" in study.trials[0].user_attrs["error"]


def test_two_workers_share_a_study_without_one_trial_too_many(tmp_path, storage):
    folder = folder_of(tmp_path, f"tones-{uuid.uuid4().hex[:8]}" if storage else "tones")
    create_study(
        folder, spec_without_files(sampler="random", pruner="none", storage=storage, budget={"trials": 9}), SETUP
    )
    taken, errors = [], []

    def work():
        try:
            study = open_study(folder)
            study.pruner = make_pruner(read_spec(study))
            while (number := train(study, folder)) is not None:
                taken.append(number)
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(taken) == list(range(9))
    assert [trial.state for trial in open_study(folder).trials] == [TrialState.COMPLETE] * 9


def test_what_a_trial_leaves_behind(tmp_path):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(sampler="random"), SETUP)
    for number, kept in enumerate((False, True)):
        with take_trial(study, folder) as (trial, _):
            folder.trial_folder(number).mkdir()
            (folder.trial_folder(number) / "checkpoint.pt").write_bytes(b"large")
            if kept:
                (folder.trial_folder(number) / "error.txt").write_text("traceback")
            worker._end_trial(study, Artifacts(folder), trial, TrialResult(TrialState.FAIL, reason="broken"))
        assert not (folder.trial_folder(number) / "checkpoint.pt").exists()
        assert (folder.trial_folder(number) / "error.txt").exists() is kept
    assert [trial.user_attrs["error"] for trial in study.trials] == ["broken", "broken"]


def test_five_failures_in_a_row_stop_the_study(tmp_path):
    folder = folder_of(tmp_path)
    study = create_study(folder, spec_without_files(sampler="random", budget={"trials": 20}), SETUP)

    def end(state, **values):
        worker._end_trial(study, Artifacts(folder), study.ask(), TrialResult(state, **values))
        worker._check_failures(study)

    for _ in range(4):
        end(TrialState.FAIL, reason="out of luck")
    end(TrialState.COMPLETE, value=0.5)
    for _ in range(4):
        end(TrialState.FAIL, reason="out of luck")
    with pytest.raises(StudyError, match="5 trials failed in a row; the last one: no such file"):
        end(TrialState.FAIL, reason="no such file")
    assert "no such file" in read_study_record(study).stopped


def test_a_lock_is_exclusive_and_goes_with_its_holder(tmp_path):
    with hold_lock(tmp_path / "deep" / "lock") as held:
        assert held
        with hold_lock(tmp_path / "deep" / "lock", wait=False) as second:
            assert not second
    with hold_lock(tmp_path / "deep" / "lock", wait=False) as third:
        assert third
