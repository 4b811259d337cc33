"""A machine joins a study that another one began: two folders that share nothing but the storage and the artifacts."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState
from safetensors.numpy import save_file

from automl.backbones.weights import Weights, digest_weights
from automl.data.dataset import open_dataset
from automl.errors import PoolError, StudyError
from automl.recipe import Numerics, Recipe
from automl.space.space import parse_space
from automl.spec import DataSpec
from automl.study import joining
from automl.study.artifacts import Artifacts, fetch_predictions, open_artifacts
from automl.study.continuation import choose_continuation, last_checkpoint
from automl.study.folder import StudyFolder
from automl.study.joining import join_study, measure_memory
from automl.study.left_out import is_left_to_others, restrict_sampler
from automl.study.local_setup import LocalSetup
from automl.study.membership import Membership
from automl.study.pool import MemoryNeed
from automl.study.samplers import make_sampler
from automl.study.setup import load_setup
from automl.study.storage import open_study
from automl.study.trial import Stop
from automl.study.trial_record import read_trial_record, recipe_of, write_trial_record
from automl.study.worker import _take_trial, run_worker
from tests.fixtures.studies import SPACE, entry, spec_of


@pytest.fixture
def moved(new_study, tmp_path, images):
    """A study that was begun elsewhere, with artifacts, and another machine's copy of its data."""
    (tmp_path / "shared").mkdir()
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(images, copy)

    def begin(**values):
        study, folder = new_study(artifacts=str(tmp_path / "shared"), **values)
        storage = str(tmp_path / "tones.log")
        other = StudyFolder(tmp_path / "elsewhere" / "runs" / "tones")
        other.make_folders()
        study = open_study(other, storage)
        return study, folder, other, copy

    return begin


def read_copy(copy, **values):
    return open_dataset(DataSpec(path=copy, **values), 0)


class AfterEpoch(Stop):
    """Stops at the first checkpoint."""

    def __init__(self, study):
        super().__init__()
        self._study = study

    def __call__(self, at_checkpoint=True):
        if self._study.get_trials(deepcopy=False):
            self.soon.set()
        return super().__call__(at_checkpoint)


def results_of(study):
    return [(t.number, t.state, t.value, t.params, t.intermediate_values) for t in study.trials]


# --- from one machine to the next -----------------------------------------------------------------------------------


def test_a_study_that_moves_in_the_middle_of_a_trial_is_the_same_study(moved, new_study, tmp_path):
    whole, folder = new_study("whole", trials=2, seed=3)
    run_worker(whole, folder, "cpu", Stop())
    study, here, there, copy = moved(trials=2, seed=3)
    run_worker(study, here, "cpu", AfterEpoch(study))
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    shutil.rmtree(here.path)  # that machine is gone
    study = open_study(there, str(tmp_path / "tones.log"))
    join_study(study, there, read_copy(copy))
    run_worker(study, there, "cpu", Stop())
    assert results_of(study) == results_of(whole)
    assert read_trial_record(study.trials[0]).resumed_at == [1]  # of 2 epochs: none was repeated
    assert not here.path.exists()
    # What is left of it for others to see, and nothing else:
    left = {str(path.relative_to(tmp_path / "shared")).partition("/")[2] for path in (tmp_path / "shared").rglob("*")}
    best = study.best_trial.number
    assert {name for name in left if name.endswith((".pt", ".npz"))} == {
        f"trials/{best:04d}/last.pt",
        "predictions/0000.npz",
        "predictions/0001.npz",
    }
    third = StudyFolder(tmp_path / "third" / "tones")
    join_study(study, third, read_copy(copy))
    fetch_predictions(study, third, [0, 1])
    assert third.predictions_file(1).read_bytes() == there.predictions_file(1).read_bytes()
    assert open_artifacts(study, third).has(third.trial_folder(best) / "last.pt")


def test_folds_that_are_done_are_not_repeated_on_another_machine(moved, tmp_path):
    study, here, there, copy = moved(trials=1, folds=2)

    class InSecondFold(Stop):
        def __call__(self, at_checkpoint=True):
            if (here.trial_folder(0) / "fold-0.npz").exists():
                self.soon.set()
            return super().__call__(at_checkpoint)

    run_worker(study, here, "cpu", InSecondFold())
    first = np.load(here.trial_folder(0) / "fold-0.npz")["probabilities"]
    shutil.rmtree(here.path)
    study = open_study(there, str(tmp_path / "tones.log"))
    join_study(study, there, read_copy(copy))
    run_worker(study, there, "cpu", Stop())
    assert study.trials[0].state == TrialState.COMPLETE
    of_both = np.load(there.predictions_file(0))["probabilities"]
    assert np.array_equal(of_both[: len(first)], first)
    assert [*(tmp_path / "shared").rglob("*.pt")] == []


