from types import SimpleNamespace

import pynvml
import pytest

from automl.doctor.gpu import examine_gpus
from automl.doctor.report import make_report
from tests.fixtures.fake_nvml import GB, FakeGpu, FakeNvml, FakeProcess

ALL = ("sm_60", "sm_75", "sm_80", "sm_86", "sm_90")


def torch_with(devices=1, build="12.4", version="2.6.0", architectures=ALL, cuda_error=None):
    """As much of torch as is looked at: one that sees so many GPUs, built for a CUDA (None: none) and architectures."""

    def init():
        if cuda_error:
            raise RuntimeError(cuda_error)

    def properties(device):
        return SimpleNamespace(name="NVIDIA Orin", total_memory=32 * GB, major=8, minor=7)

    return SimpleNamespace(
        __version__=version,
        version=SimpleNamespace(cuda=build),
        cuda=SimpleNamespace(
            is_available=lambda: devices > 0,
            device_count=lambda: devices,
            get_arch_list=lambda: list(architectures),
            get_device_properties=properties,
            init=init,
        ),
    )


def install(monkeypatch, *gpus, **values):
    return FakeNvml(*gpus, **values).install(monkeypatch)


def examined(torch):
    """The findings by name, and the problems, none of which stops a search."""
    report = make_report(examine_gpus(torch))
    assert report.can_search
    return {fact.name: fact.text for fact in report.findings}, [problem.text for problem in report.problems]


def test_a_gpu_without_problem(monkeypatch):
    install(monkeypatch, FakeGpu("NVIDIA L4", 24 * GB, [FakeProcess(7, "Xorg", GB, draws=True)], capability=(8, 9)))
    findings, problems = examined(torch_with())
    assert findings == {
        "driver": "NVIDIA 550.54.14, runs CUDA 12.4 and older",
        "GPU 0": "NVIDIA L4; 24GB in all, 23GB free, 1GB used; by Xorg (pid 7) 1GB; "
        "compute capability 8.9, bf16 native; cuda:0",
    }
    assert problems == []


def test_gpus_that_torch_does_not_see_are_shown_and_have_no_problems(monkeypatch):
    install(monkeypatch, FakeGpu("Tesla T4"), FakeGpu("Tesla T4", unlisted_bytes=8 * GB))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    findings, problems = examined(torch_with())
    assert findings["GPU 0"].endswith("compute capability 7.5, bf16 not native; cuda:0")
    assert findings["GPU 1"].endswith("not used by torch")
    assert problems == []


# --- no GPU, or none that can be used ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("LIBRARY_NOT_FOUND", ("libnvidia-ml, is missing", "install its driver", "docker run --gpus all")),
        ("DRIVER_NOT_LOADED", ("not loaded", "install its driver")),
        ("LIB_RM_VERSION_MISMATCH", ("was updated", "restart the machine")),
        ("NO_PERMISSION", ("no permission", "let this user read /dev/nvidia*")),
    ],
)
@pytest.mark.parametrize("torch", [None, torch_with(0), torch_with(0, build=None)], ids=["none", "cuda", "cpu"])
def test_without_a_gpu_one_sentence_says_why_and_what_to_do(monkeypatch, error, words, torch):
    install(monkeypatch, FakeGpu(), init_error=getattr(pynvml, f"NVML_ERROR_{error}"))
    findings, (problem,) = examined(torch)
    assert findings == {"driver": "none found", "GPU": "none"}
    assert all(word in problem for word in ("training runs on the CPU", *words))


def test_a_driver_without_a_gpu(monkeypatch):
    install(monkeypatch)
    findings, (problem,) = examined(torch_with(0))
    assert findings["driver"].startswith("NVIDIA 550")
    assert "the NVIDIA driver finds no GPU" in problem


@pytest.mark.parametrize(
    ("torch", "values", "words"),
    [
        (torch_with(0, build=None, version="2.6.0+cpu"), {}, ("2.6.0+cpu is built without CUDA", "CUDA 12.4 or older")),
        (
            torch_with(0, build="13.0"),
            {"cuda": 12_020, "driver": "535.1"},
            ("the driver 535.1 is too old", "CUDA 13.0", "update the driver", "CUDA 12.2 or older"),
        ),
        (torch_with(0, cuda_error="CUDA unknown error\nmore"), {}, ("(CUDA unknown error)", "restart")),
        (torch_with(0), {}, ("CUDA starts, and finds none",)),
        (
            torch_with(0, build=None),
            {"errors": {"nvmlSystemGetCudaDriverVersion": pynvml.NVML_ERROR_UNKNOWN}},
            ("built for CUDA (https://pytorch.org",),
        ),
    ],
    ids=["cpu build", "old driver", "broken", "unclear", "unknown driver"],
)
def test_a_gpu_that_torch_cannot_use_has_a_reason(monkeypatch, torch, values, words):
    install(monkeypatch, FakeGpu(), **values)
    findings, (problem,) = examined(torch)
    assert findings["GPU 0"].endswith("not used by torch")
    assert all(word in problem for word in words)


