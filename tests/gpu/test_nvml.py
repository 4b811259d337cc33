import os
import sys
from pathlib import Path

import pynvml
import pytest

from automl.gpu.nvml import NvmlSnapshot, find_gpu, read_nvml
from tests.fixtures.fake_nvml import GB, FakeGpu, FakeNvml, FakeProcess

A100 = {"name": "NVIDIA A100-SXM4-40GB", "total_bytes": 40 * GB, "capability": (8, 0)}


def install(monkeypatch, *gpus, **values) -> FakeNvml:
    return FakeNvml(*gpus, **values).install(monkeypatch)


def test_a_gpu_is_read_whole_and_nvml_is_closed(monkeypatch):
    nvml = install(
        monkeypatch,
        FakeGpu("Tesla T4", 16 * GB, [FakeProcess(4711, "/usr/bin/python3", GB)], reserved_bytes=GB // 2, uuid="GPU-a"),
    )
    reading = read_nvml()
    (gpu,) = reading.gpus
    assert (reading.driver, reading.problem, reading.cuda) == ("550.54.14", None, (12, 4))
    assert (gpu.index, gpu.name, gpu.uuid, gpu.mig, gpu.capability) == (0, "Tesla T4", "GPU-a", False, (7, 5))
    assert (gpu.total_bytes, gpu.used_bytes, gpu.free_bytes) == (16 * GB, GB, 14_500_000_000)
    assert [(p.pid, p.name, p.used_bytes) for p in gpu.processes] == [(4711, "python3", GB)]
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("LIBRARY_NOT_FOUND", "libnvidia-ml, is missing"),
        ("DRIVER_NOT_LOADED", "not loaded"),
        ("NO_PERMISSION", "no permission"),
        ("LIB_RM_VERSION_MISMATCH", "was updated"),
        ("UNKNOWN", "NVML cannot be read: Unknown Error"),
    ],
)
def test_where_nvml_does_not_start_a_sentence_says_why(monkeypatch, error, words):
    install(monkeypatch, FakeGpu(), init_error=getattr(pynvml, f"NVML_ERROR_{error}"))
    reading = read_nvml()
    assert (reading.gpus, reading.driver) == ((), None)
    assert words in reading.problem
    assert find_gpu("cuda:0", reading) is None


def test_without_the_package_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py" in read_nvml().problem


def test_nvml_that_stops_answering_is_told_and_closed(monkeypatch):
    nvml = install(monkeypatch, FakeGpu(), errors={"nvmlDeviceGetCount": pynvml.NVML_ERROR_GPU_IS_LOST})
    assert "GPU is lost" in read_nvml().problem
    assert nvml.open == 0


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo"])
def test_a_gpu_that_cannot_be_read_hides_no_other(monkeypatch, function):
    install(monkeypatch, FakeGpu(errors={function: pynvml.NVML_ERROR_NOT_SUPPORTED}), FakeGpu("NVIDIA L4"))
    reading = read_nvml()
    assert [(gpu.index, gpu.name) for gpu in reading.gpus] == [(1, "NVIDIA L4")]
    assert reading.problem == "GPU 0 cannot be read by NVML: Not Supported"
    assert find_gpu("cuda:0", NvmlSnapshot(reading.gpus, None, None)).index == 1


def test_figures_that_are_not_supported_are_missing_and_no_error(monkeypatch):
    names = ("Name", "UUID", "CudaComputeCapability", "MigMode", "GraphicsRunningProcesses")
    gpu = FakeGpu(errors={f"nvmlDeviceGet{name}": pynvml.NVML_ERROR_NOT_SUPPORTED for name in names})
    install(monkeypatch, gpu, errors={"nvmlSystemGetCudaDriverVersion": pynvml.NVML_ERROR_UNKNOWN})
    reading = read_nvml()
    assert (reading.gpus[0].name, reading.gpus[0].capability, reading.cuda) == ("NVIDIA GPU", None, None)
    assert reading.gpus[0].processes == ()


def test_names_may_be_bytes(monkeypatch):
    install(monkeypatch, FakeGpu(processes=[FakeProcess(1, "x", 5)], uuid="GPU-b"), names_as_bytes=True)
    reading = read_nvml()
    gpu = reading.gpus[0]
    assert (reading.driver, gpu.name, gpu.uuid, gpu.processes[0].name) == ("550.54.14", "Tesla T4", "GPU-b", "x")


