import io
import json
import time

import pytest
import timm
from optuna.trial import TrialState
from safetensors.torch import save_file

from automl.devices import DeviceProcess
from automl.errors import StudyError
from automl.recipe import Recipe
from automl.study import pool, worker
from automl.study.claims import Snapshot, open_claims
from automl.study.continuation import last_checkpoint
from automl.study.membership import Membership
from automl.study.setup import load_setup
from automl.study.storage import open_study
from automl.study.trial import Stop
from automl.study.trial_record import best_trial, recipe_of
from automl.study.worker import run_worker
from automl.training import checkpoint
from tests.fixtures.studies import SPACE, entry


def results_of(study):
    """What a trial must be the same in, each time it is trained."""
    return [
        (t.number, t.state, t.value, t.params, t.intermediate_values, t.user_attrs.get("metrics")) for t in study.trials
    ]


@pytest.fixture(scope="module")
def whole():
    """Filled by the first study that ran to its end undisturbed, for the disturbed ones to be compared with."""
    return {}


def undisturbed(new_study, whole):
    if "told" not in whole:
        study, folder = new_study("whole", trials=2, seed=3)
        run_worker(study, folder, "cpu", Stop())
        whole["told"] = results_of(study)
    return whole["told"]


def test_a_study_is_trained_to_its_budget(new_study):
    study, folder = new_study(trials=3)
    run_worker(study, folder, "cpu", Stop())
    run_worker(open_study(folder), folder, "cpu", Stop())  # there is nothing left to do
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    for trial in study.trials:
        recipe = recipe_of(trial)
        assert (recipe.backbone, recipe.image_size, recipe.pretrained) == ("test_byobnet.r160_in1k", 32, False)
        assert recipe.optimizer.name == trial.params["optimizer"]
        assert trial.user_attrs["metrics"]["auc"] == pytest.approx(trial.value, abs=1e-6)
        assert trial.user_attrs["spent"]["epochs_done"] == 2
    assert max(trial.value for trial in study.trials) > 0.9
    best = best_trial(study)
    assert [*(folder.path / "trials").rglob("*.pt")] == [last_checkpoint(folder, best.number)]
    assert [path.name for path in (folder.path / "trials").iterdir()] == [f"{best.number:04d}"]
    assert open_claims(study).read() == Snapshot({}, {})


def test_the_same_seed_gives_the_same_study(new_study, whole):
    first = undisturbed(new_study, whole)
    study, folder = new_study("again", trials=2, seed=3)
    run_worker(study, folder, "cpu", Stop())
    assert results_of(study) == first


def test_a_study_in_postgresql_is_the_same(new_study, whole, postgres):
    first = undisturbed(new_study, whole)
    study, folder = new_study("elsewhere", trials=2, seed=3, storage=postgres)
    run_worker(study, folder, "cpu", Stop())
    assert results_of(open_study(folder)) == first
    assert open_claims(study).read() == Snapshot({}, {})


def test_a_wish_to_stop_parks_the_trial_and_it_goes_on_later(new_study, whole):
    first = undisturbed(new_study, whole)
    study, folder = new_study("parked", trials=2, seed=3)
    stop = Stop()
    stop.soon.set()
    run_worker(study, folder, "cpu", stop)
    assert not study.trials  # before a trial there is nothing to park

    class Soon(Stop):
        def __call__(self, at_checkpoint=True):
            self.soon.set()
            return bool(study.trials) and super().__call__(at_checkpoint)

    run_worker(study, folder, "cpu", Soon())
    (parked,) = study.trials
    assert parked.state == TrialState.RUNNING
    assert (folder.trial_folder(0) / "checkpoint.pt").exists()
    run_worker(open_study(folder), folder, "cpu", Stop())
    assert results_of(study) == first
    assert study.trials[0].user_attrs["taken_up"] == 1


@pytest.mark.parametrize("when", [1, 6], ids=["before a checkpoint", "after one"])
def test_a_worker_that_dies_loses_no_trial(new_study, whole, monkeypatch, when):
    first = undisturbed(new_study, whole)
    study, folder = new_study("killed", trials=2, seed=3)

    def die(_, progress):
        if progress["step"] == when:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Membership, "note_progress", die)
        with pytest.raises(KeyboardInterrupt):
            run_worker(study, folder, "cpu", Stop())
    assert study.trials[0].state == TrialState.RUNNING
    run_worker(open_study(folder), folder, "cpu", Stop())
    assert results_of(study) == first


