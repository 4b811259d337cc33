"""What a space draws is always a valid recipe: what does not go together is refused when the space is read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.errors import SpaceError
from automl.recipe import Recipe
from automl.space.space import Space, load_space, parse_space
from tests.fixtures.spaces import ask_trial, list_mistakes

TUNES = ("all", "head", "norms", "lora", "last")
HEADS = ("linear", "l2", "mlp", "attention", "layers")
POOLINGS = "{choice: [default, cls, avg, cls_avg]}"
EVERY_PART = f"""
tune: {{choice: {{all: {{}}, head: {{}}, norms: {{}}, lora: {{rank: {{ordered: [4, 64]}}}}, last: {{blocks: {{ordered: [1, 4]}}}}}}}}
head:
  choice:
    linear: {{pooling: {POOLINGS}}}
    l2: {{pooling: {POOLINGS}}}
    mlp: {{pooling: {POOLINGS}, hidden: {{int: [8, 64]}}}}
    attention: {{heads: {{ordered: [1, 8]}}}}
    layers: {{}}
freeze_epochs: {{ordered: [0, 1]}}
layer_decay: {{ordered: [0.5, 1.0]}}
drop_path: {{ordered: [0.0, 0.1]}}
"""  # noqa: E501


def draw_recipe(space: Space, seed: int) -> Recipe:
    values = space.suggest_recipe(ask_trial(seed), backbones=3, self_blend=True)
    return Recipe.from_mapping({**values, "backbone": "resnet18"})


@pytest.mark.parametrize("name", ["image", "video", "audio", "encoders", "demo"])
def test_every_recipe_of_a_shipped_space_is_valid(name: str) -> None:
    space = load_space(name)
    for seed in range(40):
        draw_recipe(space, seed)


def test_every_branch_of_tune_and_head_and_every_pooling_go_together() -> None:
    space = parse_space(EVERY_PART)
    drawn = [draw_recipe(space, seed) for seed in range(300)]
    pools = {head: {recipe.pooling for recipe in drawn if recipe.head.name == head} for head in HEADS}
    every = {"default", "cls", "avg", "cls_avg"}
    assert pools == dict.fromkeys(HEADS[:3], every) | {"attention": {"default"}, "layers": {"default"}}
    assert {(recipe.tune.name, recipe.head.name) for recipe in drawn} == {(t, h) for t in TUNES for h in HEADS}


def list_of(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True)


@given(
    heads=list_of(HEADS),
    tunes=list_of(TUNES),
    poolings=list_of(("default", "cls", "avg", "cls_avg")),
    lifting=st.sets(st.sampled_from([f"head.{name}" for name in HEADS] + [f"tune.{name}" for name in TUNES])),
    top=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_a_space_is_refused_or_draws_valid_recipes(heads, tunes, poolings, lifting, top, seed) -> None:
    pooling = f"pooling: {poolings[0]}" if len(poolings) == 1 else f"pooling: {{choice: [{', '.join(poolings)}]}}"
    branches = {
        field: ", ".join(f"{name}: {{{pooling * (f'{field}.{name}' in lifting)}}}" for name in names)
        for field, names in (("head", heads), ("tune", tunes))
    }
    text = "".join(f"{field}: {{choice: {{{inner}}}}}\n" for field, inner in branches.items()) + pooling * top
    try:
        space = parse_space(text)
    except SpaceError as exc:
        assert "pooling" in str(exc)  # noqa: PT017 - the other outcome is as good
        return
    for draw in range(8):
        draw_recipe(space, seed + draw)


@pytest.mark.parametrize("head", ["attention", "layers"])
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("head: {{choice: [linear, l2, {}]}}\npooling: {{choice: [default, cls]}}", "my.yaml line 2: pooling"),
        ("head: {}\npooling: cls", "my.yaml line 2: pooling"),
        ("head:\n  choice:\n    linear: {{}}\n    {}: {{pooling: cls}}", "my.yaml line 4: head.HEAD.pooling"),
        (
            "tune:\n  choice:\n    all: {{}}\n    norms: {{pooling: cls}}\nhead: {}",
            "my.yaml line 4: tune.norms.pooling",
        ),
    ],
)
def test_a_pooling_beside_a_head_that_pools_is_an_error_with_its_line(head: str, text: str, where: str) -> None:
    (mistake,) = list_mistakes(text.format(head))
    what = f"head {head} pools by itself, and pooling cls may be drawn beside it"
    assert mistake.startswith(f"{where.replace('HEAD', head)}: {what}; set pooling in the branches of head")
    assert parse_space(text.format(head), may_conflict=True).root.children["pooling"]


def test_each_branch_may_have_an_own_pooling() -> None:
    parse_space("head: {choice: {linear: {pooling: cls}, attention: {}}}")
    parse_space("head: {choice: {linear: {}, attention: {pooling: default}}}\npooling: cls")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "view: {choice: [frame, mel]}\naugmentation:\n  codec: {ordered: [0, 0.3]}",
            "my.yaml line 3: augmentation.codec: is for views of video, and may be drawn beside view mel; "
            "give the branch mel of view an augmentation of its own",
        ),
        (
            "view: {choice: {frame: {augmentation: {gain: 0.1}}, mel: {augmentation: {gain: 0.1}}}}",
            "my.yaml line 1: view.frame.augmentation.gain: is for views of sound, and may be drawn beside view frame; "
            "give the branch frame of view an augmentation of its own",
        ),
        (
            "view:\n  choice:\n    mel: {sample_rate_hz: {ordered: [8000, 16000]}}",
            "my.yaml line 3: view.mel: fmax_hz 8000.0 is above half the sample rate 8000; lower it, or raise"
            " sample_rate_hz; narrow the ranges",
        ),
        (
            "view: {name: audio_features, hop_seconds: {float: [0.01, 0.08]}}",
            "my.yaml line 1: view.audio_features: hop_seconds 0.08 leaves sound out between windows of 0.064 s;"
            " at most window_seconds; narrow the ranges",
        ),
    ],
)
def test_views_and_what_they_cannot_have(text: str, mistake: str) -> None:
    assert list_mistakes(text) == [mistake]


@pytest.mark.parametrize("text", ["tune: {choice: {norms: {rank: 8}, lora: {}}}", "tune: {name: head, blocks: 2}"])
def test_a_parameter_of_another_branch_is_unknown(text: str) -> None:
    assert "unknown key" in list_mistakes(text)[0]


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("tune: head\nlayer_decay: 0.8\n", ["line 2: layer_decay has no effect beside tune head"]),
        ("tune: head\nfreeze_epochs: 0\nlayer_decay: 1.0\n", []),
        ("tune: lora\nfreeze_epochs: 1\nlayer_decay: 0.8\n", []),
        ("tune: {choice: [all, head]}\nlayer_decay: 0.8\n", []),  # `all` uses it
        (
            "freeze_epochs: {ordered: [0, 1]}\ntune: {choice: [all, head]}\n",
            ["line 1: freeze_epochs has no effect beside tune head; set it in the other branches of tune"],
        ),
        (
            "tune:\n  choice:\n    all: {}\n    head:\n      layer_decay: 0.5\n",
            ["line 5: tune.head.layer_decay has no effect beside tune head"],
        ),
        ("tune:\n  choice:\n    all: {layer_decay: {ordered: [0.5, 1.0]}}\n    head: {}\nlayer_decay: 1.0\n", []),
        ("aggregate: {choice: [mean, max]}\n", ["line 1: aggregate has no effect beside view image"]),
        ("view: frame\naggregate: {choice: [mean, max]}\n", []),
    ],
)
def test_what_is_set_or_drawn_in_vain_is_noted(text: str, notes: list[str]) -> None:
    assert list(parse_space(text, "mine").notes) == [f"mine {note}" for note in notes]


@pytest.mark.parametrize("name", ["image", "video", "audio", "encoders", "demo"])
def test_nothing_of_a_shipped_space_is_in_vain(name: str) -> None:
    assert load_space(name).notes == ()
