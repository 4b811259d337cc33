import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from automl.files import shipped
from automl.space.json_schema import format_schema, make_schema
from automl.space.space import list_shipped_spaces, load_space, parse_space
from tests.fixtures.spaces import SMALL, list_mistakes

SPACES = [shipped("search_spaces", f"{name}.yaml") for name in list_shipped_spaces()]


def check_schema(text: str) -> None:
    jsonschema.Draft202012Validator(make_schema()).validate(yaml.safe_load(text))


def test_the_published_schema_is_current_and_valid() -> None:
    published = shipped("search_spaces", "schema.json").read_text(encoding="utf-8")
    assert published == f"{format_schema()}\n", "run: automl space schema > search_spaces/schema.json"
    assert json.loads(published) == make_schema()


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_shipped_spaces_load_and_follow_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    check_schema(text)
    assert load_space(path.stem).root == load_space(str(path)).root


@pytest.mark.parametrize(
    "text", [SMALL, "optimizer: {name: sgd, momentum: 0.9, learning_rate: 1e-2}", "backbone: {choice: [a, b]}"]
)
def test_the_schema_accepts_what_loads(text: str) -> None:
    parse_space(text)
    check_schema(text)


@pytest.mark.parametrize(
    "text",
    [
        "learning_rat: 1",
        "seed: 1",
        "optimizer: {choice: {sgd: {momentun: 0.9}}}",
        "optimizer: adamv",
        "epochs: [1, 2]",
        "drop_path: {float: [0, 2]}",
        "batch_size: {float: [2, 8]}",
        "mixing: {choice: {off: {}}}",
        "epochs: {float: [1, 2], lgo: true}",
    ],
)
def test_the_schema_refuses_what_does_not_load(text: str) -> None:
    list_mistakes(text)
    with pytest.raises(jsonschema.ValidationError):
        check_schema(text)