def test_the_samples_and_splits_are_the_studys(moved):
    study, here, there, copy = moved()
    setup = join_study(study, there, read_copy(copy, holdout_fraction=0.5))  # other splits, if they were drawn here
    stored = load_setup(study, here).dataset.samples
    own = setup.dataset.samples
    for column in ("name", "label", "split"):
        assert own[column].tolist() == stored[column].tolist()
    assert setup.dataset.root == copy
    assert all(path.startswith(str(copy)) for path in own["path"])
    assert own["group"].tolist() == own["path"].tolist()
    assert not setup.dataset.grouped


def test_groups_come_along(moved, images):
    groups = "".join(f"dark/{k:02}.png,pair{k // 2}\n" for k in range(24))
    (images.parent / "groups.csv").write_text("file,group\n" + groups)
    study, here, there, copy = moved(data={"path": images, "groups": images.parent / "groups.csv"})
    own, stored = join_study(study, there, read_copy(copy)).dataset, load_setup(study, here).dataset
    in_group = stored.samples["group"] != stored.samples["path"]
    assert in_group.sum() == 24
    assert own.samples["group"][in_group].tolist() == stored.samples["group"][in_group].tolist()
    assert (own.samples["group"] == own.samples["path"])[~in_group].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "1 file is missing, such as dark/07.png"),
        (lambda path: path.write_bytes(b"x"), "1 file is of another size, such as dark/07.png: 1 bytes here"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "1 file is of other content .*dark/07.png"),
        (lambda path: path.rename(path.parents[1] / "light" / "07a.png"), "1 file is missing, such as dark/07.png"),
    ],
    ids=["missing", "size", "content", "class"],
)
def test_another_copy_is_refused(moved, change, message):
    study, _, there, copy = moved()
    change(copy / "dark" / "07.png")
    with pytest.raises(StudyError, match=f"the data in {copy} are not those with which study 'tones' began: {message}"):
        join_study(study, there, read_copy(copy), may_have_more=True)
    assert not there.samples.exists()


def test_more_files_than_the_study_has_are_left_out(moved):
    study, _, there, copy = moved()
    shutil.copy(copy / "dark" / "07.png", copy / "dark" / "new.png")
    with pytest.raises(StudyError, match=r"1 file is new, such as dark/new\.png"):
        join_study(study, there, read_copy(copy))
    assert len(join_study(study, there, read_copy(copy), may_have_more=True).dataset.samples) == 48


def test_a_study_of_an_earlier_version_still_opens(new_study, monkeypatch, images):
    monkeypatch.setattr("automl.study.setup.store_samples", lambda *_: None)
    monkeypatch.setattr("automl.study.setup.digest_files", lambda _: "")
    study, folder = new_study()
    folder.local.unlink()
    setup = join_study(study, folder, read_copy(images))
    assert setup.local is None
    assert not folder.local.exists()


# --- what a machine can train ---------------------------------------------------------------------------------------


def big_and_small(**values):
    big = entry("test_vit.r160_in1k", memory=MemoryNeed(peak_bytes=9 * 10**9, fits_all=False), **values)
    return [big, entry()]


@pytest.mark.slow
def test_a_smaller_card_takes_what_fits_and_leaves_the_rest(moved):
    study, here, there, copy = moved(pool=big_and_small(), setup={"memory_bytes": 10**10})
    lines = []
    setup = join_study(study, there, read_copy(copy), measure=lambda: 4 * 10**9, print_line=lines.append)
    assert lines == ["1 of the study's 2 backbones is left to other machines: test_vit.r160_in1k needs 9GB of 4GB"]
    assert setup.memory_bytes == 4 * 10**9
    assert [e.backbone for e in setup.pool.entries] == [e.backbone for e in load_setup(study, here).pool.entries]
    assert not any(e.timing.measured for e in setup.pool.entries)  # a card has times of its own
    study.enqueue_trial({"backbone": 0})
    study.enqueue_trial({"backbone": 1})
    run_worker(study, there, "cpu", Stop())
    trials = study.get_trials()
    assert trials[0].state == TrialState.WAITING
    assert [trial.state for trial in trials[1:]] == [TrialState.COMPLETE] * 5
    assert {trial.params["backbone"] for trial in trials[1:]} == {1}
    assert {read_trial_record(trial).backbone for trial in trials[1:]} == {"test_byobnet.r160_in1k"}


def test_a_larger_card_keeps_to_the_studys_budget(moved):
    study, _, there, copy = moved(setup={"memory_bytes": 10**10})
    setup = join_study(study, there, read_copy(copy), measure=lambda: 2 * 10**10)
    assert setup.memory_bytes == 10**10
    assert setup.local.memory_bytes is None