def test_an_older_driver_counts_its_reserve_as_used(monkeypatch):
    install(monkeypatch, FakeGpu(reserved_bytes=GB // 2), counts_reserve_apart=False)
    gpu = read_nvml().gpus[0]
    assert gpu.used_bytes == GB // 2
    assert gpu.processes == ()  # the reserve is no hidden process


# --- processes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["NOT_SUPPORTED", "NO_PERMISSION"])
def test_processes_that_nvml_refuses_to_list_are_hidden(monkeypatch, error):
    refused = {"nvmlDeviceGetComputeRunningProcesses": getattr(pynvml, f"NVML_ERROR_{error}")}
    install(monkeypatch, FakeGpu(errors=refused, unlisted_bytes=GB))
    gpu = read_nvml().gpus[0]
    assert gpu.processes is None
    assert gpu.free_bytes == 15 * GB


@pytest.mark.parametrize("apart", [True, False])
def test_much_used_memory_and_no_process_means_that_they_are_hidden(monkeypatch, apart):
    gpu = FakeGpu(processes=[FakeProcess(1, "python", 2 * GB)], hides_processes=True)
    install(monkeypatch, gpu, counts_reserve_apart=apart)
    assert read_nvml().gpus[0].processes is None


def test_those_that_compute_and_those_that_draw_are_one_list_largest_first(monkeypatch):
    both = [FakeProcess(7, "blender", 3 * GB), FakeProcess(7, "blender", 3 * GB, draws=True)]
    gpu = FakeGpu(processes=[FakeProcess(9, "Xorg", GB, draws=True), *both, FakeProcess(8, "python", None)])
    install(monkeypatch, gpu)
    found = [(process.name, process.used_bytes) for process in read_nvml().gpus[0].processes]
    assert found == [("blender", 3 * GB), ("Xorg", GB), ("python", None)]


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("/opt/my tools/python", "my"),  # cut at the blank before the arguments: better than a whole command line
        ("/usr/bin/python3 train.py --data /x/y", "python3"),
        ("C:\\bin\\python.exe", "python.exe"),
        ("", "a process"),
    ],
)
def test_a_program_is_shown_by_its_file_name(monkeypatch, told, shown):
    install(monkeypatch, FakeGpu(processes=[FakeProcess(2**31, told, 5)]))
    assert read_nvml().gpus[0].processes[0].name == shown


def test_the_system_knows_a_name_that_nvml_does_not_tell(monkeypatch):
    refused = {"nvmlSystemGetProcessName": pynvml.NVML_ERROR_NO_PERMISSION}
    install(monkeypatch, FakeGpu(processes=[FakeProcess(os.getpid(), "?", 5)]), errors=refused)
    comm = Path("/proc/self/comm")
    expected = comm.read_text().strip().split(" ")[0] if comm.exists() else "a process"
    assert read_nvml().gpus[0].processes[0].name == expected


# --- MIG -----------------------------------------------------------------------------------------------------------


def instance(number, **values):
    return FakeGpu(
        f"NVIDIA A100-SXM4-40GB MIG {number}g.5gb", 5 * GB, capability=(8, 0), uuid=f"MIG-{number}", **values
    )


def test_in_mig_mode_the_instances_stand_for_the_gpu(monkeypatch):
    hidden = {"nvmlDeviceGetComputeRunningProcesses": pynvml.NVML_ERROR_NO_PERMISSION}
    install(monkeypatch, FakeGpu(**A100, mig=[instance(1, errors=hidden), instance(2)]), FakeGpu(**A100))
    gpus = read_nvml().gpus
    assert [(gpu.index, gpu.uuid[:4], gpu.mig) for gpu in gpus] == [
        (0, "MIG-", True),
        (0, "MIG-", True),
        (1, "GPU-", False),
    ]
    assert (gpus[0].total_bytes, gpus[0].processes, gpus[0].capability) == (5 * GB, None, (8, 0))


def test_a_gpu_in_mig_mode_without_instances_is_no_device_of_torch(monkeypatch):
    install(monkeypatch, FakeGpu(**A100, mig=[]), FakeGpu("Tesla T4"))
    reading = read_nvml()
    assert [(gpu.mig, gpu.uuid[:4]) for gpu in reading.gpus] == [(True, "GPU-"), (False, "GPU-")]
    assert find_gpu("cuda", reading).name == "Tesla T4"


# --- from torch's index to NVML's ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, [0, 1, 2, None]),
        ("2,0", [2, 0, None]),
        (" 1 ", [1, None]),
        ("GPU-b,GPU-a", [1, 0, None]),
        ("GPU-", [None]),  # could be any
        ("0,7,1", [0, None]),  # what CUDA does not know ends its list
        ("1,1", [None]),
        ("", [None]),
        ("-1", [None]),
        ("NoDevFiles", [None]),
    ],
)
def test_cuda_visible_devices_decides_how_torch_counts(monkeypatch, visible, found):
    install(monkeypatch, *(FakeGpu(uuid=f"GPU-{name}111") for name in "abc"))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = [find_gpu(f"cuda:{index}") for index in range(len(found))]
    assert [gpu and gpu.index for gpu in gpus] == found


@pytest.mark.parametrize(("visible", "uuid"), [(None, "MIG-1"), ("0", "MIG-1"), ("MIG-2", "MIG-2"), ("1", "GPU-x")])
def test_torch_counts_one_instance_unless_it_is_named(monkeypatch, visible, uuid):
    install(monkeypatch, FakeGpu(**A100, mig=[instance(1), instance(2)]), FakeGpu(uuid="GPU-x"))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_gpu("cuda:0").uuid == uuid


@pytest.mark.parametrize("device", ["cpu", "cuda:x", "mps", "cuda:3"])
def test_what_is_no_gpu_of_nvml_is_none(monkeypatch, device):
    install(monkeypatch, FakeGpu())
    assert find_gpu(device) is None


def test_a_process_that_uses_cuda_asks_it_which_gpu_is_which(monkeypatch):
    import torch

    install(monkeypatch, FakeGpu("slow", uuid="GPU-aaaa"), FakeGpu("fast", uuid="GPU-bbbb"))
    properties = type("Properties", (), {"uuid": "bbbb"})()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    assert find_gpu("cuda:0").name == "fast"
    properties.uuid = "unknown to NVML"
    assert find_gpu("cuda:0").name == "slow"
