from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automl.errors import SpecError
from automl.files import load_yaml, shipped
from automl.spec import METRICS, Budget, DataSpec, PoolSpec, StudySpec, describe_validation, list_shipped_specs
from automl.units import Share

WORDS = st.text(alphabet="abcXYZ019_-. /~é:#'", min_size=1, max_size=12)
PATHS = st.none() | WORDS.map(Path)
FRACTIONS = st.floats(0.01, 0.4)
SPECS = st.builds(
    StudySpec,
    name=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True),
    data=st.builds(
        DataSpec,
        path=PATHS,
        label_column=st.none() | WORDS,
        real_class=st.none() | WORDS,
        validation_fraction=FRACTIONS,
        holdout_fraction=FRACTIONS,
    ),
    budget=st.builds(
        Budget,
        gpu_mem=st.none() | st.integers(1, 10**13) | st.just("auto") | st.floats(1, 100).map(Share),
        trials=st.integers(1, 10**4),
        timeout=st.none() | st.floats(1e-3, 1e8),
    ),
    pool=st.builds(
        PoolSpec,
        names=st.lists(WORDS, max_size=3).map(tuple),
        boards=st.dictionaries(st.sampled_from(["a", "r", "v2"]), st.floats(0.1, 3), min_size=1),
        max_params=st.none() | st.floats(0.1, 1e4),
    ),
    metric=st.sampled_from(["auto", *METRICS]),
    sampler=st.sampled_from(["tpe", "gp", "random", "qmc"]),
    weights_dir=PATHS,
    storage=st.none() | WORDS,
    seed=st.integers(0, 2**31),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(spec=SPECS)
def test_a_written_spec_loads_equal(tmp_path, spec):
    path = tmp_path / "study.yaml"
    path.write_text(spec.to_yaml(), encoding="utf-8")
    assert StudySpec.load(str(path)) == spec


def test_an_empty_file_is_all_defaults(tmp_path):
    (tmp_path / "study.yaml").write_text("# nothing yet\n")
    assert StudySpec.load(str(tmp_path / "study.yaml")) == StudySpec()


def test_budgets_are_read_as_people_write_them():
    spec = StudySpec.from_mapping({"budget": {"gpu_mem": "16GiB", "timeout": "8h30m"}})
    assert spec.budget.gpu_mem == 16 * 2**30
    assert spec.budget.timeout == 30_600


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("90%", Share(90)), ("16GB", 16 * 10**9)])
def test_gpu_memory_stays_what_was_asked_for(text, value):
    spec = StudySpec.from_mapping({"budget": {"gpu_mem": text}})
    assert spec.budget.gpu_mem == value
    assert StudySpec.from_mapping(spec.model_dump()) == StudySpec.from_mapping(spec.model_dump(mode="json")) == spec
    assert spec.model_dump(mode="json")["budget"]["gpu_mem"] == (value if text == "16GB" else text)


def test_all_mistakes_are_listed_at_once_quantities_included():
    values = {
        "budget": {"gpu_mem": "lots", "timeout": "soon", "trials": 0},
        "sampler": "tp",
        "pool": {"max_params": -3},
        "name": "../escape",
        "sed": 3,
    }
    with pytest.raises(SpecError) as caught:
        StudySpec.from_mapping(values, "study.yaml")
    lines = str(caught.value).splitlines()
    for where in ("budget.gpu_mem", "budget.timeout", "budget.trials", "sampler", "pool.max_params", "name", "sed"):
        assert sum(line.startswith(f"study.yaml: {where}: ") for line in lines) == 1, where
    assert len(lines) == 7
    assert any("16GB" in line for line in lines)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "a b", "-x", "a\n"])
def test_a_study_name_cannot_leave_its_folder(name):
    with pytest.raises(SpecError, match="name"):
        StudySpec.from_mapping({"name": name})


