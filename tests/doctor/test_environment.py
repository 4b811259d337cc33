import importlib
import sys
from types import SimpleNamespace

import pytest

from automl.doctor import environment
from automl.doctor.environment import check_packages, check_weights
from automl.doctor.report import Options, make_report

# --- packages ------------------------------------------------------------------------------------------------------


def packages(tmp_path):
    report = make_report(check_packages(Options(tmp_path)))
    return {fact.name: fact.text for fact in report.findings}, report.problems


def test_packages_without_problems(tmp_path):
    findings, problems = packages(tmp_path)
    assert list(findings) == ["automl", "Python", "torch", "torchvision", "timm"]
    assert sys.executable in findings["Python"]
    assert not problems


@pytest.mark.parametrize(
    ("cuda", "hip", "text"), [("12.4", None, "CUDA 12.4"), (None, "6.2", "ROCm 6.2"), (None, None, "without CUDA")]
)
def test_the_build_of_torch_is_shown(monkeypatch, tmp_path, cuda, hip, text):
    import torch

    monkeypatch.setattr(torch, "version", SimpleNamespace(cuda=cuda, hip=hip))
    assert text in packages(tmp_path)[0]["torch"]


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
def test_a_library_that_cannot_be_imported_stops_every_search(monkeypatch, tmp_path, name, error, words):
    real = importlib.import_module

    def broken(wanted):
        if wanted == name:
            raise error
        return real(wanted)

    monkeypatch.setattr(environment.importlib, "import_module", broken)
    _, (problem,) = packages(tmp_path)
    assert problem.fatal
    assert all(word in problem.text for word in words)


def test_a_library_that_is_not_installed(monkeypatch, tmp_path):
    def missing(name):
        raise environment.PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(environment, "version", missing)
    findings, (problem,) = packages(tmp_path)
    assert findings["timm"] == "not installed"
    assert problem.text.startswith("timm cannot be imported")


# --- weights -------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """Checks weights with an empty cache and a hub that answers or not → (findings by name, texts of problems)."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)

    def check(folder=None, hub=True):
        monkeypatch.setattr("automl.doctor.environment.hub_reachable", lambda: hub)
        report = make_report(check_weights(Options(tmp_path, folder)))
        return {fact.name: fact.text for fact in report.findings}, [problem.text for problem in report.problems]

    return check


def cache_model(tmp_path, name, file="model.safetensors"):
    model = tmp_path / "hub" / f"models--{name}"
    (model / "blobs").mkdir(parents=True)
    (model / "blobs" / "0").write_bytes(bytes(500))
    (model / "snapshots" / "1").mkdir(parents=True)
    (model / "snapshots" / "1" / file).symlink_to(model / "blobs" / "0")


def test_the_hub_s_cache_is_counted(weights, tmp_path):
    cache_model(tmp_path, "timm--resnet18.a1_in1k")
    cache_model(tmp_path, "timm--resnet34.a1_in1k", "pytorch_model.bin")
    cache_model(tmp_path, "someone--bert")
    findings, problems = weights()
    assert findings["weights cached"] == f"1 of timm's, 500B, in {tmp_path / 'hub'}"
    assert findings["weights hub"] == "https://huggingface.co answers"
    assert not problems


def test_no_weights_within_reach(weights, monkeypatch, tmp_path):
    findings, (problem,) = weights(hub=False)
    assert findings["weights hub"] == "https://huggingface.co is out of reach"
    assert findings["weights cached"].startswith("none of timm's in")
    assert "no pretrained weights are within reach" in problem
    assert "--weights-dir" in problem
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert weights(hub=False)[0]["weights hub"].endswith("out of reach, as HF_HUB_OFFLINE says")
    cache_model(tmp_path, "timm--resnet18.a1_in1k")
    assert not weights(hub=False)[1]


def test_a_folder_of_weights(weights, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    for stem in ("resnet50", "resnet50.a1_in1k"):
        (folder / f"{stem}.safetensors").touch()
    findings, problems = weights(folder, hub=False)
    assert findings["weights folder"] == f"2 of timm's architectures in {folder}"
    assert not problems
    (folder / "epoch-7.safetensors").touch()
    assert "1 of 3 safetensors files" in weights(folder, hub=False)[1][0]
