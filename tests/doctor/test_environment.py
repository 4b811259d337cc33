import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from automl.doctor import environment as doctor
from automl.doctor.environment import examine, refuse_hopeless
from automl.doctor.gpu import Checkup, Finding, Trouble
from automl.doctor.machine import Disk
from automl.errors import StudyError, WeightsError

GB = 10**9


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """A machine without trouble: a GPU, room, a hub that answers; each test takes one thing away."""
    monkeypatch.setattr(doctor, "examine_gpus", lambda _: Checkup((Finding("GPU 0", "fine"),)))
    monkeypatch.setattr(doctor, "cpu_limit", lambda: (8, float("inf")))
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(doctor, "ram", lambda: (32 * GB, 30 * GB))
    monkeypatch.setattr(doctor, "shared_memory", lambda: 16 * GB)
    monkeypatch.setattr(doctor, "disk", lambda _: Disk(1, 100 * GB, True))
    monkeypatch.setattr(doctor, "hub_reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


def told(weights_dir=None):
    checkup = examine(weights_dir)
    return {finding.what: finding.said for finding in checkup.findings}, [t.said for t in checkup.troubles]


def test_a_machine_without_trouble(tmp_path):
    findings, troubles = told()
    assert troubles == []
    assert list(findings) == [
        *("automl", "Python", "torch", "torchvision", "timm", "GPU 0", "cores", "memory", "shared memory", "cache"),
        *("disk for cache", "weights cached", "weights hub"),
    ]
    assert findings["cores"] == "8"
    assert findings["memory"] == "32GB, 30GB available"
    assert findings["cache"] == f"{tmp_path / 'cache'}: empty"
    assert findings["weights hub"] == "https://huggingface.co answers"


# --- packages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda", "hip", "said"), [("12.4", None, "CUDA 12.4"), (None, "6.2", "ROCm 6.2"), (None, None, "without CUDA")]
)
def test_the_build_of_torch_is_told(monkeypatch, cuda, hip, said):
    import torch

    monkeypatch.setattr(torch, "version", SimpleNamespace(cuda=cuda, hip=hip))
    assert said in told()[0]["torch"]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("torch", ImportError("libcudart.so.12: cannot open"), ("torch cannot be imported (ImportError: libcudart",)),
        (
            "torchvision",
            RuntimeError("operator torchvision::nms does not exist\nmore"),
            ("torchvision", "beside torch", "::nms does not exist);", "install the two together"),
        ),
        ("timm", ImportError("no such name"), ("timm cannot be imported", "--no-deps timm")),
    ],
)
def test_a_library_that_cannot_be_imported_stops_every_search(monkeypatch, name, error, words):
    real = importlib.import_module

    def broken(wanted):
        if wanted == name:
            raise error
        return real(wanted)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    checkup = examine()
    (trouble,) = checkup.troubles
    assert trouble.fatal
    assert not checkup.can_search
    assert all(word in trouble.said for word in words)


def test_a_library_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(doctor, "version", _missing)
    findings, (trouble,) = told()
    assert findings["timm"] == "not installed"
    assert trouble.startswith("timm cannot be imported")


def _missing(name):
    raise doctor.PackageNotFoundError(name)


# --- the machine ---------------------------------------------------------------------------------------------------


def test_cores_that_are_another_s(monkeypatch):
    monkeypatch.setattr(doctor, "cpu_limit", lambda: (4, float("inf")))
    findings, troubles = told()
    assert (findings["cores"], troubles) == ("4 of 8", [])


def test_a_container_s_share_of_time(monkeypatch):
    monkeypatch.setattr(doctor, "cpu_limit", lambda: (8, 2.5))
    findings, (trouble,) = told()
    assert findings["cores"] == "8, with the time of 2.5"
    assert "2.5 of 8 cores" in trouble
    assert "OMP_NUM_THREADS=2" in trouble


def test_little_memory(monkeypatch):
    monkeypatch.setattr(doctor, "ram", lambda: (32 * GB, 2 * GB))
    assert "only 2GB of memory is available" in told()[1][0]


def test_memory_that_is_not_told(monkeypatch):
    monkeypatch.setattr(doctor, "ram", lambda: (0, 0))
    monkeypatch.setattr(doctor, "shared_memory", lambda: None)
    findings, troubles = told()
    assert troubles == []
    assert not {"memory", "shared memory"} & findings.keys()


def test_docker_s_little_shared_memory(monkeypatch):
    monkeypatch.setattr(doctor, "shared_memory", lambda: 64 * 2**20)
    (trouble,) = told()[1]
    assert "(/dev/shm) has only 67.1MB" in trouble
    assert "--shm-size=8g" in trouble


# --- disk ----------------------------------------------------------------------------------------------------------


def test_the_cache_is_told_by_kind(tmp_path):
    for name, size in (("images/a/images.bin", 3000), ("memory/x.json", 20), (".half/y", 9)):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(size))
    assert told()[0]["cache"].endswith("cache: images 3kB, memory 20B")