def test_a_trial_that_another_worker_ends_after_all_is_left_to_it(new_study, whole, monkeypatch, capsys):
    first = undisturbed(new_study, whole)
    study, folder = new_study("ended", trials=2, seed=3)
    other, note = open_study(folder), Membership.note_progress

    def end(member, progress):
        if (progress["trial"], progress.get("step")) == (0, 2):
            other.tell(0, 0.25)
        note(member, progress)

    monkeypatch.setattr(Membership, "note_progress", end)
    run_worker(study, folder, "cpu", Stop())
    assert [(trial.state, trial.value) for trial in study.trials] == [
        (TrialState.COMPLETE, 0.25),
        (TrialState.COMPLETE, first[1][2]),
    ]
    assert "trial 0: another worker has ended it meanwhile" in capsys.readouterr().out
    assert open_claims(study).read() == Snapshot({}, {})


@pytest.mark.slow
def test_a_full_disk_is_waited_for(new_study, whole, monkeypatch, capsys):
    first = undisturbed(new_study, whole)
    study, folder = new_study("full", trials=2, seed=3)
    full, save = [OSError(28, "No space left on device")] * 3, checkpoint.write_atomically

    def write(path, **how):
        if full and path.name == "checkpoint.pt":
            raise full.pop()
        return save(path, **how)

    def open_temporary(**_):
        if full:
            raise full.pop()
        return io.BytesIO()

    monkeypatch.setattr(checkpoint, "write_atomically", write)
    monkeypatch.setattr(worker.tempfile, "TemporaryFile", open_temporary)
    run_worker(study, folder, "cpu", Stop())
    assert not full
    assert results_of(study) == first
    assert study.trials[0].user_attrs["taken_up"] == 1
    away, back = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "no room on the disk (cannot write the checkpoint" in away
    assert "waiting up to 10m00s until some is free" in away
    assert back.startswith("warning: there is room on the disk again after ")


def test_a_disk_that_stays_full_ends_the_worker_and_leaves_the_trial(new_study, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    study, folder = new_study("full", trials=1)
    with monkeypatch.context() as patched:
        patched.setattr(worker, "WAIT_SECONDS", 0.1)
        patched.setattr(checkpoint, "write_atomically", full)
        patched.setattr(worker.tempfile, "TemporaryFile", full)
        with pytest.raises(StudyError, match=r"no room on the disk for 0\.1s .*; free some: the same command goes on"):
            run_worker(study, folder, "cpu", Stop())
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    run_worker(open_study(folder), folder, "cpu", Stop())
    assert [trial.state for trial in open_study(folder).trials] == [TrialState.COMPLETE]


def test_a_deadline_that_has_passed_starts_nothing(new_study):
    study, folder = new_study()
    run_worker(study, folder, "cpu", Stop(time.time() - 1))
    assert not study.trials


def test_a_deadline_within_a_trial_parks_it(new_study):
    study, folder = new_study()
    stop = Stop(time.time() + 3600)
    stop.seconds_left = lambda: -1.0 if study.trials and late.pop(0) else 3600.0
    late = [False, False, True, True, True]
    run_worker(study, folder, "cpu", stop)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


def test_a_failing_trial_keeps_its_message_and_traceback_and_five_end_the_study(new_study, tmp_path):
    gone = entry(weights="file", weights_path=str(tmp_path / "gone.safetensors"))
    study, folder = new_study(pool=[gone], trials=9)
    with pytest.raises(StudyError, match="5 trials failed in a row; the last one: cannot load weights"):
        run_worker(study, folder, "cpu", Stop())
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 5
    assert "gone.safetensors" in study.trials[0].user_attrs["error"]
    assert "Traceback" in (folder.trial_folder(0) / "error.txt").read_text()


def test_a_trial_that_diverges_is_pruned_and_says_why(new_study, tmp_path):
    state = timm.create_model("test_byobnet").state_dict()
    path = tmp_path / "test_byobnet.safetensors"
    save_file(
        {name: value * float("nan") if value.is_floating_point() else value for name, value in state.items()}, path
    )
    study, folder = new_study(pool=[entry(weights="file", weights_path=str(path))], trials=1)
    run_worker(study, folder, "cpu", Stop())
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].user_attrs["reason"].startswith("diverged: the ")


