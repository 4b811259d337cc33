"""The checks together, as `automl doctor` and a search run them."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from automl.doctor import machine
from automl.doctor.checks import CHECKS, find_usable_devices, refuse_machine, run_checks
from automl.doctor.machine import Disk
from automl.doctor.report import Fact, Options, Problem, make_report
from automl.errors import StudyError, WeightsError
from tests.fixtures.fake_nvml import FakeGpu, FakeNvml

GB = 10**9


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_check_reports_facts_on_this_machine_and_sentences_that_say_what_to_do(check, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    report = make_report(check(Options(tmp_path / "runs", weights)))
    assert check.__name__.startswith("check_")
    assert check.__doc__.startswith("Reports ")
    assert report.findings
    for fact in report.findings:
        assert fact.name
        assert fact.text
        assert "\n" not in fact.name + fact.text
    for problem in report.problems:
        assert ": " in problem.text  # what is wrong: what to do
        assert not problem.text.endswith(".")
        assert "\n" not in problem.text
    assert not list(tmp_path.glob("runs*"))  # nothing is changed


def test_all_checks_are_run_in_their_order():
    names = [fact.name for fact in run_checks().findings]
    shown = [name for name in names if not name.startswith("GPU")]
    assert shown[:6] == ["automl", "Python", "torch", "torchvision", "timm", "driver"]
    assert [name for name in shown[6:] if name != "disk for studies"] == [
        *("cores", "memory", "shared memory", "cache", "disk for cache", "weights cached", "weights hub"),
    ]


def test_a_folder_of_weights_that_does_not_exist(tmp_path):
    with pytest.raises(WeightsError, match="is not a folder"):
        run_checks(tmp_path / "nowhere")


def test_the_checks_are_imported_without_torch():
    code = "import sys, automl.doctor.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_torch_that_cannot_be_imported_is_reported_beside_the_rest():
    code = (
        "import sys; sys.modules['torch'] = None; from automl.doctor.checks import run_checks; report = run_checks();"
    )
    code += "print(report.problems[0].text, [fact.name for fact in report.findings][-1], sep='|')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    problem, _, last = done.stdout.strip().partition("|")
    assert problem.startswith("torch cannot be imported")
    assert last == "weights hub"


def test_a_report_has_all_that_was_yielded():
    both = make_report([Fact("a", "1"), Problem("x"), Problem("y", fatal=True), Fact("b", "2")])
    assert [fact.name for fact in both.findings] == ["a", "b"]
    assert [problem.text for problem in both.problems] == ["x", "y"]
    assert not both.can_search


# --- before a search -----------------------------------------------------------------------------------------------


@pytest.fixture
def disks(monkeypatch):
    """Sets the disk of a folder: `disks(lambda folder: Disk(1, 5 * GB, True))`."""
    return lambda find: monkeypatch.setattr(machine, "find_disk", find)


def test_a_search_begins_where_something_can_be_trained(disks, tmp_path):
    disks(lambda _: Disk(1, 100 * GB, True))
    refuse_machine(tmp_path / "runs", tmp_path / "storage")
    assert find_usable_devices("cpu", pytest.fail) == ("cpu",)


@pytest.mark.parametrize(
    ("disk", "message"),
    [
        (lambda folder: Disk(1, 100 * GB, folder.name != "runs"), r"runs cannot be written, and the studies .*--runs"),
        (lambda folder: Disk(1, 100 * GB, folder.name != "storage"), r"storage cannot be written.* another --storage"),
        (lambda _: Disk(1, 100 * 10**6, True), r"only 100MB of disk is free at .*; at least 500MB are needed: "),
    ],
)
def test_a_search_does_not_begin_where_nothing_can_be_written(disks, disk, message, tmp_path):
    disks(disk)
    with pytest.raises(StudyError, match=message):
        refuse_machine(tmp_path / "runs", tmp_path / "storage")


def test_little_of_something_stops_no_search(disks, monkeypatch, tmp_path):
    disks(lambda folder: Disk(2, 10**7, True) if folder.name == "storage" else Disk(1, GB, True))
    monkeypatch.setattr(machine, "read_memory", lambda: (4 * GB, 2 * GB))
    refuse_machine(tmp_path / "runs", tmp_path / "storage")


@pytest.mark.parametrize("library", ["timm", "torch"])
def test_a_search_does_not_begin_without_a_library(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(StudyError, match=f"{library} cannot be imported"):
        find_usable_devices("cpu", pytest.fail)


@pytest.fixture
def cuda(monkeypatch):
    """One CUDA device, known to torch alone; its compute capability can be set."""
    import torch

    card = SimpleNamespace(name="Tesla P100-PCIE-16GB", major=6, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
    return card


@pytest.mark.parametrize("wanted", ["auto", "cuda", "cuda:0"])
def test_a_search_does_not_begin_on_a_gpu_that_torch_has_no_kernels_for(cuda, wanted):
    """A P100 with today's torch: every step would fail with `no kernel image is available`."""
    with pytest.raises(StudyError, match=r"cannot compute on cuda:0 \(Tesla P100-PCIE-16GB\), .* older GPU needs"):
        find_usable_devices(wanted, pytest.fail)
    assert find_usable_devices("cpu", pytest.fail) == ("cpu",)
    cuda.major, cuda.minor = 7, 5
    assert find_usable_devices(wanted, pytest.fail) == ("cuda:0",)


def test_what_nvml_says_of_a_gpu_needs_no_cuda_here(cuda, monkeypatch):
    FakeNvml(FakeGpu("Tesla P100", capability=(6, 0))).install(monkeypatch)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: pytest.fail("CUDA was started"))
    with pytest.raises(StudyError, match=r"cannot compute on cuda:0 \(Tesla P100\)"):
        find_usable_devices("auto", pytest.fail)


def test_a_search_does_not_begin_on_a_gpu_with_which_cuda_does_not_start(cuda, monkeypatch):
    def fail(_):
        raise RuntimeError("CUDA unknown error")

    monkeypatch.setattr("torch.cuda.get_device_properties", fail)
    with pytest.raises(StudyError, match=r"torch cannot use cuda:0 \(CUDA unknown error\): update the driver"):
        find_usable_devices("cuda:0", pytest.fail)


def test_a_gpu_that_auto_passes_over_is_a_warning(monkeypatch):
    import torch

    FakeNvml(FakeGpu("Tesla T4")).install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", None)
    lines = []
    assert find_usable_devices("auto", lines.append) == ("cpu",)
    (line,) = lines
    assert line.startswith("warning: torch ")
    assert "is built without CUDA and leaves the GPU unused" in line
    assert find_usable_devices("cpu", pytest.fail) == ("cpu",)
