"""What a search refuses before anything is decoded, and before any process is started."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from automl.doctor import machine
from automl.doctor.machine import Disk
from automl.errors import AutomlError, PoolError, SpecError, StudyError, WeightsError
from automl.spec import StudySpec
from automl.study import readiness
from automl.study.readiness import plan_pool, read_start
from automl.study.search import search
from automl.study.setup import create_study
from automl.study.supervisor import Supervisor
from tests.fixtures.photos import save_photos
from tests.fixtures.reporter import RecordingReporter
from tests.fixtures.studies import folder_of, setup_without_files, spec_without_files

GB = 10**9


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate(("real", "fake")):
        save_photos(tmp_path / "photos" / name, range(10 * number, 10 * number + 10))
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _nothing_is_done(monkeypatch, tmp_path):
    """No hub, and no worker: a refusal comes before."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("automl.study.candidates.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(Supervisor, "start_workers", lambda _: pytest.fail("a worker was started"))


def start(photos, **values):
    lines = []
    return read_start(StudySpec.from_mapping({"data": {"path": photos}} | values), photos.parent / "runs", lines.append)


def plan(photos, **values):
    first = start(photos, **values)
    return plan_pool(first.spec, first.space, ("cpu",), print)


def test_a_space_that_draws_in_vain_is_warned_of(photos):
    path, reporter = photos.parent / "space.yaml", RecordingReporter()
    path.write_text("tune: head\nfreeze_epochs: {ordered: [0, 1]}\n")
    spec = StudySpec(data={"path": photos}, space=str(path))
    read_start(spec, photos.parent / "runs", reporter.print_line)
    assert reporter.lines == [f"warning: {path} line 2: freeze_epochs has no effect beside tune head"]


MISTAKES = """
import sys, automl
photos, runs = sys.argv[1:]
for given in (
    {"data": photos + "/nosuch"},
    {"space": "nosuch"},
    {"storage": "nosuch"},
    {"storage": "sqlite:////nosuch/study.db"},
    {"weights_dir": "nosuch"},
    {"warm_start": "nosuch"},
    {"pool": {"names": ["nosuchnet"]}},
    {"pretrained": "require"},
    {"runs": photos + "/real/0.png"},
):
    try:
        automl.search(**({"data": photos, "runs": runs} | given))
    except automl.AutomlError as exc:
        print(str(exc).splitlines()[0])
print([name for name in ("torch", "timm", "sklearn") if name in sys.modules])
"""


@pytest.mark.slow
def test_a_mistake_is_refused_before_torch_is_imported(photos, tmp_path):
    (photos / "real" / "0.png").touch()
    done = subprocess.run(
        [sys.executable, "-c", MISTAKES, photos, tmp_path / "runs"], capture_output=True, text=True, check=True
    )
    *refused, imported = [line for line in done.stdout.splitlines() if not line.startswith(("data:", "read:"))]
    parts = [
        "nosuch",
        "nosuch",
        "not a storage",
        "cannot open the storage",
        "nosuch",
        "nosuch",
        "nosuchnet",
        "no backbone has weights in",
        "cannot be",
    ]
    assert len(refused) == len(parts)
    assert all(part in line for part, line in zip(parts, refused, strict=True)), refused
    assert imported == "[]"
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize(
    ("full", "storage", "message"),
    [
        (
            "runs",
            None,
            r"only 100MB of disk is free at .*runs, where the studies would go; at least 500MB are needed: .*--runs",
        ),
        ("cache", None, "where the cache would go; .*AUTOML_CACHE"),
        ("elsewhere", "sqlite:///{}/study.db", "where the storage would go; at least 5MB .*another --storage"),
        ("elsewhere", "{}/study.log", "where the storage would go"),
    ],
)
def test_a_full_disk_is_refused_wherever_it_is(photos, tmp_path, monkeypatch, full, storage, message):
    folders = {"runs": tmp_path / "runs", "cache": tmp_path / "cache", "elsewhere": tmp_path / "elsewhere"}
    monkeypatch.setenv("AUTOML_CACHE", str(folders["cache"]))
    free = 100 * 10**6 if full != "elsewhere" else 10**6
    monkeypatch.setattr(
        machine, "find_disk", lambda folder: Disk(2, free, True) if folder == folders[full] else Disk(1, 99 * GB, True)
    )
    with pytest.raises(StudyError, match=message):
        start(photos, storage=storage and storage.format(folders["elsewhere"]))