def test_a_pruned_trial_says_why(new_study, monkeypatch):
    study, folder = new_study(trials=1)
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda _: True)
    run_worker(study, folder, "cpu", Stop())
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert "epochs is behind" in trial.user_attrs["reason"]
    assert len(trial.intermediate_values) == 1


def test_a_known_good_recipe_is_spared_for_half_its_length_and_yet_seen_by_the_pruner(new_study, monkeypatch):
    study, folder = new_study(trials=1)
    study.enqueue_trial({"learning_rate": 2e-3}, user_attrs={"known_good": "quick"})
    asked = []
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: asked.append(trial.number) or True)
    run_worker(study, folder, "cpu", Stop())
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert max(trial.intermediate_values) >= 4
    assert len(asked) == len(trial.intermediate_values)


@pytest.mark.parametrize(("fits", "micro"), [(0, None), (3, 3), (8, None), (100, None)])
def test_memory_splits_the_batch_or_prunes(new_study, monkeypatch, fits, micro):
    monkeypatch.setattr(pool, "largest_micro_batch", lambda *_: fits)
    study, folder = new_study(pool=[entry(fits_all=False)], setup={"memory_bytes": 10**9}, trials=1)
    run_worker(study, folder, "cpu", Stop())
    (trial,) = study.trials
    if not fits:
        assert trial.state == TrialState.PRUNED
        assert trial.user_attrs["reason"] == "test_byobnet.r160_in1k at 32 px does not fit 1GB at any batch size"
        return
    assert trial.state == TrialState.COMPLETE
    assert recipe_of(trial).numerics.micro_batch_size == micro


def test_a_recipe_too_long_for_a_trial_is_shortened(new_study):
    study, folder = new_study(setup={"trial_seconds": 10.0}, trials=1, pool=[entry(train_seconds=0.3)])
    run_worker(study, folder, "cpu", Stop())
    recipe = recipe_of(study.trials[0])
    images = len(load_setup(study, folder).dataset.samples.query("split == 'train'"))
    assert 0.05 <= recipe.epochs < 2
    assert recipe.epochs * images * 0.3 <= 10.5


def test_a_space_may_name_the_backbone(new_study):
    space = SPACE.replace("{pool: {}}", "test_byobnet")
    study, folder = new_study(space=space, trials=1, pool=[entry("test_vit.r160_in1k"), entry()])
    run_worker(study, folder, "cpu", Stop())
    assert study.trials[0].user_attrs["backbone"] == "test_byobnet.r160_in1k"


def test_samples_that_were_changed_stop_the_worker(new_study):
    study, folder = new_study()
    folder.samples.write_text(folder.samples.read_text().replace("holdout", "train"))
    with pytest.raises(StudyError, match=r"samples\.csv was changed since the study began"):
        run_worker(study, folder, "cpu", Stop())
    folder.samples.unlink()
    with pytest.raises(StudyError, match=r"cannot read .*samples\.csv"):
        run_worker(study, folder, "cpu", Stop())


def test_the_recipe_of_a_trial_trains_alone(new_study):
    study, folder = new_study(trials=1)
    run_worker(study, folder, "cpu", Stop())
    recipe = recipe_of(study.trials[0])
    again = Recipe.from_mapping(json.loads(recipe.model_dump_json()))
    assert again == recipe


def test_what_a_trial_took_of_the_device_is_kept(new_study):
    resets = []

    class Counting(DeviceProcess):
        def reset_peak(self):
            resets.append(None)

        def read_peak(self):
            return 10**9 * len(resets)

    study, folder = new_study(trials=2)
    run_worker(study, folder, "cpu", Stop(), Counting())
    assert [trial.user_attrs["spent"]["peak_bytes"] for trial in study.trials] == [10**9, 2 * 10**9]


def test_a_worker_stops_when_its_supervisor_is_gone():
    stop = Stop()
    assert not stop()
    stop.watch_stream(io.StringIO(""))
    assert stop.soon.wait(5)
    assert stop(True)
    assert not stop(False)  # not in the middle of an epoch
    assert Stop(time.time() - 1)(False)