def test_overrides_win_and_leave_the_rest(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("seed: 3\nbudget: {trials: 7, gpu_mem: 8GB}\n")
    spec = StudySpec.load(str(path), {"budget": {"trials": 9}, "sampler": "random"})
    assert (spec.seed, spec.sampler) == (3, "random")
    assert spec.budget == Budget(trials=9, gpu_mem=8 * 10**9)


def test_a_file_needs_no_ending(tmp_path):
    (tmp_path / "study").write_text("seed: 3\n")
    assert StudySpec.load(str(tmp_path / "study")).seed == 3


@pytest.mark.parametrize("name", ["nothing-of-that-name", "nothing.yaml"])
def test_a_missing_spec_is_named(name):
    with pytest.raises(SpecError, match=name):
        StudySpec.load(name)


@pytest.mark.parametrize("content", ["- 1", "resnet18", "3"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, content):
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(SpecError, match=r"study\.yaml: a study spec is a mapping"):
        StudySpec.load(str(path))


def test_broken_yaml_is_located(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("budget: {trials: 7\nseed: 3\n")
    with pytest.raises(SpecError, match=r"study\.yaml line 2, column"):
        StudySpec.load(str(path))


def test_a_mistake_of_a_file_has_its_line_and_one_of_a_flag_the_flag(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("seed: 3\nbudget:\n  trials: 0\npool: {size: 0}\n")
    with pytest.raises(SpecError) as caught:
        StudySpec.load(str(path), {"pool": {"size": -1}})
    assert str(caught.value).splitlines() == [
        f"{path} line 3: budget.trials: 0 is too small; give 1 or more",
        "--pool-size: -1 is too small; give 1 or more",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("bugdet: {trials: 3}", "line 1: bugdet: there is no such name; did you mean 'budget'?"),
        ("budget: {trails: 3}", "line 1: budget.trails: there is no such name; did you mean 'trials'?"),
        ("zzz: {a: 1}", "line 1: zzz: there is no such name"),
    ],
)
def test_an_unknown_name_is_compared_with_those_that_may_stand_there(tmp_path, text, mistake):
    path = tmp_path / "study.yaml"
    path.write_text(f"{text}\n")
    with pytest.raises(SpecError) as caught:
        StudySpec.load(str(path))
    assert str(caught.value) == f"{path} {mistake}"


@pytest.mark.parametrize("given", [["convnext*,vit*"], ["convnext*", "vit*"], "convnext*, vit*,"])
def test_names_may_be_joined_by_commas(given):
    assert StudySpec.from_mapping({"pool": {"names": given}}, "test").pool.names == ("convnext*", "vit*")
    assert StudySpec.from_mapping({"log": "wandb,mlflow"}, "test").log == ("wandb", "mlflow")


@pytest.mark.parametrize("given", [3, [3], {"a": 1}])
def test_what_are_no_names_is_refused(given):
    with pytest.raises(SpecError, match=r"pool\.names"):
        StudySpec.from_mapping({"pool": {"names": given}}, "test")


def test_every_metric_can_be_asked_for():
    assert get_args(StudySpec.model_fields["metric"].annotation) == ("auto", *METRICS, "robust_auc")


@pytest.mark.parametrize("name", list_shipped_specs())
def test_the_json_schema_accepts_what_ships_and_refuses_mistakes(name):
    values = load_yaml(shipped("studies", f"{name}.yaml"))
    schema = StudySpec.model_json_schema()
    jsonschema.validate(values, schema)
    for mistake in ({"sampler": "tp"}, {"budget": {"trials": 0}}, {"sed": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values | mistake, schema)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "validation"),
        ({"validation": "hard"}, "hard validation"),
        ({"data": {"validation_by": "generator"}, "folds": 4}, "validation by generator, mean of 4 folds"),
        ({"resplit": True}, "validation, another split each trial"),
    ],
)
def test_what_the_score_of_a_trial_is_of(values, text):
    assert describe_validation(StudySpec.from_mapping(values)) == text
