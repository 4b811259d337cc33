"""Trials that run out of memory, memory that does not come back, and devices that are lost, in a whole worker."""

import pytest
import torch
from optuna.trial import TrialState

from automl.cli.study_progress import describe_trial
from automl.devices import LEAKED, POISONED, CudaProcess, DeviceProcess, open_device
from automl.errors import StudyError
from automl.study.storage import open_study
from automl.study.trial import Stop
from automl.study.trial_record import recipe_of, trial_rows
from automl.study.worker import run_worker
from tests.fixtures.faults import Faults

FORWARD, EVALUATION, OPTIMIZER = "aten.native_batch_norm", "aten.batch_norm", "aten._fused_adamw_"


def results_of(study):
    return [(t.number, t.state, t.value, t.params, t.intermediate_values) for t in study.trials]


# --- trials that run out of memory --------------------------------------------------------------------------------


def test_a_trial_goes_on_with_smaller_micro_batches_and_says_so(new_study, capsys):
    study, folder = new_study(trials=2)
    with Faults((FORWARD, 20), (EVALUATION, 3)) as faults:
        run_worker(study, folder, "cpu", Stop())
    assert faults.raised == 2
    first, second = study.trials
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert first.user_attrs["out_of_memory"] == [
        {"step": 1, "where": "training", "micro_batch_size": 8, "next": 4},
        {"step": 4, "where": "evaluation", "micro_batch_size": 8, "next": 4},
    ]
    assert recipe_of(first).numerics.micro_batch_size == 4
    assert "out_of_memory" not in second.user_attrs
    assert recipe_of(second).numerics.micro_batch_size is None
    line = "trial 0: out of memory in a training step after 1 steps with 8 images at once; now 4"
    assert line in capsys.readouterr().out.splitlines()
    lines = [describe_trial(row, "auc") for row in trial_rows(study.trials)]
    assert [", out of memory 2 ×" in line for line in lines] == [True, False]


def test_evaluation_with_fewer_images_leaves_the_recipe_and_the_result_as_they_were(new_study):
    undisturbed, folder = new_study("undisturbed", trials=1)
    run_worker(undisturbed, folder, "cpu", Stop())
    study, folder = new_study("disturbed", trials=1)
    with Faults((EVALUATION, 3)) as faults:
        run_worker(study, folder, "cpu", Stop())
    assert faults.raised == 1
    assert recipe_of(study.trials[0]) == recipe_of(undisturbed.trials[0])
    assert study.trials[0].value == pytest.approx(undisturbed.trials[0].value, abs=1e-6)


@pytest.mark.slow
def test_the_third_time_prunes_the_trial_and_says_why(new_study):
    study, folder = new_study(trials=1)
    with Faults(*[(FORWARD, call) for call in range(20, 99)]):
        run_worker(study, folder, "cpu", Stop())
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    reason = "out of memory in a training step after 1 steps with 2 images at once; the training ends"
    assert trial.user_attrs["reason"].startswith(reason)
    assert [event["micro_batch_size"] for event in trial.user_attrs["out_of_memory"]] == [8, 4, 2]
    assert trial.user_attrs["out_of_memory"][-1]["next"] is None
    assert recipe_of(trial).numerics.micro_batch_size == 2


def test_a_network_that_does_not_fit_by_itself_prunes_the_trial(new_study):
    study, folder = new_study(trials=1)
    with Faults(("aten.clone", 1)):  # before the first step
        run_worker(study, folder, "cpu", Stop())
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].user_attrs["reason"] == "the network itself does not fit: no memory left"


@pytest.mark.slow
def test_a_trial_that_is_taken_up_again_goes_on_with_its_micro_batch(new_study, monkeypatch):
    def trained(name, interrupted):
        study, folder = new_study(name, trials=1)
        stop = Stop()
        if interrupted:
            stop.seconds_left = lambda: -1.0 if (folder.trial_folder(0) / "checkpoint.pt").exists() else 3600.0
        with Faults((FORWARD, 20)):
            run_worker(study, folder, "cpu", stop)
        if interrupted:
            assert study.trials[0].state == TrialState.RUNNING
            run_worker(open_study(folder), folder, "cpu", Stop())
        return study

    whole, parts = trained("whole", False), trained("parts", True)
    assert parts.trials[0].user_attrs["taken_up"] == 1
    assert parts.trials[0].value == pytest.approx(whole.trials[0].value, abs=1e-6)
    for study in (whole, parts):
        assert [event["next"] for event in study.trials[0].user_attrs["out_of_memory"]] == [4]
        assert recipe_of(study.trials[0]).numerics.micro_batch_size == 4


# --- a device that is lost, and memory that does not come back ----------------------------------------------------


class LostContextError(RuntimeError):
    """Stands for `torch.AcceleratorError`."""


class FakeMemory(DeviceProcess):
    """A device with these bytes in use each time it is asked, at the end the last ones."""

    def __init__(self, *used_bytes):
        self.used_bytes = list(used_bytes or [0])
        self.budget_bytes = None

    def limit_memory(self, budget_bytes, context_bytes):
        self.budget_bytes = budget_bytes
        return budget_bytes

    def release_memory(self):
        return self.used_bytes.pop(0) if len(self.used_bytes) > 1 else self.used_bytes[0]

    def is_lost(self, error):
        return isinstance(error, LostContextError)

    def exit_process(self, code):
        raise SystemExit(code)


