import shutil

import numpy as np
import pytest
from PIL import Image

from automl.data.samples import open_dataset
from automl.data.summary import summarise
from automl.spec import DataSpec


@pytest.fixture
def folder(tmp_path):
    """Two classes with given splits and images of growing size."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("val", 4)):
        for name in ("fake", "real"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(n):
                pixels = rng.integers(0, 256, (20 + k, 30 + k, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{k}.png")
    return tmp_path


def summary(folder, progress=None):
    return summarise(open_dataset(DataSpec(path=folder, holdout_fraction=0), 0), progress)


def test_the_facts(folder):
    seen = []
    found = summary(folder, lambda done, total: seen.append((done, total)))
    assert found.format == "folder"
    assert found.classes == ("fake", "real")
    assert (found.positive_class, found.real_class) == ("fake", "real")
    assert found.counts == {"train": {"fake": 8, "real": 8}, "validation": {"fake": 4, "real": 4}}
    assert found.sizes.width == (30, 32, 37)
    assert found.sizes.height == (20, 22, 27)
    assert seen[-1] == (24, 24)
    assert not found.groups
    assert (found.unreadable, found.leaks, found.conflicts, found.copies, found.problems) == ((), (), (), 0, ())


def test_a_truncated_file_is_found(folder):
    bad = folder / "train" / "real" / "3.png"
    bad.write_bytes(bad.read_bytes()[:900])
    ((name, reason),) = summary(folder).unreadable
    assert name == "train/real/3.png"
    assert "truncated" in reason


def test_a_copy_in_another_split_is_a_leak(folder):
    shutil.copy(folder / "train" / "real" / "3.png", folder / "val" / "real" / "other.png")
    found = summary(folder)
    (leak,) = found.leaks
    assert set(leak.names) == {"train/real/3.png", "val/real/other.png"}
    assert leak.splits == ("train", "validation")
    assert not found.conflicts


def test_a_copy_with_another_label_is_a_conflict(folder):
    shutil.copy(folder / "train" / "real" / "3.png", folder / "train" / "fake" / "other.png")
    found = summary(folder)
    (conflict,) = found.conflicts
    assert conflict.labels == ("fake", "real")
    assert not found.leaks


def test_harmless_copies_are_counted(folder):
    for k in range(2):
        shutil.copy(folder / "train" / "real" / "3.png", folder / "train" / "real" / f"copy{k}.png")
    assert summary(folder).copies == 2


def test_groups_are_counted(tmp_path):
    for k in range(20):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(tmp_path / f"{k}.png")
    lines = "".join(f"{k}.png,{k % 2},g{k // 2}\n" for k in range(20))
    (tmp_path / "labels.csv").write_text("file,label,group\n" + lines)
    found = summary(tmp_path)
    assert sum(found.groups.values()) == 10