@pytest.mark.parametrize("visible", ["", "-1", "3"])
def test_gpus_that_the_environment_hides(monkeypatch, visible):
    install(monkeypatch, FakeGpu())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert examined(torch_with(0))[1] == [
        f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset it, or name one that is there, such as 0"
    ]


@pytest.mark.parametrize(
    ("capability", "architectures", "words"),
    [
        ((6, 0), ("sm_75", "sm_90"), "an older GPU needs a torch built for CUDA 12.6 or older"),
        ((12, 0), ("sm_75", "sm_90a"), "it needs a newer torch"),
        ((8, 0), ("sm_75", "sm_86"), "it needs a newer torch"),
    ],
)
def test_a_torch_without_kernels_for_the_gpu(monkeypatch, capability, architectures, words):
    install(monkeypatch, FakeGpu("Some GPU", capability=capability))
    (problem,) = examined(torch_with(architectures=architectures))[1]
    assert f"torch 2.6.0 cannot compute on GPU 0 (Some GPU), compute capability {capability[0]}" in problem
    assert words in problem


@pytest.mark.parametrize(
    ("capability", "architectures"),
    [((8, 9), ("sm_80",)), ((12, 0), ("sm_75", "compute_90")), ((9, 0), ("sm_90a",)), ((6, 0), ())],
)
def test_kernels_of_the_same_generation_or_compiled_on_the_spot_will_do(monkeypatch, capability, architectures):
    install(monkeypatch, FakeGpu(capability=capability))
    assert examined(torch_with(architectures=architectures))[1] == []


# --- neighbours, and what NVML does not show -----------------------------------------------------------------------


def test_a_neighbour_that_holds_much_is_named(monkeypatch):
    install(monkeypatch, FakeGpu("Tesla P100", processes=[FakeProcess(4711, "/usr/bin/python", 6 * GB)]))
    (problem,) = examined(torch_with())[1]
    assert problem.startswith("python (pid 4711) holds 6GB of GPU 0 (Tesla P100): end what is not needed")
    assert "--gpu-mem auto" in problem


def test_one_that_holds_little_is_no_problem(monkeypatch):
    install(monkeypatch, FakeGpu(processes=[FakeProcess(4711, "python", GB)]))
    assert examined(torch_with())[1] == []


def test_hidden_neighbours_are_examined(monkeypatch):
    install(monkeypatch, FakeGpu(processes=[FakeProcess(1, "python", 6 * GB)], hides_processes=True))
    findings, problems = examined(torch_with())
    assert "used; by processes that are hidden from here;" in findings["GPU 0"]
    assert problems[0].startswith("processes that are hidden from here hold 6GB of GPU 0")
    assert "the prediction is used" in problems[1]


def test_nvml_that_lists_no_processes(monkeypatch):
    install(monkeypatch, FakeGpu(errors={"nvmlDeviceGetComputeRunningProcesses": pynvml.NVML_ERROR_NO_PERMISSION}))
    (problem,) = examined(torch_with())[1]
    assert "does not show the processes on GPU 0 (Tesla T4)" in problem
    assert "the prediction is used" in problem


def test_a_mig_instance(monkeypatch):
    part = FakeGpu("NVIDIA A100 MIG 1g.5gb", 5 * GB, capability=(8, 0))
    install(monkeypatch, FakeGpu("NVIDIA A100", 40 * GB, capability=(8, 0), mig=[part]))
    findings, (problem,) = examined(torch_with())
    assert "5GB in all" in findings["GPU 0"]
    assert "MIG instance" in findings["GPU 0"]
    assert "the prediction is used" in problem


def test_mig_mode_without_an_instance(monkeypatch):
    install(monkeypatch, FakeGpu("NVIDIA A100", capability=(8, 0), mig=[]))
    (problem,) = examined(torch_with(0))[1]
    assert "has no instance" in problem
    assert "nvidia-smi mig -i 0 -cgi 0 -C" in problem


def test_torch_may_see_a_gpu_that_nvml_does_not(monkeypatch):
    install(monkeypatch, init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    findings, (problem,) = examined(torch_with(architectures=("sm_87",)))
    assert findings["driver"] == "version not known"
    assert findings["GPU 0"] == "NVIDIA Orin; 32GB in all; compute capability 8.7, bf16 native; cuda:0"
    assert "the prediction is used" in problem


def test_a_gpu_that_nvml_cannot_read_beside_one_that_it_can(monkeypatch):
    lost = {"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST}
    install(monkeypatch, FakeGpu(), FakeGpu(errors=lost))
    (problem,) = examined(torch_with())[1]
    assert problem == "GPU 1 cannot be read by NVML: GPU is lost; the prediction of memory is used there"
