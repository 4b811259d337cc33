import os
import subprocess
from types import SimpleNamespace

import pynvml
import pytest

from automl.errors import SpecError
from automl.gpu.budget import decide_budget, describe_users
from automl.gpu.nvml import read_nvml
from automl.units import Share
from tests.fixtures.fake_nvml import GB, FakeGpu, FakeNvml, FakeProcess

PYTHON = FakeProcess(4711, "/usr/bin/python", 1_600_000_000)


def install(monkeypatch, *gpus, **values):
    return FakeNvml(*gpus, **values).install(monkeypatch)


def p100(*processes, **values):
    return FakeGpu("Tesla P100", 15_800_000_000, list(processes), **values)


def decided(wanted, devices=("cuda:0",)):
    budget = decide_budget(wanted, devices)
    return budget.bytes, list(budget.notes)


@pytest.mark.parametrize(
    ("wanted", "size", "said"),
    [
        ("auto", 14_200_000_000, "auto is 14.2GB: 15.8GB of Tesla P100, less 1.6GB used by python (pid 4711)"),
        (None, 14_200_000_000, "14.2GB: 15.8GB of Tesla P100, less 1.6GB used by python (pid 4711)"),
        (
            Share(50),
            7_100_000_000,
            "50% is 7.1GB, of 14.2GB that is free: 15.8GB of Tesla P100, less 1.6GB used by python (pid 4711)",
        ),
        (
            24 * GB,
            14_200_000_000,
            "24GB is more than there is; the budget is 14.2GB: 15.8GB of Tesla P100, less 1.6GB used by python "
            "(pid 4711)",
        ),
    ],
)
def test_what_others_use_is_subtracted_and_told(monkeypatch, wanted, size, said):
    install(monkeypatch, p100(PYTHON))
    assert decided(wanted) == (size, [f"GPU memory: {said}"])


def test_a_size_that_is_free_is_taken_without_a_word(monkeypatch):
    install(monkeypatch, p100(PYTHON))
    assert decided(14 * GB) == (14 * GB, [])


def test_a_size_that_others_use_now_is_kept_with_a_warning(monkeypatch):
    install(monkeypatch, p100(FakeProcess(4711, "python", 10 * GB)))
    size, (line,) = decided(8 * GB)
    assert size == 8 * GB
    assert line == (
        "warning: GPU memory: 8GB is given, but only 5.8GB is free: 15.8GB of Tesla P100, less 10GB used by python "
        "(pid 4711); end what uses it, or give --gpu-mem auto"
    )


def test_what_the_driver_keeps_for_itself_is_not_in_the_budget(monkeypatch):
    install(monkeypatch, FakeGpu("Tesla T4", 16_100_000_000, reserved_bytes=400_000_000))
    assert decided("auto") == (15_700_000_000, ["GPU memory: auto is 15.7GB: 15.7GB of Tesla T4"])
    size, (line,) = decided(16 * GB)  # no one else's memory, and still not to be had
    assert size == 15_700_000_000
    assert "more than there is" in line


