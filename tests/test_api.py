import subprocess
import sys
import types

import pytest

import automl
from automl.errors import AutomlError, DataError, PoolError, SpecError, StudyError
from automl.recipe import Recipe
from automl.spec import StudySpec
from automl.study.search import open_result, search
from tests.fixtures.studies import SPACE, images  # noqa: F401 - a fixture


@pytest.fixture
def quick(tmp_path, images, monkeypatch):  # noqa: F811
    """What every search here shares: a tiny network from scratch on tiny pictures."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    pool = {"names": ["test_byobnet*"], "size": 1}
    runs = tmp_path / "runs"
    return {"data": images, "runs": runs, "space": str(space), "pool": pool, "pretrained": "never", "confirm": 0}


def test_public_names():
    assert automl.__all__ == ["AutomlError", "Model", "Recipe", "StudySpec", "load", "search"]
    for name in automl.__all__:
        assert getattr(automl, name) is not None
    assert not hasattr(automl, "nonesuch")
    assert automl.__version__


def test_search_is_a_function_and_a_package():
    code = (
        "import sys, automl; assert 'torch' not in sys.modules; f = automl.search; assert callable(f)\n"
        "import automl.study.pool; assert automl.search is f; from automl import search; assert search is f"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert isinstance(automl.search, types.ModuleType)


def test_importing_automl_is_quick():
    code = "import sys, automl; print(sorted({'torch', 'optuna', 'timm', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_search_gives_the_best_recipe_continues_and_confirms_it(quick, tmp_path, capsys):
    result = automl.search(trials=2, **quick)
    assert isinstance(result.best, Recipe)
    assert result.metric == "auc"
    assert result.best_value == max(result.trials["value"])
    assert len(result.trials) == 2
    assert Recipe.load(result.folder.best) == result.best
    assert len(result.folder.trials.read_text().splitlines()) == 3
    assert result.confirmation is None
    more = automl.search(trials=3, **(quick | {"confirm": 1}))
    assert len(more.trials) == 3
    printed = capsys.readouterr().out
    assert "continuing study tones: 2 of 3 trials are done" in printed
    assert more.confirmation.best.recipe == more.best
    assert len(more.confirmation.best.seeds) == 3
    assert more.confirmation.holdout is not None
    best = more.confirmation.best.trial
    assert f"of 3: trial {best}, test_byobnet.r160_in1k, seed 1: validation auc" in printed
    again = open_result(result.folder)
    assert again.best == more.best
    with pytest.raises(StudyError, match="seed was 0, is 1"):
        automl.search(trials=3, seed=1, **quick)
    with pytest.raises(SpecError, match="confirm"):
        automl.search(trials=1, **(quick | {"confirm": -1}))


def test_what_is_given_wins_over_a_spec(tmp_path):
    spec = StudySpec(seed=3)
    with pytest.raises(DataError, match="nowhere"):
        search(tmp_path / "nowhere", spec=spec)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"data": "/no/such/folder"}, DataError, "/no/such/folder"),
        ({"gpu_mem": "lots"}, SpecError, "budget.gpu_mem"),
        ({"gpu_mem": "90%", "device": "cpu"}, SpecError, "nothing here is a GPU; give a size like 16GB"),
        ({"timeout": "soon"}, SpecError, "budget.timeout"),
        ({"trials": 0}, SpecError, "budget.trials"),
        ({"device": "cuda:97"}, StudyError, "no device 'cuda:97' here; there is: cpu"),
        ({"storage": "study.db"}, StudyError, "not a storage"),
        ({"spec": "nonesuch"}, SpecError, "nonesuch"),
        ({"sampler": "tp"}, SpecError, "sampler"),
        ({"pool": {"names": ["nonesuch*"]}}, AutomlError, "nonesuch"),
        ({"gpu_mem": "100MB"}, PoolError, "the smallest need is"),
        ({"weights_dir": "/no/such/weights"}, AutomlError, "/no/such/weights"),
    ],
    ids=str,
)
def test_mistakes_are_told(quick, given, error, message):
    with pytest.raises(error, match=message):
        automl.search(**(quick | given))