def test_where_nothing_fits_there_is_one_clear_line(moved):
    study, _, there, copy = moved(pool=big_and_small()[:1], setup={"memory_bytes": 10**10})
    with pytest.raises(PoolError, match=r"^none of the study's 1 backbones can be trained here: test_vit.* needs 9GB"):
        join_study(study, there, read_copy(copy), measure=lambda: 4 * 10**9)
    assert not there.samples.exists()
    assert not there.local.exists()


def test_the_smallest_step_is_predicted_where_the_largest_is_known(moved):
    need = MemoryNeed(peak_bytes=9 * 10**9, fits_all=True)
    study, _, there, copy = moved(pool=[entry(memory=need)], setup={"memory_bytes": 10**10})
    setup = join_study(study, there, read_copy(copy), measure=lambda: 4 * 10**9)
    assert setup.local.unusable == {}
    assert not setup.pool.entries[0].memory.fits_all  # so that a batch is split where it must be


def test_a_recipe_that_does_not_fit_is_left_to_others_and_not_lost(moved, monkeypatch):
    study, here, there, copy = moved(trials=2, setup={"memory_bytes": 10**10})
    join_study(study, there, read_copy(copy), measure=lambda: 4 * 10**9)
    need = replace(entry().memory, fits_all=False)
    monkeypatch.setattr("automl.study.pool.largest_micro_batch", lambda *_: 0)
    setup = load_setup(study, there)
    monkeypatch.setattr(
        "automl.study.worker.load_setup",
        lambda *_: replace(setup, pool=replace(setup.pool, entries=(replace(setup.pool.entries[0], memory=need),))),
    )
    run_worker(study, there, "cpu", Stop())
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING] * 2
    assert {read_trial_record(trial).too_small_bytes for trial in study.trials} == {4 * 10**9}
    monkeypatch.undo()
    run_worker(study, here, "cpu", Stop())  # the larger card
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


def test_a_card_without_the_precision_of_a_trial_goes_on_in_its_own(moved, monkeypatch, tmp_path):
    study, here, there, copy = moved(trials=1)
    run_worker(study, here, "cpu", AfterEpoch(study))
    begun = study.trials[0]
    recipe = recipe_of(begun)
    with_bf16 = recipe.model_copy(update={"numerics": Numerics(precision="bf16")})
    study._storage.set_trial_user_attr(begun._trial_id, "recipe", with_bf16.model_dump_json())
    study._storage.set_trial_user_attr(begun._trial_id, "host", "another")
    join_study(study, there, read_copy(copy))
    monkeypatch.setattr("automl.study.trial.is_native", lambda precision, _: precision == "fp32")
    monkeypatch.setattr("automl.study.trial.best_numerics", lambda *_: entry().timing)
    run_worker(study, there, "cpu", Stop())
    assert study.trials[0].state == TrialState.COMPLETE
    assert recipe_of(study.trials[0]) == recipe  # in fp32, and else the same
    assert read_trial_record(study.trials[0]).resumed_at == [1]
    assert read_trial_record(study.trials[0]).host != "another"


def test_the_best_trial_is_not_continued_where_it_cannot_be_trained(moved, tmp_path):
    study, here, _, _ = moved(pool=big_and_small()[::-1], trials=2, setup={"memory_bytes": 10**10})
    study.enqueue_trial({"backbone": 1})
    space = SPACE.replace("epochs: 2", "epochs: {float: [1, 9]}")
    setup = replace(load_setup(study, here), space=parse_space(space))
    local = LocalSetup(root="", joined=True, unusable={"test_vit.r160_in1k": "too large"})
    with Membership(study, "cpu") as member, _take_trial(study, Artifacts(here), member, setup) as taken:
        trial, _ = taken
        trial.suggest_int("backbone", 0, 1)
        recipe = Recipe(backbone="test_vit.r160_in1k", epochs=2, image_size=32)
        write_trial_record(trial, recipe=recipe.model_dump_json(), spent={"epochs_done": 2, "fit_seconds": 2})
        study.tell(trial, 0.9)
    last_checkpoint(here, 0).parent.mkdir(parents=True)
    last_checkpoint(here, 0).touch()
    assert choose_continuation(study, setup, Artifacts(here), float("inf")) is not None
    with (
        Membership(study, "cpu") as member,
        _take_trial(study, Artifacts(here), member, replace(setup, local=local)) as (trial, _),
    ):
        assert trial.suggest_int("backbone", 0, 1) == 0


