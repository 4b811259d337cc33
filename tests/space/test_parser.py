import random
from contextlib import suppress

import optuna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from automl.errors import SpaceError
from automl.recipe import Recipe
from automl.space.space import Space, parse_space
from tests.fixtures.spaces import IMAGE, SMALL, ask_trial, list_mistakes


def test_all_mistakes_are_listed_at_once_with_line_and_nearest_key() -> None:
    errors = list_mistakes(
        "learning_rat: {float: [1e-5, 1e-2]}\n"  # 1
        "weight_decay: {float: [0.3, 0.1]}\n"
        "layer_decay: {float: [0, 1], log: true}\n"
        "optimizer:\n"
        "  choice:\n"  # 5
        "    sgd: {momentun: 0.9}\n"
        "    nadanw: {}\n"
        "batch_size: {int: [8, 64], log: true, step: 8}\n"
    )
    by_line = {error.split(": ")[0]: error for error in errors}
    assert "did you mean 'learning_rate'" in by_line["my.yaml line 1"]
    assert "reversed" in by_line["my.yaml line 2"]
    assert "layer_decay: 0.0 is too small; give more than 0 and at most 1" in by_line["my.yaml line 3"]
    assert "optimizer.sgd.momentun" in by_line["my.yaml line 6"]
    assert "did you mean 'momentum'" in by_line["my.yaml line 6"]
    assert "did you mean 'nadamw'" in by_line["my.yaml line 7"]
    assert "log and step" in by_line["my.yaml line 8"]
    assert len(errors) == 6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mixing: {choice: {off: {}, mixup: {}}}", "quote it: 'off'"),
        ("mixing: {choice: {on: {}}}", "reads unquoted on as true"),
        ("mixing: {choice: [no, mixup]}", "quote it: 'no'"),
        ("mixing: off", "quote it: 'off'"),
        ("loss: {name: cross_entropy, class_weights: no}", "quote it: 'no'"),
        ("mixing: {choice: {}}", "no branch to choose"),
        ("mixing: {chioce: {}}", "expected {choice"),
        ("mixing: ~", "reads unquoted ~ as null"),
        ("mixing: {choice: {mixup: 3}}", "expected a mapping of names, got 3"),
        ("epochs: [1, 2]", "a list needs its kind"),
        ("epochs: {flaot: [1, 2]}", "did you mean 'float'"),
        ("epochs: {float: [1, 2], int: [1, 2]}", "got the keys float, int"),
        ("epochs: {float: [1, 2], lgo: true}", "did you mean 'log'"),
        ("epochs: {float: [1, 2], log: 3}", "log must be true or false"),
        ("epochs: {float: [1]}", "needs [low, high]"),
        ("epochs: {float: [1, two]}", "finite number, got 'two'"),
        ("epochs: {float: [1, .inf]}", "finite number"),
        ("epochs: {float: [1, 2], step: 0.3}", "whole number of steps"),
        ("epochs: {float: [1, 2], step: 0}", "step must be positive"),
        ("epochs: {int: [1.5, 2]}", "bounds of an int are whole"),
        ("epochs: {choice: [1]}", "at least two"),
        ("epochs: {choice: [1, 1.0]}", "same value twice"),
        ("epochs: {ordered: [2, 1]}", "smallest first"),
        ("epochs: {choice: [[1], 2]}", "must be a number (got None)"),
        ("epochs: true", "must be a number (got True)"),
        ("backbone: {choice: [[a], b]}", "must be text (got None)"),
        ("backbone: {pool: {size: 3}}", "takes no options"),
        ("batch_size: {float: [2, 8]}", "must be a whole number (got 2.0)"),
        ("clip_norm: .inf", "must be finite"),
        ("image_size: {ordered: [8, 16]}", "image_size: 8 is too small; give 16 to 2048"),
        ("seed: 3", "set by the study"),
        ("epochs: 1\nepochs: 2", "given twice"),
        (
            "optimizer: {choice: {sgd: {epochs: 1}}}\nschedule: {choice: {step: {epochs: 1}}}",
            "both optimizer and schedule",
        ),
        ("epochs: 2\noptimizer: {choice: {sgd: {epochs: 1}, adam: {epochs: 3}}}", "epochs: never used"),
        ("optimizer: {choice: {sgd: {mixing: {}}}}", "unknown key"),
        (
            "augmentation: {crop: {choice: {resize: {min_scale: 0.3}}}}",
            "augmentation.crop.resize.min_scale: unknown key",
        ),
        ("known_good: 3", "must be a list"),
        ("known_good: [3]", "partial recipe, got 3"),
        ("known_good: [!!python/object:os.system {}]", "could not determine a constructor"),
        ("epochs: !!python/object/apply:os.system [ls]", "a list needs its kind"),
        ("", "empty"),
        ("- a", "expected a mapping"),
        ("a: [", "my.yaml line 1"),
        ("a: 1\n--- \nb: 2", "my.yaml line 2"),
        ("epochs: {float: *x}", "undefined alias"),
        ("known_good: &a [*a]", "too large"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_mistakes_say_what_to_do(text: str, says: str) -> None:
    errors = list_mistakes(text)
    assert says in errors[0]
    assert errors[0].startswith("my.yaml")


def test_numbers_that_yaml_reads_as_strings_are_numbers() -> None:
    space = parse_space("learning_rate: 1e-3\nweight_decay: {choice: [1e-4, 1e-2]}\nepochs: {int: [1e0, 1e1]}")
    values = space.suggest_recipe(ask_trial(0), backbones=1, self_blend=False)
    assert values["learning_rate"] == 1e-3
    assert values["weight_decay"] in (1e-4, 1e-2)
    assert 1 <= values["epochs"] <= 10


def test_anchors_and_merges_work_in_the_tree() -> None:
    space = parse_space(
        "optimizer:\n  choice:\n    adam: &a {beta2: 0.9, learning_rate: 1e-4}\n"
        "    adamw: {<<: *a, learning_rate: 1e-3}\n    nadamw: {<<: *a}\n    lion: *a"
    )
    rates = {"adam": 1e-4, "adamw": 1e-3, "nadamw": 1e-4, "lion": 1e-4}
    for name, rate in rates.items():
        trial = optuna.trial.FixedTrial({"backbone": 0, "optimizer": name})
        values = space.suggest_recipe(trial, backbones=1, self_blend=False)
        assert (values["learning_rate"], values["optimizer"]["beta2"]) == (rate, 0.9)


@given(st.text(alphabet="abepochs:{}[]&*!<-,'\"#|~.019e \n\t\x00", max_size=60) | st.text(max_size=40))
@example("epochs: {float: [1, 1e999]}")
@example("epochs: {int: [1, 1" + "0" * 400 + "]}")
@example("epochs: 1" + "0" * 5000)
@example("epochs: 2001-99-99")
@example("? {a: 1}\n: 2")
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_space_or_an_error_that_says_why(text: str) -> None:
    with suppress(SpaceError):
        parse_space(text)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_damaged_space_draws_recipes_or_is_refused(seed: int) -> None:
    damage = random.Random(seed)
    lines = IMAGE.splitlines()
    for _ in range(damage.randint(1, 3)):
        i = damage.randrange(len(lines))
        at = damage.randrange(len(lines[i]) + 1)
        lines[i] = lines[i][:at] + damage.choice("0159.-e:{}[], ~") + lines[i][at + damage.randint(0, 2) :]
    try:
        space = parse_space("\n".join(lines))
    except SpaceError:
        return
    for draw in range(3):
        values = space.suggest_recipe(ask_trial(draw), backbones=2, self_blend=True)
        Recipe.from_mapping({**values, "backbone": "resnet18"})


def test_a_stored_text_reads_back_to_the_same_space(image: Space) -> None:
    assert parse_space(image.text).root == image.root


def test_a_misspelt_word_of_a_known_good_recipe_is_compared_with_the_valid_ones() -> None:
    mistakes = list_mistakes(f"{SMALL}known_good:\n- {{tier: quck, backbone: bset}}\n")
    assert [line.rpartition("; ")[2] for line in mistakes] == ["did you mean 'quick'?", "did you mean 'best'?"]


def test_known_good_mistakes_have_a_line() -> None:
    errors = list_mistakes(
        f"{SMALL}known_good:\n- {{tier: soon, epochs: 3}}\n- {{tier: quick, backbone: resnet18}}\n"
        "- {tier: quick, image_size: 1e9}"
    )
    assert [error.split(": ")[:2] for error in errors] == [
        ["my.yaml line 13", "known_good"],
        ["my.yaml line 13", "known_good.epochs"],
        ["my.yaml line 14", "known_good.backbone"],
        ["my.yaml line 15", "known_good.image_size"],
    ]


def test_what_a_branch_lifts_does_not_lift_again():
    text = "view: {choice: {mel: {augmentation: {crop: {choice: {native: {image_size: 64}, resize: {}}}}}, face: {}}}"
    with pytest.raises(SpaceError, match="image_size"):
        parse_space(text)


@pytest.mark.parametrize(
    "text",
    ["optimizer: sgd", "optimizer: {name: sgd}", "optimizer: {choice: [sgd]}", "optimizer: {choice: {sgd: {}}}"],
)
def test_a_single_branch_is_fixed_and_no_parameter(text: str) -> None:
    space = parse_space(f"backbone: resnet18\n{text}\n")
    assert list(space.iterate_parameters()) == []
    values = space.suggest_recipe(optuna.trial.FixedTrial({}), backbones=1, self_blend=True)
    assert values["optimizer"] == {"name": "sgd", "momentum": 0.9, "nesterov": True}


def test_what_is_left_out_stays_at_the_recipes_default() -> None:
    space = parse_space("backbone: resnet18\n")
    values = space.suggest_recipe(optuna.trial.FixedTrial({}), backbones=1, self_blend=True)
    assert Recipe.from_mapping(values) == Recipe(backbone="resnet18")
