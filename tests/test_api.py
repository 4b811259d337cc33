import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import automl
from automl.cli.main import COMMANDS, app
from automl.errors import AutomlError, DataError, PoolError, SpecError, StudyError
from automl.recipe import Recipe
from automl.spec import StudySpec
from automl.study.search import open_result, search
from automl.study.supervisor import Supervisor
from tests.fixtures.studies import SPACE

CLASSES = ["AutomlError", "Model", "Recipe", "StudySpec"]
PUBLIC = [
    *CLASSES,
    "compare",
    "confirm",
    "ensemble",
    "evaluate",
    "export",
    "load",
    "preview",
    "report",
    "search",
    "train",
]
CALLED = {command.callback.__name__: command.callback for command in app.registered_commands}

ROOT = Path(__file__).parents[1]


@pytest.fixture
def quick(tmp_path, images, monkeypatch, one_process):
    """What every search here shares: a tiny network from scratch on tiny pictures."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    pool = {"names": ["test_byobnet*"], "size": 1}
    runs = tmp_path / "runs"
    return {"data": images, "runs": runs, "space": str(space), "pool": pool, "pretrained": "never", "confirm": 0}


def test_public_names():
    assert automl.__all__ == PUBLIC
    for name in PUBLIC:
        assert callable(getattr(automl, name))
    assert not hasattr(automl, "nonesuch")
    assert automl.__version__


@pytest.mark.parametrize("name", [name for name in PUBLIC if name in COMMANDS])
def test_a_command_has_the_arguments_and_defaults_of_its_function(name):
    command, function = CALLED[name], inspect.signature(getattr(automl, name)).parameters
    settings = getattr(command, "settings", {})
    parameters = inspect.signature(command).parameters.items()
    own = {key: value for key, value in parameters if key not in {*settings, "json"}}
    received, accepted = (
        own.keys() | {setting.target[0] for setting in settings.values()},
        function.keys() - {"reporter"},
    )
    if "overrides" in accepted:  # any key of the study spec
        received, accepted = received - StudySpec.model_fields.keys(), accepted - settings.keys() - {"overrides"}
    assert received == accepted
    assert [key for key, value in own.items() if str(value.default) != str(function[key].default)] == []


def test_importing_automl_is_quick():
    code = "import sys, automl; print(sorted({'torch', 'optuna', 'timm', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_predicting_needs_no_optuna():
    model, image = (ROOT / "tests" / "fixtures" / "made_by_5aab889" / name for name in ("models/tones", "tones"))
    code = (
        "import sys, automl; n = len(automl.load(sys.argv[1]).predict(sys.argv[2])); print(n, 'optuna' in sys.modules)"
    )
    line = [sys.executable, "-c", code, str(model), str(image)]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "40 False\n"


def test_a_search_gives_the_best_recipe_continues_and_confirms_it(quick, capsys, monkeypatch):
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
    assert "continuing study tones: 2 of 3 trials done" in printed
    assert more.confirmation.best.recipe == more.best
    assert len(more.confirmation.best.seeds) == 3
    assert more.confirmation.holdout is not None
    best = more.confirmation.best.trial
    assert f"of 3: trial {best}, test_byobnet.r160_in1k, seed 1: validation auc" in printed
    monkeypatch.setattr(Supervisor, "watch_workers", lambda *_: pytest.fail("a worker for nothing"))
    again = automl.search(trials=2, **quick)
    assert "continuing study tones: 3 trials done; none is left to train: give more" in capsys.readouterr().out
    assert again.best == open_result(result.folder).best == more.best
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
        ({"gpu_mem": "lots"}, SpecError, "--gpu-mem: not a size"),
        ({"gpu_mem": "90%", "device": "cpu"}, SpecError, "there is no GPU here; give a size like 16GB"),
        ({"timeout": "soon"}, SpecError, "--timeout: not a duration"),
        ({"trials": 0}, SpecError, "--trials: 0 is too small; give 1 or more"),
        ({"device": "cuda:97"}, StudyError, "no device 'cuda:97' here; there is: cpu"),
        ({"storage": "study.db"}, StudyError, "not a storage"),
        ({"spec": "nonesuch"}, SpecError, "nonesuch"),
        ({"sampler": "tp"}, SpecError, "sampler"),
        ({"pool": {"names": ["nonesuch*"]}}, AutomlError, "nonesuch"),
        ({"gpu_mem": "100MB"}, PoolError, "no backbone fits --gpu-mem 100MB: the smallest"),
        ({"weights_dir": "/no/such/weights"}, AutomlError, "/no/such/weights"),
    ],
    ids=str,
)
def test_mistakes_are_told(quick, given, error, message):
    with pytest.raises(error, match=message):
        automl.search(**(quick | given))
