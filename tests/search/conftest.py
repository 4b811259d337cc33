import numpy as np
import pytest
from PIL import Image

from automl.data import build_cache, open_dataset
from automl.search.facts import Facts, digest, store_facts
from automl.search.folder import StudyFolder
from automl.search.pool import Pool, PoolEntry
from automl.search.study import freeze
from automl.space import parse_space
from automl.spec import StudySpec
from automl.training.numerics import Timing

SPACE = """
backbone: {pool: {}}
image_size: 32
batch_size: 8
epochs: 2
optimizer: {choice: {adamw: {}, sgd: {momentum: {float: [0.8, 0.95]}}}}
learning_rate: {float: [1e-3, 1e-2], log: true}
weight_decay: {float: [1e-4, 1e-1], log: true}
ema_decay: {ordered: [0.0, 0.9]}
schedule: {choice: {cosine: {}, one_cycle: {}, wsd: {}}}
"""
"""Numbers, choices, and a parameter that one branch has alone."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Two kinds of noise, one brighter: (32, 32) pictures in a folder for each."""
    root, random = tmp_path_factory.mktemp("images") / "tones", np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for k in range(24):
            pixels = random.integers(0, 120, (32, 32, 3)) + 60 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{k:02}.png")
    return root


def entry(backbone="test_byobnet.r160_in1k", score=1.0, train_seconds=0.001, **values):
    timing = Timing("fp32", "contiguous", train_seconds, train_seconds / 3, 32)
    given = {"family": "byobnet", "params_m": 0.5, "weights": None, "weights_path": None, "peak_bytes": 10**9}
    return PoolEntry(backbone=backbone, score=score, timing=timing, **(given | {"fits_all": True} | values))


def spec_of(images, **values):
    given = {"data": {"path": images}, "budget": {"trials": 6}, "pruner": "none", "sampler": "random"}
    return StudySpec.from_mapping(given | values)


@pytest.fixture
def begun(tmp_path, images):
    """Begins a study on the tiny pictures: `begun(trials=3, sampler="tpe", pool=[entry()])` → (study, folder)."""

    def begin(name="tones", space=SPACE, pool=None, facts=None, trials=6, **values):
        # a journal opens in a hundredth of the time that SQLite takes, which test_study.py and the searches try
        journal = {"storage": str(tmp_path / f"{name}.log")}
        spec = spec_of(images, budget={"trials": trials}, **(journal | values))
        dataset = open_dataset(spec.data, spec.seed)
        build_cache(dataset, 32)
        found = {"memory_bytes": None, "trial_seconds": None, "metric": "auc"} | (facts or {})
        ground = Facts(
            dataset=dataset,
            space=parse_space(space),
            pool=Pool(tuple(pool or [entry()])),
            cache_size=32,
            samples_digest=digest(dataset),
            **found,
        )
        folder = StudyFolder(tmp_path / "runs" / name)
        folder.create()
        return freeze(folder, spec, "maximize", store_facts(ground, folder)), folder

    return begin
