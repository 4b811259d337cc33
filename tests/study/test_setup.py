import pytest

from automl.data.cache import build_cache
from automl.data.dataset import open_dataset
from automl.gpu.budget import MemoryBudget
from automl.space.space import parse_space
from automl.study import setup as facts_module
from automl.study.folder import StudyFolder
from automl.study.pool import Pool
from automl.study.setup import find_facts, load_facts, store_facts
from automl.study.study import freeze
from tests.fixtures.studies import SPACE, entry, spec_of


@pytest.fixture
def found(images, monkeypatch):
    """Finds the facts of a study on the tiny pictures under a memory budget → (spec, facts, what was said, limits)."""
    limits = []

    def build(_spec, limit, *_):
        limits.append(limit)
        return Pool((entry(),))

    monkeypatch.setattr(facts_module, "build_pool", build)

    def find(memory):
        spec, said = spec_of(images, budget={"trials": 1, "gpu_mem": "auto"}), []
        dataset = open_dataset(spec.data, spec.seed)
        cache = build_cache(dataset, 32)
        facts = find_facts(spec, dataset, cache, parse_space(SPACE), ("cuda:0",), memory, said.append)
        return spec, facts, said, limits[-1]

    return find


def test_the_pool_is_chosen_within_the_budget_which_is_told(found):
    _, facts, said, limits = found(MemoryBudget(10**10, ("GPU memory: auto is 10GB",)))
    assert limits.memory_bytes == facts.memory_bytes == 10**10
    assert said[0] == "GPU memory: auto is 10GB"


def test_a_continued_study_keeps_its_budget(found, tmp_path):
    spec, facts, _, _ = found(MemoryBudget(10**10, ()))
    folder = StudyFolder(tmp_path / "runs" / "tones")
    folder.create()
    stored = store_facts(facts, folder)
    study = freeze(folder, spec, "maximize", stored)
    again = freeze(folder, spec, "maximize", stored)  # the same command, another day
    assert load_facts(again, folder).memory_bytes == load_facts(study, folder).memory_bytes == 10**10