@pytest.mark.parametrize(("free", "fatal"), [(5 * GB, False), (GB // 10, True)])
def test_little_disk_is_told_once_for_one_disk(monkeypatch, free, fatal):
    monkeypatch.setattr(doctor, "disk", lambda _: Disk(1, free, True))
    checkup = examine()
    (trouble,) = checkup.troubles
    assert "of disk is free at" in trouble.said
    assert "AUTOML_CACHE=FOLDER" in trouble.said
    assert checkup.can_search is not fatal


def test_the_disk_for_studies_may_be_another(monkeypatch):
    here = Path.cwd()
    monkeypatch.setattr(doctor, "disk", lambda folder: Disk(*((2, GB, True) if folder == here else (1, 99 * GB, True))))
    findings, (trouble,) = told()
    assert findings["disk for studies"] == f"1GB free at {here}"
    assert "--runs" in trouble


@pytest.mark.parametrize("what", ["cache", "studies"])
def test_a_folder_that_cannot_be_written_stops_every_search(monkeypatch, what):
    here = Path.cwd()
    monkeypatch.setattr(doctor, "disk", lambda folder: Disk(1, 99 * GB, (folder == here) is (what == "cache")))
    checkup = examine()
    (trouble,) = checkup.troubles
    assert trouble.fatal
    assert f"cannot be written, and the {what} would go there" in trouble.said


# --- weights -------------------------------------------------------------------------------------------------------


def cached(tmp_path, name, file="model.safetensors"):
    model = tmp_path / "hub" / f"models--{name}"
    (model / "blobs").mkdir(parents=True)
    (model / "blobs" / "0").write_bytes(bytes(500))
    (model / "snapshots" / "1").mkdir(parents=True)
    (model / "snapshots" / "1" / file).symlink_to(model / "blobs" / "0")


def test_the_hub_s_cache_is_counted(tmp_path):
    cached(tmp_path, "timm--resnet18.a1_in1k")
    cached(tmp_path, "timm--resnet34.a1_in1k", "pytorch_model.bin")
    cached(tmp_path, "someone--bert")
    assert told()[0]["weights cached"] == f"1 of timm's, 500B, in {tmp_path / 'hub'}"


def test_no_weights_within_reach(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "hub_reachable", lambda: False)
    findings, (trouble,) = told()
    assert findings["weights hub"] == "https://huggingface.co is out of reach"
    assert findings["weights cached"].startswith("none of timm's in")
    assert "no pretrained weights are within reach" in trouble
    assert "--weights-dir" in trouble
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert told()[0]["weights hub"].endswith("out of reach, as HF_HUB_OFFLINE says")
    cached(tmp_path, "timm--resnet18.a1_in1k")
    assert told()[1] == []


def test_a_folder_of_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "hub_reachable", lambda: False)
    folder = tmp_path / "weights"
    folder.mkdir()
    for stem in ("resnet50", "resnet50.a1_in1k"):
        (folder / f"{stem}.safetensors").touch()
    findings, troubles = told(folder)
    assert findings["weights folder"] == f"2 of timm's architectures in {folder}"
    assert troubles == []
    (folder / "epoch-7.safetensors").touch()
    assert "1 of 3 safetensors files" in told(folder)[1][0]


def test_a_folder_of_weights_that_is_not_there(tmp_path):
    with pytest.raises(WeightsError, match="is not a folder"):
        examine(tmp_path / "nowhere")


def test_checkups_add_up():
    both = Checkup((Finding("a", "1"),), (Trouble("x"),)) + Checkup((Finding("b", "2"),), (Trouble("y", fatal=True),))
    assert [finding.what for finding in both.findings] == ["a", "b"]
    assert [trouble.said for trouble in both.troubles] == ["x", "y"]
    assert not both.can_search


# --- before a search -----------------------------------------------------------------------------------------------


def test_a_search_begins_where_something_can_be_trained(tmp_path):
    refuse_hopeless(("cpu",), tmp_path / "runs")


def test_a_search_does_not_begin_where_nothing_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "disk", lambda folder: Disk(1, 100 * GB, folder != tmp_path / "runs"))
    with pytest.raises(StudyError, match=r"runs cannot be written, and the studies would go there: .*--runs"):
        refuse_hopeless(("cpu",), tmp_path / "runs")


def test_a_search_does_not_begin_on_a_full_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "disk", lambda _: Disk(1, 100 * 10**6, True))
    with pytest.raises(StudyError, match="only 100MB of disk is free"):
        refuse_hopeless(("cpu",), tmp_path / "runs")


def test_a_search_does_not_begin_on_a_gpu_that_torch_has_no_kernels_for(monkeypatch, tmp_path):
    """A P100 with today's torch: every step would fail with `no kernel image is available`."""
    import torch

    p100 = SimpleNamespace(name="Tesla P100-PCIE-16GB", major=6, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: p100)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
    with pytest.raises(StudyError, match=r"cannot compute on cuda:0 \(Tesla P100-PCIE-16GB\), .* older GPU needs"):
        refuse_hopeless(("cuda:0",), tmp_path / "runs")
    p100.major, p100.minor = 7, 5
    refuse_hopeless(("cuda:0",), tmp_path / "runs")
