"""Search spaces: what is drawn is a recipe, what is a recipe can be enqueued, and every mistake is told at once."""

import json
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from automl.errors import SpaceError
from automl.files import shipped
from automl.recipe import Recipe
from automl.space.json_schema import json_schema
from automl.space.restriction import Restriction
from automl.space.space import TIERS, POOL_TIERS, Space, load_space, parse_space

SPACES = sorted(shipped("search_spaces", "image.yaml").parent.glob("*.yaml"))
IMAGE = shipped("search_spaces", "image.yaml").read_text(encoding="utf-8")
SMALL = """
image_size: {ordered: [128, 192, 256]}
learning_rate: {float: [1e-5, 1e-2], log: true}
epochs: {int: [2, 10], step: 4}
optimizer:
  choice:
    adamw: {beta2: {choice: [0.99, 0.999]}}
    sgd:
      momentum: {float: [0.8, 0.9], step: 0.05}
      learning_rate: {float: [1e-3, 1e-1], log: true}
augmentation: {self_blend: {float: [0, 0.5]}}
"""


@pytest.fixture(scope="module")
def image() -> Space:
    return load_space("image")


@pytest.fixture
def small() -> Space:
    return parse_space(SMALL)


def ask(seed: int) -> optuna.Trial:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()


def fails(text: str) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        parse_space(text, "my.yaml")
    return str(caught.value).splitlines()


# --- drawing ---