def test_an_old_driver_names_its_reserve(monkeypatch):
    install(monkeypatch, FakeGpu("Tesla T4", 16 * GB, reserved_bytes=GB // 2), counts_reserve_apart=False)
    assert decided("auto")[1] == ["GPU memory: auto is 15.5GB: 16GB of Tesla T4, less 500MB used by the driver"]


def test_hidden_processes_are_subtracted_too(monkeypatch):
    install(monkeypatch, p100(PYTHON, hides_processes=True))
    size, (line,) = decided("auto")
    assert size == 14_200_000_000
    assert line.endswith("less 1.6GB used by processes that are hidden from here")


@pytest.mark.parametrize(
    ("pids", "said"),
    [
        ([1], "a (pid 1)"),
        ([1, 2], "a (pid 1), a (pid 2)"),
        ([1, 2, 3], "a (pid 1), a (pid 2), a (pid 3)"),
        ([1, 2, 3, 4, 5], "a (pid 1), a (pid 2), a (pid 3) and 2 more"),
        ([os.getpid()], "this process"),
    ],
)
def test_processes_are_named_as_in_a_sentence(monkeypatch, pids, said):
    install(monkeypatch, p100(*(FakeProcess(pid, "a", GB) for pid in pids)))
    assert describe_users(read_nvml().gpus[0]) == said


# --- several GPUs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["auto", Share(50), 20 * GB])
def test_the_gpu_with_the_least_decides(monkeypatch, wanted):
    install(monkeypatch, FakeGpu("NVIDIA L4", 24 * GB), p100(PYTHON))
    size, (_, line) = decided(wanted, ("cuda:0", "cuda:1"))
    assert size == (7_100_000_000 if isinstance(wanted, Share) else 14_200_000_000)
    assert "the budget of cuda:1, the smallest, is used on all: cuda:0" in line


def test_equal_gpus_need_no_explanation(monkeypatch):
    install(monkeypatch, p100(), p100())
    assert decided("auto", ("cuda:0", "cuda:1")) == (
        15_800_000_000,
        ["GPU memory: auto is 15.8GB: 15.8GB of Tesla P100"],
    )


def test_only_the_gpus_that_are_trained_on_count(monkeypatch):
    install(monkeypatch, FakeGpu("NVIDIA L4", 24 * GB), p100())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert decided("auto")[0] == 15_800_000_000


def test_a_mig_instance_gives_its_own_memory(monkeypatch):
    small = FakeGpu("NVIDIA A100 MIG 1g.5gb", 5 * GB, capability=(8, 0))
    install(monkeypatch, FakeGpu("NVIDIA A100", 40 * GB, capability=(8, 0), mig=[small]))
    assert decided("auto") == (5 * GB, ["GPU memory: auto is 5GB: 5GB of NVIDIA A100 MIG 1g.5gb"])


# --- without NVML, without a GPU -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "size"), [(None, None), (16 * GB, 16 * GB)])
def test_without_a_gpu_a_size_is_taken_as_it_is(wanted, size):
    assert decided(wanted, ("cpu",)) == (size, [])


@pytest.mark.parametrize("wanted", ["auto", Share(90)])
def test_without_a_gpu_nothing_is_free(wanted):
    with pytest.raises(SpecError, match=rf"--gpu-mem {wanted} .* there is no GPU here; give a size like 16GB"):
        decide_budget(wanted, ("cpu",))


@pytest.fixture
def no_nvml(monkeypatch):
    """NVML does not start; yields what a child that asks CUDA answers: its output, or what it raises."""
    install(monkeypatch, init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    answer = SimpleNamespace(stdout="a warning\n14000000000 16000000000 NVIDIA RTX A4000\n", error=None)

    def run(arguments, **_):
        assert arguments[-1] == "cuda:0"
        if answer.error:
            raise answer.error
        return answer

    monkeypatch.setattr(subprocess, "run", run)
    return answer


def test_without_nvml_cuda_is_asked(no_nvml):
    size, (line,) = decided("auto")
    assert size == 14 * GB
    assert "16GB of NVIDIA RTX A4000, less 2GB" in line


@pytest.mark.parametrize("error", [subprocess.CalledProcessError(1, "python"), subprocess.TimeoutExpired("python", 1)])
def test_where_nothing_tells_what_is_free_a_size_is_needed(no_nvml, error):
    no_nvml.error = error
    assert decided(16 * GB) == (16 * GB, [])
    assert decided(None) == (None, [])
    with pytest.raises(SpecError, match="what is free cannot be read here; give a size like 16GB"):
        decide_budget("auto", ("cuda:0",))


@pytest.mark.gpu
def test_cuda_and_nvml_agree_about_the_real_gpu():
    import torch

    from automl.gpu.budget import _ask_cuda
    from automl.gpu.nvml import find_gpu

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    asked = _ask_cuda("cuda:0")
    assert asked is not None
    gpu = find_gpu("cuda:0")
    if gpu is not None:
        assert asked.name == gpu.name or gpu.mig
        assert asked.total_bytes == pytest.approx(gpu.total_bytes, rel=0.1)