def work_until_the_device_is_lost(study, folder, call):
    fault = Faults((FORWARD, call), error=LostContextError, message="an illegal memory access\nat kernel 7")
    with fault, pytest.raises(SystemExit) as left:
        run_worker(study, folder, "cpu", Stop(), FakeMemory())
    assert left.value.code == POISONED


@pytest.mark.parametrize("call", [5, 90], ids=["before a checkpoint", "after one"])
def test_a_lost_device_ends_the_worker_and_the_next_one_loses_no_trial(new_study, capsys, call):
    undisturbed, folder = new_study("undisturbed", trials=2)
    run_worker(undisturbed, folder, "cpu", Stop(), FakeMemory())
    study, folder = new_study("disturbed", trials=2)
    work_until_the_device_is_lost(study, folder, call)
    (trial,) = study.trials
    assert trial.state == TrialState.RUNNING
    assert trial.user_attrs["device_lost"] == 1
    assert (folder.trial_folder(0) / "checkpoint.pt").exists() == (call == 90)
    lost = "trial 0: this process lost its device (LostContextError: an illegal memory access); a new one continues"
    assert lost in capsys.readouterr().out
    run_worker(open_study(folder), folder, "cpu", Stop(), FakeMemory())
    assert results_of(study) == results_of(undisturbed)


def test_a_trial_that_loses_the_device_three_times_fails_and_says_why(new_study):
    study, folder = new_study(trials=2)
    for _ in range(3):
        work_until_the_device_is_lost(open_study(folder), folder, 20)
    (trial,) = study.trials
    assert trial.state == TrialState.FAIL
    reason = "left the device unusable 3 times, the last time with LostContextError: an illegal memory access"
    assert trial.user_attrs["error"] == reason
    run_worker(open_study(folder), folder, "cpu", Stop(), FakeMemory())
    assert study.trials[1].state == TrialState.COMPLETE


def test_trials_that_all_lose_the_device_end_the_study_some_day(new_study):
    _, folder = new_study(trials=9)
    for _ in range(14):
        work_until_the_device_is_lost(open_study(folder), folder, 1)
    with (
        Faults((FORWARD, 1), error=LostContextError),
        pytest.raises(StudyError, match="5 trials failed in a row; the last one: left the device unusable"),
    ):
        run_worker(open_study(folder), folder, "cpu", Stop(), FakeMemory())


def test_memory_that_does_not_come_back_is_logged_and_a_large_leak_asks_for_a_fresh_worker(new_study, capsys):
    study, folder = new_study(trials=4, setup={"memory_bytes": 10**6})
    memory = FakeMemory(5000, 5000, 5512, 15001)
    with pytest.raises(SystemExit) as left:
        run_worker(study, folder, "cpu", Stop(), memory)
    assert left.value.code == LEAKED
    assert memory.budget_bytes == 10**6
    lines = [line for line in capsys.readouterr().out.splitlines() if "baseline" in line]
    assert lines == ["trial 1: 512B above the baseline", "trial 2: 10kB above the baseline"]
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    run_worker(open_study(folder), folder, "cpu", Stop(), FakeMemory(5000))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4


# --- the real devices ---------------------------------------------------------------------------------------------


def test_a_cpu_has_no_limit_and_is_never_lost():
    memory = open_device("cpu")
    assert not isinstance(memory, CudaProcess)
    assert memory.limit_memory(10**9, 0) is None
    assert memory.release_memory() == 0
    assert not memory.is_lost(RuntimeError("CUDA error"))


def test_a_lost_cuda_device_is_known_by_the_type_of_the_error_or_by_its_silence(monkeypatch):
    class AcceleratorError(RuntimeError):
        pass

    answers = []
    monkeypatch.setattr(torch, "AcceleratorError", AcceleratorError, raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", answers.append)
    memory = open_device("cuda:1")
    assert isinstance(memory, CudaProcess)
    assert memory.is_lost(AcceleratorError("an illegal memory access"))
    assert not memory.is_lost(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert not memory.is_lost(ValueError("device-side assert triggered"))
    assert not answers
    assert not memory.is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert answers == ["cuda:1"]

    def silent(_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", silent)
    assert memory.is_lost(RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"))


def test_a_cuda_process_is_limited_to_the_budget(monkeypatch):
    limits = []
    monkeypatch.setattr("automl.devices.limit_process", lambda *given: limits.append(given))
    assert open_device("cuda").limit_memory(16 * 10**9, 10**9) == 16 * 10**9
    assert limits == [("cuda", 16 * 10**9, 10**9)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_between_trials_a_gpu_is_as_empty_as_before():
    memory = open_device("cuda")
    memory.limit_memory(None, 0)
    before = memory.release_memory()
    images = torch.ones(256, 256, device="cuda", requires_grad=True)
    (images @ images).sum().backward()
    assert memory.release_memory() > before
    del images
    assert memory.release_memory() == before