@given(seed=st.integers(0, 2**31), self_blend=st.booleans(), backbones=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_every_draw_of_the_shipped_space_is_a_recipe_that_can_be_enqueued(
    image: Space, seed: int, self_blend: bool, backbones: int
) -> None:
    trial = ask(seed)
    values = image.suggest_recipe(trial, backbones=backbones, self_blend=self_blend)
    assert 0 <= values["backbone"] < backbones
    Recipe.from_mapping({**values, "backbone": "resnet18"})
    assert {**image.find_params(values), **trial.params} == image.find_params(values)
    again = image.suggest_recipe(optuna.trial.FixedTrial(trial.params), backbones=backbones, self_blend=self_blend)
    assert again == values


def test_names_are_branch_qualified_and_only_the_taken_branch_exists(small: Space) -> None:
    for seed in range(20):
        trial = ask(seed)
        taken = small.suggest_recipe(trial, backbones=3, self_blend=True)["optimizer"]["name"]
        other = ({"adamw", "sgd"} - {taken}).pop()
        assert any(name.startswith(f"optimizer.{taken}.") for name in trial.params)
        assert not any(name.startswith(f"optimizer.{other}") for name in trial.params)


def test_a_branch_lifts_a_top_level_field_instead_of_the_top_levels_own(small: Space) -> None:
    sgd = {"optimizer": "sgd", "optimizer.sgd.momentum": 0.85, "optimizer.sgd.learning_rate": 0.05}
    adamw = {"optimizer": "adamw", "optimizer.adamw.beta2": 0.99, "learning_rate": 1e-4}
    common = {"backbone": 1, "image_size": 1, "epochs": 6, "augmentation.self_blend": 0.2}
    for params, rate in ((sgd, 0.05), (adamw, 1e-4)):
        trial = optuna.trial.FixedTrial(common | params)
        values = small.suggest_recipe(trial, backbones=3, self_blend=True)
        assert values["learning_rate"] == rate
        assert "learning_rate" not in values["optimizer"]
        assert trial.params == common | params


def test_self_blending_is_neither_drawn_nor_on_without_a_real_class(image: Space) -> None:
    for seed in range(10):
        trial = ask(seed)
        assert image.suggest_recipe(trial, backbones=1, self_blend=False)["augmentation"]["self_blend"] == 0
        assert "augmentation.self_blend" not in trial.params


@given(seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_what_a_backbone_cannot_do_is_not_drawn_for_it(image: Space, seed: int) -> None:
    can = [Restriction(), Restriction((128, 224)), Restriction((240,), drop_path=False)]
    trial = ask(seed)
    values = image.suggest_recipe(trial, backbones=3, self_blend=False, restriction_of=lambda rank: can[rank])
    sizes = {name for name in trial.params if name.startswith("image_size")}
    match values["backbone"]:
        case 0:
            assert sizes == {"image_size"}
            assert "drop_path" in trial.params
        case 1:
            assert sizes == {"image_size.128_224"}
            assert values["image_size"] in (128, 224)
            assert image.decode_params(trial.params)["image_size.128_224"] == values["image_size"]
        case 2:  # its only size is none of the space's, and it has no stochastic depth
            assert not sizes
            assert "drop_path" not in trial.params
            assert (values["image_size"], values["drop_path"]) == (240, 0.0)


def test_the_backbone_is_drawn_first_wherever_it_stands() -> None:
    space = parse_space("image_size: {ordered: [64, 96]}\nbackbone: {pool: {}}\n")
    values = space.suggest_recipe(
        ask(0), backbones=1, self_blend=False, restriction_of=lambda rank: Restriction((96,)) if rank == 0 else None
    )
    assert values["image_size"] == 96


def test_an_image_size_that_a_branch_sets_is_restricted_too() -> None:
    space = parse_space("optimizer: {choice: {sgd: {image_size: {ordered: [64, 96, 128]}}}}\n")
    assert space.image_sizes() == (64, 96, 128)
    values = space.suggest_recipe(ask(0), backbones=1, self_blend=False, restriction_of=lambda _: Restriction((96,)))
    assert values["image_size"] == 96


def test_a_range_of_many_image_sizes_is_tried_at_some() -> None:
    assert parse_space("image_size: {int: [64, 96], step: 16}\n").image_sizes() == (64, 80, 96)
    many = parse_space("image_size: {int: [64, 512]}\n").image_sizes()
    assert (many[0], many[-1], len(many)) == (64, 512, 17)


@pytest.mark.parametrize(
    ("only", "params"), [((224,), {}), ((160, 256), {"image_size.160_256": 1}), ((384,), {}), ((), {"image_size": 3})]
)
def test_a_known_good_recipe_takes_the_nearest_size_of_its_backbone(image: Space, only, params) -> None:
    can = Restriction(only, drop_path=False)
    for good in image.find_known_good_params({"best": 0, "fastest": 0, "affordable": 0}, lambda _: can):
        assert {name: value for name, value in good.items() if name.startswith("image_size")} == params
        assert "drop_path" not in good
        trial = optuna.trial.FixedTrial(good)
        values = image.suggest_recipe(trial, backbones=1, self_blend=False, restriction_of=lambda _: can)
        assert values["image_size"] == (256 if len(only) == 2 else only[0] if only else 224)


def test_ordered_is_an_index_that_decode_reads(small: Space) -> None:
    trial = ask(0)
    values = small.suggest_recipe(trial, backbones=3, self_blend=True)
    assert isinstance(trial.distributions["image_size"], optuna.distributions.IntDistribution)
    decoded = small.decode_params(trial.params | {"from_elsewhere": 7})
    assert decoded["image_size"] == values["image_size"] in (128, 192, 256)
    assert decoded["from_elsewhere"] == 7


def test_what_is_left_out_stays_at_the_recipes_default() -> None:
    values = parse_space("backbone: resnet18\n").suggest_recipe(optuna.trial.FixedTrial({}), backbones=1, self_blend=True)
    assert Recipe.from_mapping(values) == Recipe(backbone="resnet18")


@pytest.mark.parametrize(
    "text",
    ["optimizer: sgd", "optimizer: {name: sgd}", "optimizer: {choice: [sgd]}", "optimizer: {choice: {sgd: {}}}"],
)
def test_a_single_branch_is_fixed_and_no_parameter(text: str) -> None:
    space = parse_space(f"backbone: resnet18\n{text}\n")
    assert list(space.iterate_parameters()) == []
    values = space.suggest_recipe(optuna.trial.FixedTrial({}), backbones=1, self_blend=True)
    assert values["optimizer"] == {"name": "sgd", "momentum": 0.9, "nesterov": True}


def test_parameters_are_all_that_trials_meet(small: Space) -> None:
    met = set()
    for seed in range(30):
        trial = ask(seed)
        small.suggest_recipe(trial, backbones=3, self_blend=True)
        met |= trial.params.keys()
    assert met == {name for name, _ in small.iterate_parameters()}


def test_backbones_may_be_a_few_names() -> None:
    space = parse_space("backbone: {choice: [resnet18, resnet50]}")
    assert space.suggest_recipe(ask(0), backbones=9, self_blend=False)["backbone"] in ("resnet18", "resnet50")
    assert "2 to 8" in fails(f"backbone: {{choice: [{', '.join(f'm{i}' for i in range(9))}]}}")[0]


# --- from a recipe to parameters ---


def test_params_of_a_partial_recipe(small: Space) -> None:
    values = {"backbone": 2, "image_size": 256, "optimizer": {"name": "sgd"}, "learning_rate": 0.01, "seed": 4}
    params = {"backbone": 2, "image_size": 2, "optimizer": "sgd", "optimizer.sgd.learning_rate": 0.01}
    assert small.find_params(values) == params
    assert small.find_params({"weight_decay": 0.01, "mixing": "none"}) == {}  # what the space fixes, as it fixes it


@pytest.mark.parametrize(
    ("values", "names", "says"),
    [
        ({"learning_rate": 0.5, "optimizer": "adamw"}, "learning_rate", "within [1e-05, 0.01]"),
        ({"learning_rate": 0.01}, "optimizer", "give its name: adamw, sgd"),
        ({"image_size": 224}, "image_size", "one of 128, 192, 256"),
        ({"epochs": 4}, "epochs", "2 plus a multiple of 4"),
        ({"epochs": 2.5}, "epochs", "whole number"),
        ({"optimizer": "lion"}, "optimizer", "no branch 'lion'"),
        ({"optimizer": {"name": ["sgd"]}}, "optimizer", "no branch"),
        ({"optimizer": {"momentum": 0.9}}, "optimizer", "give its name"),
        ({"optimizer": {"name": "sgd", "momentun": 0.9}}, "optimizer.sgd.momentun", "did you mean momentum"),
        ({"optimizer": {"name": "sgd", "nesterov": 1}}, "optimizer.sgd.nesterov", "fixes it at True"),
        ({"weight_decay": 0.3}, "weight_decay", "fixes it at 0.01"),
        ({"backbone": "resnet18"}, "backbone", "a rank in the pool"),
        ({"augmentation": 3}, "augmentation", "expected a mapping"),
    ],
)
def test_params_of_names_what_the_space_cannot_draw(
    small: Space, values: dict[str, Any], names: str, says: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        small.find_params(values)
    assert str(caught.value).startswith(f"space: {names}: ")
    assert says in str(caught.value)


# --- known-good recipes ---


def test_shipped_known_good_recipes_cover_the_tiers_and_resolve_fully(image: Space) -> None:
    assert [good["tier"] for good in image.known_good] == list(TIERS)
    assert {good["backbone"] for good in image.known_good} == set(POOL_TIERS)
    ranks = {"best": 0, "fastest": 3, "affordable": 1}
    assert [params["backbone"] for params in image.find_known_good_params(ranks)] == [3, 1, 0]
    for params in image.find_known_good_params(ranks):
        values = image.suggest_recipe(optuna.trial.FixedTrial(params), backbones=4, self_blend=True)  # nothing is missing
        Recipe.from_mapping({**values, "backbone": "resnet18"})


def test_known_good_is_drawn_by_an_enqueued_trial(image: Space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for params in image.find_known_good_params({"best": 0}):
        study.enqueue_trial(params)
    drawn = [image.suggest_recipe(study.ask(), backbones=4, self_blend=False) for _ in image.known_good]
    assert [values["learning_rate"] for values in drawn] == [good["learning_rate"] for good in image.known_good]


def test_known_good_mistakes_have_a_line() -> None:
    errors = fails(
        f"{SMALL}known_good:\n- {{tier: soon, epochs: 3}}\n- {{tier: quick, backbone: resnet18}}\n"
        "- {tier: quick, image_size: 1e9}"
    )
    assert [error.split(": ")[:2] for error in errors] == [
        ["my.yaml:13", "known_good"],
        ["my.yaml:13", "known_good.epochs"],
        ["my.yaml:14", "known_good.backbone"],
        ["my.yaml:15", "known_good.image_size"],
    ]


def test_wishes_are_dropped_where_the_space_names_the_backbone() -> None:
    space = parse_space("backbone: resnet18\nknown_good: [{tier: quick, backbone: best}]")
    assert space.find_known_good_params({"best": 0}) == [{}]


# --- mistakes ---


def test_all_mistakes_are_told_at_once_with_line_and_nearest_key() -> None:
    errors = fails(
        "learning_rat: {float: [1e-5, 1e-2]}\n"  # 1
        "weight_decay: {float: [0.3, 0.1]}\n"
        "layer_decay: {float: [0, 1], log: true}\n"
        "optimizer:\n"
        "  choice:\n"  # 5
        "    sgd: {momentun: 0.9}\n"
        "    nadanw: {}\n"
        "batch_size: {int: [8, 64], log: true, step: 8}\n"
    )
    told = {error.split(": ")[0]: error for error in errors}
    assert "did you mean learning_rate" in told["my.yaml:1"]
    assert "reversed" in told["my.yaml:2"]
    assert "greater than 0" in told["my.yaml:3"]
    assert "optimizer.sgd.momentun" in told["my.yaml:6"]
    assert "did you mean momentum" in told["my.yaml:6"]
    assert "did you mean nadamw" in told["my.yaml:7"]
    assert "log and step" in told["my.yaml:8"]
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
        ("epochs: {flaot: [1, 2]}", "did you mean float"),
        ("epochs: {float: [1, 2], int: [1, 2]}", "got the keys float, int"),
        ("epochs: {float: [1, 2], lgo: true}", "did you mean log"),
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
        ("epochs: {choice: [[1], 2]}", "valid number"),
        ("epochs: true", "valid number"),
        ("backbone: {choice: [[a], b]}", "valid string"),
        ("backbone: {pool: {size: 3}}", "takes no options"),
        ("batch_size: {float: [2, 8]}", "valid integer"),
        ("clip_norm: .inf", "must be finite"),
        ("image_size: {ordered: [8, 16]}", "greater than or equal to 16 (got 8)"),
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
        ("a: [", "my.yaml:1"),
        ("a: 1\n--- \nb: 2", "my.yaml:2"),
        ("epochs: {float: *x}", "undefined alias"),
        ("known_good: &a [*a]", "too large"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_mistakes_say_what_to_do(text: str, says: str) -> None:
    errors = fails(text)
    assert says in errors[0]
    assert errors[0].startswith("my.yaml")


def test_numbers_that_yaml_reads_as_strings_are_numbers() -> None:
    space = parse_space("learning_rate: 1e-3\nweight_decay: {choice: [1e-4, 1e-2]}\nepochs: {int: [1e0, 1e1]}")
    values = space.suggest_recipe(ask(0), backbones=1, self_blend=False)
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


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"no search space 'imgae'; did you mean image\?"):
        load_space("imgae")
    with pytest.raises(SpaceError, match="no search space"):
        load_space("../search_spaces/image")
    with pytest.raises(SpaceError, match=r"cannot read .*missing\.yaml: No such file"):
        load_space(str(tmp_path / "missing.yaml"))
    (tmp_path / "latin.yml").write_bytes(b"epochs: \xff")
    with pytest.raises(SpaceError, match=r"cannot read .*latin\.yml"):
        load_space(str(tmp_path / "latin.yml"))
    (tmp_path / "mine.yaml").write_text(SMALL)
    assert load_space(os.fspath(tmp_path / "mine.yaml")).text == SMALL


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
        values = space.suggest_recipe(ask(draw), backbones=2, self_blend=True)
        Recipe.from_mapping({**values, "backbone": "resnet18"})


def test_a_stored_text_reads_back_to_the_same_space(image: Space) -> None:
    assert parse_space(image.text).root == image.root


# --- JSON Schema ---


def check(text: str) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(text))


def test_the_published_schema_is_current_and_valid() -> None:
    published = json.loads(shipped("search_spaces", "schema.json").read_text(encoding="utf-8"))
    assert published == json_schema(), "run: automl space schema > search_spaces/schema.json"
    jsonschema.Draft202012Validator.check_schema(published)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_shipped_spaces_load_and_follow_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    check(text)
    assert load_space(path.stem).root == load_space(str(path)).root


@pytest.mark.parametrize(
    "text", [SMALL, "optimizer: {name: sgd, momentum: 0.9, learning_rate: 1e-2}", "backbone: {choice: [a, b]}"]
)
def test_the_schema_accepts_what_loads(text: str) -> None:
    parse_space(text)
    check(text)


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
    fails(text)
    with pytest.raises(jsonschema.ValidationError):
        check(text)


VIEWS = """
view:
  choice:
    face: {count: 4}
    mel:
      augmentation: {time_mask: {ordered: [0.0, 0.2]}, horizontal_flip: 0.0, crop: {choice: [resize, native]}}
augmentation: {blur: {ordered: [0.0, 0.5]}}
"""


def test_a_branch_may_set_the_augmentation_in_the_stead_of_the_top_level():
    space = parse_space(VIEWS)
    face = optuna.trial.FixedTrial({"backbone": 0, "view": "face", "augmentation.blur": 1})
    values = space.suggest_recipe(face, backbones=2, self_blend=False)
    assert (values["view"]["name"], values["augmentation"]["blur"], values["augmentation"]["time_mask"]) == (
        "face",
        0.5,
        0,
    )
    params = {"view.mel.augmentation.time_mask": 1, "view.mel.augmentation.crop": "native"}
    values = space.suggest_recipe(
        optuna.trial.FixedTrial({"backbone": 0, "view": "mel", **params}), backbones=2, self_blend=False
    )
    assert (values["augmentation"]["time_mask"], values["augmentation"]["crop"]) == (0.2, {"name": "native"})
    assert values["augmentation"]["horizontal_flip"] == 0
    Recipe.from_mapping({**values, "backbone": "resnet18"})
    wanted = {"view": "mel", "augmentation": {"time_mask": 0.2, "crop": "native"}}
    assert space.find_params(wanted) == {"view": "mel", **params}
    with pytest.raises(SpaceError, match="blur"):
        space.find_params({"view": "mel", "augmentation": {"blur": 0.5}})


def test_what_a_branch_lifts_does_not_lift_again():
    text = "view: {choice: {mel: {augmentation: {crop: {choice: {native: {image_size: 64}, resize: {}}}}}, face: {}}}"
    with pytest.raises(SpaceError, match="image_size"):
        parse_space(text)
