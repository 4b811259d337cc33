import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.space.restriction import Restriction
from automl.space.space import Space, parse_space
from tests.fixtures.spaces import ask_trial


@given(seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_what_a_backbone_cannot_do_is_not_drawn_for_it(image: Space, seed: int) -> None:
    can = [Restriction(), Restriction((128, 224)), Restriction((240,), drop_path=False)]
    trial = ask_trial(seed)
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


def test_an_image_size_that_a_branch_sets_is_restricted_too() -> None:
    space = parse_space("optimizer: {choice: {sgd: {image_size: {ordered: [64, 96, 128]}}}}\n")
    assert space.image_sizes() == (64, 96, 128)
    values = space.suggest_recipe(
        ask_trial(0), backbones=1, self_blend=False, restriction_of=lambda _: Restriction((96,))
    )
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


TUNED = """
backbone: {pool: {}}
tune: {choice: {head: {}, norms: {}, lora: {rank: {ordered: [4, 8, 16]}}, all: {}}}
known_good: [{tier: quick, backbone: best, tune: all}, {tier: long, backbone: best, tune: {name: lora, rank: 8}}]
"""


@pytest.mark.parametrize("tunes", [("head", "norms", "lora"), ("head", "lora"), ("head",), ()])
def test_only_as_much_is_trained_as_the_memory_allows(tunes: tuple[str, ...]) -> None:
    space = parse_space(TUNED)
    assert space.list_tunes() == ("head", "norms", "lora", "all")
    drawn = set()
    for seed in range(40):
        trial = ask_trial(seed)
        values = space.suggest_recipe(
            trial, backbones=1, self_blend=False, restriction_of=lambda _: Restriction(tunes=tunes)
        )
        drawn.add(values["tune"]["name"])
        named = f"tune.{'_'.join(tunes)}" if tunes else "tune"
        assert (named in trial.params) is (len(tunes) != 1)
        if values["tune"]["name"] == "lora":
            assert trial.params["tune.lora.rank"] in (0, 1, 2), "what is in a branch keeps its name"
            assert space.decode_params(trial.params)["tune.lora.rank"] == values["tune"]["rank"]
    assert drawn == set(tunes or ("head", "norms", "lora", "all"))


def test_known_good_recipes_train_as_much_as_the_memory_allows() -> None:
    space = parse_space(TUNED)
    restriction = Restriction(tunes=("head", "norms", "lora"))
    whole, lora = space.find_known_good_params({"best": 0}, lambda _: restriction)
    assert "tune" not in whole | lora
    for params in (whole, lora):
        trial = optuna.trial.FixedTrial({"backbone": 0, "tune.lora.rank": 1} | params)
        values = space.suggest_recipe(trial, backbones=1, self_blend=False, restriction_of=lambda _: restriction)
        assert values["tune"]["name"] == "lora"
