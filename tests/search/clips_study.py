"""A tiny study of clips through two views, and its views joined: made once for a process of tests, then copied."""

import shutil
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from automl.data import open_dataset
from automl.recipe import Frame, Mel, Recipe
from automl.search import retrainer
from automl.search.facts import Facts, digest, store_facts
from automl.search.folder import StudyFolder
from automl.search.pool import Pool
from automl.search.retraining import Retraining
from automl.search.study import freeze
from automl.space import parse_space
from automl.spec import StudySpec
from automl.training.interval import metric_interval
from tests.data.views.clips import tone, write_clip
from tests.search.conftest import SPACE, entry
from tests.search.told import Told

SPLITS = {"train": 8, "validation": 8, "holdout": 8}
MUTE = ("validation0.mkv", "holdout0.mkv", "holdout3.mkv")
FRAME, MEL = Frame(count=2), Mel(count=1, seconds=0.5)
NAME = "clips"


def write_clips(root, classes=2):
    """Clips of half a second: the higher the class, the brighter and the higher the tone; some without sound."""
    root.mkdir()
    random, rows = np.random.default_rng(0), ["video_name,target,split"]
    for split, count in SPLITS.items():
        for number in range(count):
            label, name = number % classes, f"{split}{number}.mkv"
            frames = [(random.integers(0, 120, (48, 64, 3)) + 60 * label).astype(np.uint8) for _ in range(5)]
            sound = None if name in MUTE else tone(0.5, hertz=400 * 3**label)
            write_clip(root / name, frames, sound)
            rows.append(f"{name},{label},{split}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def recipe(view=FRAME, backbone="test_byobnet.r160_in1k", **values):
    given = {"pretrained": False, "image_size": 32, "batch_size": 4, "epochs": 2, "learning_rate": 3e-3}
    return Recipe(backbone=backbone, view=view, **(given | values))


TRIALS = (
    (0.7, recipe()),
    (0.9, recipe(backbone="test_vit.r160_in1k")),
    (0.8, recipe(MEL)),
    (0.75, recipe(MEL, learning_rate=1e-3)),
)
"""The best of each view are 1 and 2."""


def make_study(folder, clips, trials=TRIALS, metric="auc", **data):
    """A study whose trials nobody had to train."""
    given = {"path": clips, "label_column": "target", "split_column": "split", "real_class": "0"} | data
    storage = str(folder.parent.parent / f"{folder.name}.log")
    spec = StudySpec.from_mapping({"data": given, "budget": {"trials": 4}, "pruner": "none", "storage": storage})
    dataset = open_dataset(spec.data, spec.seed)
    pool = Pool((entry(), entry("test_vit.r160_in1k", family="vit")))
    facts = Facts(dataset, parse_space(SPACE), pool, metric, 32, None, None, digest(dataset))
    found = StudyFolder(folder)
    found.create()
    study = freeze(found, spec, "maximize", store_facts(facts, found))
    for value, wanted in trials:
        trial = study.ask()
        trial.set_user_attr("recipe", wanted.model_dump_json())
        trial.set_user_attr("backbone", wanted.backbone)
        trial.set_user_attr("view", wanted.view.name)
        trial.set_user_attr("fit_seconds", 100.0)
        study.tell(trial, value)
    return found


@dataclass(frozen=True)
class Shared:
    """What all tests of a process use, and none may change."""

    clips: Path
    cache: Path
    runs: Path
    """With the study `clips`, joined."""
    model: Path
    lines: tuple[str, ...]
    """What was said meanwhile."""


@cache
def made(root):
    """Makes the clips, the study and the model, once for a process whichever module asks."""
    from automl.export.view_ensemble import ensemble_views

    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOML_CACHE", str(root / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(retrainer, "metric_interval", partial(metric_interval, repeats=40))
        clips, told = write_clips(root / "data"), Told()
        folder = make_study(root / "runs" / NAME, clips)
        shutil.copytree(root / "runs", root / "fresh")
        ensemble_views(folder, root / "model", device="cpu", reporter=told)
    return Shared(clips, root / "cache", root / "runs", root / "model", tuple(told.lines))


def copied(runs, target):
    """A copy of the study with a storage of its own."""
    folder = StudyFolder(shutil.copytree(runs / NAME, target / "runs" / NAME))
    storage = shutil.copy(runs.parent / f"{NAME}.log", target / f"{NAME}.log")
    folder.storage_note.write_text(f"{storage}\n")
    return folder


@pytest.fixture
def shared_study(tmp_path_factory, monkeypatch):
    """The study that is joined, for reading."""
    found = made(tmp_path_factory.getbasetemp() / "joined")
    monkeypatch.setenv("AUTOML_CACHE", str(found.cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return found


@pytest.fixture
def joined(shared_study, tmp_path):
    """A copy of the study that is joined."""
    return copied(shared_study.runs, tmp_path)


@pytest.fixture
def fresh(shared_study, tmp_path):
    """A copy of the study that is not joined yet."""
    return copied(shared_study.runs.parent / "fresh", tmp_path)


@pytest.fixture
def untrained(monkeypatch):
    """Retraining takes no time, and what it gives is random but tells; returns the (view, seed) pairs trained."""
    asked = []

    def guess(self, data, split):
        labels = data.labels(split)
        noise = np.random.default_rng([self.trial, len(split)]).random(len(labels))
        positive = 0.05 + 0.9 * np.clip(0.4 * labels + 0.6 * noise, 0, 1)
        return np.stack([1 - positive, positive], axis=1)

    def train(self, data, *_):
        asked.append((self.recipe.view.name, self.recipe.seed))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.weights.touch()
        arrays = {"validation": guess(self, data, "validation"), "labels": data.labels("validation")}
        np.savez(self.predictions, recipe=self.recipe.model_dump_json(), **arrays)

    def predict(self, data, split, device):
        assert self.weights.exists()
        return guess(self, data, split)

    monkeypatch.setattr(Retraining, "train", train)
    monkeypatch.setattr(Retraining, "predict", predict)
    monkeypatch.setattr(retrainer, "metric_interval", partial(metric_interval, repeats=40))
    return asked