def test_weights_are_those_of_this_machine(moved, tmp_path, monkeypatch):
    pool = [entry(weights="file", weights_path="/theirs/byobnet.safetensors")]
    study, _, there, copy = moved(pool=pool)
    with pytest.raises(PoolError, match=r"test_byobnet\.r160_in1k no weights on this machine \(--weights-dir\)"):
        join_study(study, there, read_copy(copy))
    found = SimpleNamespace(source="file", path=tmp_path / "mine.safetensors")
    monkeypatch.setattr("automl.study.local_setup.find_weights", lambda *_, **__: found)
    setup = join_study(study, there, read_copy(copy), weights_dir=tmp_path)
    assert setup.pool.entries[0].locate_weights().path == tmp_path / "mine.safetensors"


def test_other_weights_under_the_same_name_are_left_to_others_who_have_the_studys(moved, tmp_path):
    for folder, last in (("here", 0.0), ("same", 0.0), ("other", 1.0)):
        (tmp_path / folder).mkdir()
        weight = np.append(np.zeros(2**18, np.float32), np.float32(last))
        save_file({"weight": weight}, tmp_path / folder / "test_byobnet.safetensors")
    own = tmp_path / "here" / "test_byobnet.safetensors"
    digest = digest_weights(entry().backbone, Weights("file", own))
    pool = [entry(weights="file", weights_path=str(own), weights_digest=digest)]
    study, here, there, copy = moved(pool=pool)
    with pytest.raises(PoolError, match=f"other weights than the study's: {tmp_path}/other/test_byobnet.safetensors"):
        join_study(study, there, read_copy(copy), weights_dir=tmp_path / "other")
    setup = join_study(study, there, read_copy(copy), weights_dir=tmp_path / "same")
    assert setup.pool.entries[0].locate_weights().path == tmp_path / "same" / "test_byobnet.safetensors"
    # On the machine that began the study, a file that was replaced is no other machine's matter.
    data = open_dataset(DataSpec(path=load_setup(study, here).dataset.root), 0)
    join_study(study, here, data)
    own.write_bytes(b"v" + own.read_bytes()[1:])
    with pytest.raises(StudyError, match=f"the weights of test_byobnet.r160_in1k in {own} are not those with which"):
        join_study(study, here, data)
    own.unlink()
    join_study(study, here, data)  # that it is missing is said where it is needed


def test_memory_is_measured_where_there_is_a_gpu(monkeypatch):
    budget = SimpleNamespace(bytes=5, notes=("note",))
    monkeypatch.setattr(joining, "decide_budget", lambda *_: budget)
    lines = []
    assert measure_memory(10**9, ("cpu",), lines.append) is None
    assert measure_memory(10**9, ("cuda:0",), lines.append) == 5
    assert lines == ["note"]


def test_a_face_detector_of_another_machine_is_replaced(moved, tmp_path):
    study, _, there, copy = moved()
    own = tmp_path / "own.onnx"
    join_study(study, there, read_copy(copy), face_model=own)
    assert LocalSetup.load(there).face_model == str(own)


def test_what_is_kept_of_a_machine_is_read_with_care(moved):
    study, _, there, copy = moved()
    join_study(study, there, read_copy(copy), artifacts="memory://user:password@host/x")
    assert there.local.stat().st_mode & 0o077 == 0
    there.local.write_text('{"root": 3}')
    with pytest.raises(StudyError, match=r"local\.json is damaged; delete it, and join the study again"):
        load_setup(study, there)


# --- samplers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc"])
def test_what_a_sampler_draws_is_what_is_recorded(moved, images, sampler):
    study, _, there, _ = moved(pool=[*big_and_small(), entry("test_resnet.r160_in1k")])
    local = LocalSetup(root="", joined=True, unusable={"test_vit.r160_in1k": "too large"})
    setup = replace(load_setup(study, StudyFolder(there.path.parents[2] / "runs" / "tones")), local=local)
    spec = spec_of(images, sampler=sampler)
    for number in range(12):
        study.sampler = restrict_sampler(make_sampler(spec, number, 2), setup)
        trial = study.ask()
        rank, rate = trial.suggest_int("backbone", 0, 2), trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True)
        assert rank in (1, 2)
        assert trial.params["backbone"] == rank
        assert not is_left_to_others(study.get_trials()[-1], setup)
        study.tell(trial, rate)
    assert len({trial.params["backbone"] for trial in study.trials}) == 2 or sampler == "qmc"


def test_where_all_can_be_trained_the_sampler_is_its_own(moved, images):
    study, here, _, _ = moved()
    sampler = make_sampler(spec_of(images), 0, 0)
    assert restrict_sampler(sampler, load_setup(study, here)) is sampler
    assert not is_left_to_others(study.ask()._cached_frozen_trial, None)
    assert Artifacts(here).url == ""
