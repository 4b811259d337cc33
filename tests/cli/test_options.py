"""Flags that are made from the fields of the study spec."""

from pathlib import Path

import pytest
import typer
from pydantic import BaseModel
from typer.testing import CliRunner

from automl.cli.main import app
from automl.cli.options import describe_field, list_settings, options_from
from automl.spec import DataSpec, StudySpec

FLAGS = {flag for item in typer.main.get_command(app).commands["search"].params for flag in item.opts}


def all_fields(model=StudySpec):
    for field in model.model_fields.values():
        inner = field.annotation
        yield from all_fields(inner) if isinstance(inner, type) and issubclass(inner, BaseModel) else [field]


def call(command, *words):
    """What a command receives from these words."""
    taken = {}
    program = typer.Typer()

    def receive(**settings):
        taken.update(settings)

    program.command()(command(receive))
    result = CliRunner().invoke(program, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return taken


def test_every_setting_has_a_description_and_a_flag_of_its_own():
    settings = list_settings()
    assert len(settings) == len(list(all_fields())) > 30
    assert {f"--{name.replace('_', '-')}" for name in settings} <= FLAGS
    for setting in settings.values():
        assert setting.field.description.endswith(".")
        assert describe_field(setting.field).count("Default: ") == (setting.field.annotation is not bool)


def test_only_what_was_used_is_received_nested_as_in_the_spec():
    assert call(options_from()) == {}
    words = ["--seed", "0", "--data", "x", "--no-shuffle-labels", "--pool-size", "3", "--max-params", "2.5"]
    words += ["--backbones", "a*", "--backbones", "b*", "--gpu-mem", "90%"]
    received = call(options_from(), *words)
    assert received == {
        "seed": 0,
        "data": {"path": Path("x"), "shuffle_labels": False},
        "pool": {"size": 3, "max_params": 2.5, "names": ["a*", "b*"]},
        "budget": {"gpu_mem": "90%"},
    }
    assert StudySpec.from_mapping(received).pool.names == ("a*", "b*")


def test_single_fields_arrive_by_their_own_name_and_sections_may_lack_some():
    command = options_from("budget.gpu_mem", "device", "data", exclude=("data.path",))
    assert call(command, "--gpu-mem", "1GB", "--device", "cpu", "--format", "folder") == {
        "gpu_mem": "1GB",
        "device": "cpu",
        "data": {"format": "folder"},
    }
    assert {name for name, setting in command(print).settings.items() if setting.target[0] == "data"} == {
        name for name in DataSpec.model_fields if name != "path"
    }


def test_a_command_may_name_what_stands_for_a_flag_that_is_not_used():
    @options_from("data", "device", default="the study's")
    def command(**settings):
        pass

    parameters = command.__signature__.parameters
    help_texts = {name: parameter.annotation.__metadata__[0].help for name, parameter in parameters.items()}
    assert help_texts["data"].endswith("Default: the study's.")
    assert help_texts["label_column"].endswith("Default: recognised.")
    assert help_texts["device"].endswith("Default: auto.")


@pytest.mark.parametrize("words", [["--trials", "many"], ["--max-params", "few"], ["--nonesuch"]])
def test_a_flag_that_cannot_be_read_is_a_mistake(words):
    assert CliRunner().invoke(app, ["search", *words]).exit_code == 2