@pytest.mark.parametrize("storage", ["postgresql://host:1/db", None, "sqlite:///:memory:"])
def test_a_storage_that_is_no_file_has_no_disk_here(photos, monkeypatch, storage):
    def stop(_, folder):
        raise StudyError(f"looked at {folder}")

    monkeypatch.setattr(readiness, "refuse_machine", stop)
    with pytest.raises(StudyError, match="looked at None"):
        start(photos, storage=storage)


def test_next_to_no_memory_is_refused(photos, monkeypatch):
    monkeypatch.setattr(machine, "read_memory", lambda: (2 * GB, GB // 2))
    monkeypatch.setattr(machine, "_read_meminfo", dict)
    with pytest.raises(StudyError, match="only 500MB of memory is available"):
        start(photos)


# --- weights and budgets ------------------------------------------------------------------------------------------


def test_weights_that_are_required_and_out_of_reach_are_refused(photos, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "my_own_name.safetensors").touch()
    with pytest.raises(PoolError, match=r"no backbone has weights in .*weights, the hub's cache or the hub; give"):
        plan(photos, pretrained="require", weights_dir=tmp_path / "weights")
    with pytest.raises(PoolError, match="resnet50: no weights in the hub's cache or the hub; give --weights-dir"):
        plan(photos, pool={"names": ["resnet50"]})
    (tmp_path / "weights" / "resnet50.safetensors").write_bytes(b"no tensors")
    assert start(photos, pretrained="require", weights_dir=tmp_path / "weights").study is None
    with pytest.raises(WeightsError, match="is not a readable safetensors file"):
        plan(photos, pool={"names": ["resnet50"]}, weights_dir=tmp_path / "weights")


def test_small_backbones_without_weights_are_no_reason_to_refuse(photos):
    planned = plan(photos, pretrained="auto")
    assert any("NO PRETRAINED WEIGHTS" in note for note in planned.candidates.notes)
    assert all(weights is None for _, weights in planned.candidates.backbones)


def test_a_budget_that_no_backbone_can_fit_is_refused_with_who_holds_the_card(photos, monkeypatch):
    with pytest.raises(PoolError, match=r"no backbone fits --gpu-mem 100MB: the smallest, .*, needs more than 2.3"):
        plan(photos, budget={"gpu_mem": "100MB"})
    held = SimpleNamespace(bytes=10**6, notes=("GPU memory: auto is 1MB: 15GB of Tesla T4, less 15GB used by x",))
    monkeypatch.setattr(readiness, "decide_budget", lambda *_: held)
    with pytest.raises(PoolError, match=r"fits --gpu-mem 1MB.*\n.*less 15GB used by x"):
        plan(photos)


def test_a_share_of_a_gpu_that_is_not_there_is_refused(photos):
    with pytest.raises(SpecError, match="there is no GPU here"):
        search(photos, gpu_mem="90%", device="cpu", runs=photos.parent / "runs", reporter=RecordingReporter())


# --- a study that exists ------------------------------------------------------------------------------------------


def test_another_spec_or_storage_for_an_existing_study_is_refused_without_torch(photos, tmp_path, monkeypatch):
    folder = folder_of(tmp_path)
    create_study(folder, spec_without_files(), setup_without_files())
    for find in ("find_usable_devices", "plan_pool"):
        monkeypatch.setattr(f"automl.study.search.{find}", lambda *_: pytest.fail("looked at devices"))
    for given, message in (
        ({"seed": 7}, "exists with another spec"),
        ({"storage": f"sqlite:///{tmp_path}/other.db"}, "exists in the storage"),
        ({"warm_start": folder.name}, "a study cannot begin with itself"),
    ):
        with pytest.raises(AutomlError, match=message):
            search(photos, name=folder.name, runs=folder.path.parent, reporter=RecordingReporter(), **given)
