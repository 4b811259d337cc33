"""Search spaces: what is drawn is a recipe, what is a recipe can be enqueued, and every mistake is listed at once."""

import os
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.errors import SpaceError
from automl.recipe import Recipe
from automl.space.restriction import Restriction
from automl.space.space import POOL_TIERS, TIERS, Space, load_space, parse_space
from tests.fixtures.spaces import SMALL, ask_trial, list_mistakes


@given(seed=st.integers(0, 2**31), self_blend=st.booleans(), backbones=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_every_draw_of_the_shipped_space_is_a_recipe_that_can_be_enqueued(
    image: Space, seed: int, self_blend: bool, backbones: int
) -> None:
    trial = ask_trial(seed)
    values = image.suggest_recipe(trial, backbones=backbones, self_blend=self_blend)
    assert 0 <= values["backbone"] < backbones
    Recipe.from_mapping({**values, "backbone": "resnet18"})
    assert {**image.find_params(values), **trial.params} == image.find_params(values)
    again = image.suggest_recipe(optuna.trial.FixedTrial(trial.params), backbones=backbones, self_blend=self_blend)
    assert again == values


def test_names_are_branch_qualified_and_only_the_taken_branch_exists(small: Space) -> None:
    for seed in range(20):
        trial = ask_trial(seed)
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
        trial = ask_trial(seed)
        assert image.suggest_recipe(trial, backbones=1, self_blend=False)["augmentation"]["self_blend"] == 0
        assert "augmentation.self_blend" not in trial.params


def test_the_backbone_is_drawn_first_wherever_it_stands() -> None:
    space = parse_space("image_size: {ordered: [64, 96]}\nbackbone: {pool: {}}\n")
    values = space.suggest_recipe(
        ask_trial(0),
        backbones=1,
        self_blend=False,
        restriction_of=lambda rank: Restriction((96,)) if rank == 0 else None,
    )
    assert values["image_size"] == 96


def test_ordered_is_an_index_that_decode_reads(small: Space) -> None:
    trial = ask_trial(0)
    values = small.suggest_recipe(trial, backbones=3, self_blend=True)
    assert isinstance(trial.distributions["image_size"], optuna.distributions.IntDistribution)
    decoded = small.decode_params(trial.params | {"from_elsewhere": 7})
    assert decoded["image_size"] == values["image_size"] in (128, 192, 256)
    assert decoded["from_elsewhere"] == 7


def test_parameters_are_all_that_trials_meet(small: Space) -> None:
    met = set()
    for seed in range(30):
        trial = ask_trial(seed)
        small.suggest_recipe(trial, backbones=3, self_blend=True)
        met |= trial.params.keys()
    assert met == {name for name, _ in small.iterate_parameters()}


def test_backbones_may_be_a_few_names() -> None:
    space = parse_space("backbone: {choice: [resnet18, resnet50]}")
    assert space.suggest_recipe(ask_trial(0), backbones=9, self_blend=False)["backbone"] in ("resnet18", "resnet50")
    assert "2 to 8" in list_mistakes(f"backbone: {{choice: [{', '.join(f'm{i}' for i in range(9))}]}}")[0]


def test_shipped_known_good_recipes_cover_the_tiers_and_resolve_fully(image: Space) -> None:
    assert [good["tier"] for good in image.known_good] == list(TIERS)
    assert {good["backbone"] for good in image.known_good} == set(POOL_TIERS)
    ranks = {"best": 0, "fastest": 3, "affordable": 1}
    assert [params["backbone"] for params in image.find_known_good_params(ranks)] == [3, 3, 1, 0]
    for params in image.find_known_good_params(ranks):
        values = image.suggest_recipe(
            optuna.trial.FixedTrial(params), backbones=4, self_blend=True
        )  # nothing is missing
        Recipe.from_mapping({**values, "backbone": "resnet18"})


def test_known_good_is_drawn_by_an_enqueued_trial(image: Space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for params in image.find_known_good_params({"best": 0}):
        study.enqueue_trial(params)
    drawn = [image.suggest_recipe(study.ask(), backbones=4, self_blend=False) for _ in image.known_good]
    assert [values["learning_rate"] for values in drawn] == [good["learning_rate"] for good in image.known_good]


def test_pool_tiers_are_dropped_where_the_space_names_the_backbone() -> None:
    space = parse_space("backbone: resnet18\nknown_good: [{tier: quick, backbone: best}]")
    assert space.find_known_good_params({"best": 0}) == [{}]


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"no search space 'imgae'; .*; did you mean 'image'\?"):
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
