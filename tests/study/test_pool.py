import json
import urllib.request

import pandas as pd
import pytest

from automl.backbones.capabilities import Capabilities
from automl.backbones.weights import Weights, hub_reachable
from automl.errors import PoolError, RecipeError, WeightsError
from automl.memory.estimate import CONTEXT_BYTES
from automl.spec import StudySpec
from automl.study import pool as pool_module
from automl.study.need import Limits
from automl.study.pool import Pool, build_pool
from automl.training.precision import Timing

GB = 10**9
LIMITS = Limits(
    memory_bytes=None,
    trial_seconds=None,
    min_epochs=1,
    image_sizes=(64, 128),
    reference_image_size=64,
    max_batch_size=64,
    train_images=1000,
)
BACKBONES = {  # name: (family, millions of parameters, bytes of the largest step, of the smallest, seconds an image)
    "big.a": ("res", 80.0, 20 * GB, 8 * GB, 0.04),
    "wide.a": ("res", 40.0, 12 * GB, 3 * GB, 0.02),
    "deep.a": ("res", 11.0, 5 * GB, 2 * GB, 0.01),
    "small.a": ("mob", 3.0, 3 * GB, GB, 0.005),
    "tiny.a": ("mob", 1.0, 2 * GB, GB // 2, 0.001),
}


def can(name, runs=(64, 128), loads=None, **values):
    """What a made-up backbone can do: everything, unless it is said otherwise."""
    return Capabilities(name, 64, runs=runs, loads=runs if loads is None else loads, **values)


def capabilities_are(monkeypatch, **given):
    """Sets what some of the backbones can do, by their name without the tag."""
    found = {f"{name}.a": can(f"{name}.a", **values) for name, values in given.items()}
    monkeypatch.setattr(pool_module, "find_capabilities", lambda name, _: found.get(name) or can(name))


@pytest.fixture(autouse=True)
def leaderboard(monkeypatch):
    """Five made-up backbones, best first, with known needs; the names whose weights are within reach can be set."""
    rows = [
        {"model": name, "image_size": 64, "a": 50.0 - k, "r": 50.0 - k, "family": family, "params_m": params}
        | {"gmacs": float("nan"), "licence": "apache-2.0"}
        for k, (name, (family, params, *_)) in enumerate(BACKBONES.items())
    ]
    reach = set(BACKBONES)

    def estimate(recipe, classes, *, batch_size=None):
        _, _, largest, smallest, _ = BACKBONES[recipe.backbone]
        return largest if recipe.batch_size == LIMITS.max_batch_size else smallest

    def time(recipe, classes, device, batch_size=16):
        seconds = BACKBONES[recipe.backbone][4]
        return Timing("fp32", "contiguous", seconds, seconds / 3, recipe.image_size)

    def rank_at(table, image_size, boards):
        assert image_size == LIMITS.reference_image_size
        return table.assign(score=[2.0 - k for k in range(len(table))])

    def select(table, names, max_params, licence):
        kept = table[table["params_m"] <= (max_params or 1e9)]
        return kept if names == ("*",) else kept[kept["model"].isin(names)]

    monkeypatch.setattr(pool_module, "load_table", lambda: pd.DataFrame(rows))
    monkeypatch.setattr(pool_module, "rank_at", rank_at)
    monkeypatch.setattr(pool_module, "find_capabilities", lambda name, _: can(name))
    monkeypatch.setattr(pool_module, "select", select)
    monkeypatch.setattr(pool_module, "estimate", estimate)
    monkeypatch.setattr(pool_module, "best_numerics", time)
    monkeypatch.setattr(pool_module, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(pool_module, "hub_reachable", lambda: True)
    monkeypatch.setattr(
        pool_module, "find_weights", lambda name, _, *, hub: Weights("hub") if name in reach and hub else None
    )
    return reach


def spec_of(**values):
    pool = {"size": 8, "per_family": 9} | values.pop("pool", {})
    return StudySpec.from_mapping({"pool": pool} | values)


def build(spec=None, **limits):
    return build_pool(spec or spec_of(), Limits(**(vars(LIMITS) | limits)), 2, "cpu")


def names(pool):
    return [entry.backbone for entry in pool.entries]


def test_without_limits_all_are_in_best_first():
    pool = build()
    assert names(pool) == list(BACKBONES)
    assert [entry.score for entry in pool.entries] == [2, 1, 0, -1, -2]
    assert all(entry.fits_all for entry in pool.entries)
    assert not pool.notes
    assert pool.fastest() == 4


def test_memory_leaves_out_what_does_not_fit_even_in_small_steps():
    pool = build(memory_bytes=4 * GB)
    assert names(pool) == ["wide.a", "deep.a", "small.a", "tiny.a"]
    assert [entry.fits_all for entry in pool.entries] == [False, False, True, True]
    assert [entry.peak_bytes for entry in pool.entries] == [3 * GB, 2 * GB, 3 * GB, 2 * GB]
    assert pool.notes == ("left out, need more GPU memory: big.a (8GB)",)


def test_a_need_that_the_parameters_alone_give_away_is_not_traced(monkeypatch):
    traced = []
    before = pool_module.estimate
    monkeypatch.setattr(pool_module, "estimate", lambda r, c: traced.append(r.backbone) or before(r, c))
    build(memory_bytes=CONTEXT_BYTES + 700_000_000)
    assert "big.a" not in traced
    assert "tiny.a" in traced


def test_an_empty_pool_names_the_smallest_need():
    with pytest.raises(PoolError) as caught:
        build(memory_bytes=100_000_000)
    text = str(caught.value)
    assert "no backbone fits --gpu-mem 100MB: the smallest need is 500MB (tiny.a at 64 px, batch 2" in text


def test_time_leaves_out_what_cannot_finish_the_shortest_trial():
    pool = build(trial_seconds=15)
    assert names(pool) == ["deep.a", "small.a", "tiny.a"]
    assert "wide.a (20s)" in pool.notes[0]
    with pytest.raises(
        PoolError, match=r"no backbone is fast enough: the shortest trial takes 1.0s \(tiny\.a\).*--timeout"
    ):
        build(trial_seconds=0.5)


def test_a_backbone_hopelessly_slow_on_a_cpu_is_not_built(monkeypatch):
    table = pool_module.load_table().assign(gmacs=1e6)
    monkeypatch.setattr(pool_module, "load_table", lambda: table)
    monkeypatch.setattr(pool_module, "best_numerics", lambda *_: pytest.fail("built"))
    with pytest.raises(PoolError, match="no backbone is fast enough"):
        build(trial_seconds=10)


def test_size_and_families():
    assert names(build(spec_of(pool={"size": 2}))) == ["big.a", "wide.a"]
    assert names(build(spec_of(pool={"size": 4, "per_family": 2}))) == ["big.a", "wide.a", "small.a", "tiny.a"]
    # where all candidates fit into the pool there is nothing to choose, and so nothing to vary
    assert names(build(spec_of(pool={"size": 5, "per_family": 1}))) == list(BACKBONES)


def test_only_backbones_with_weights_in_reach(leaderboard):
    leaderboard.clear()
    leaderboard.add("small.a")
    pool = build()
    assert names(pool) == ["small.a"]
    assert pool.entries[0].find() == Weights("hub")
    assert pool.notes == ("4 backbones left out: their weights are out of reach",)
    assert names(build(spec_of(pretrained="require"))) == ["small.a"]


def test_without_any_weights_small_ones_train_from_scratch_and_it_is_said_loudly(leaderboard, monkeypatch):
    monkeypatch.setattr(pool_module, "hub_reachable", lambda: False)
    pool = build()
    assert names(pool) == ["deep.a", "small.a", "tiny.a"]
    assert all(entry.find() is None for entry in pool.entries)
    assert "NO PRETRAINED WEIGHTS" in pool.notes[0]
    assert "--weights-dir" in pool.notes[0]
    with pytest.raises(PoolError, match="no backbone has weights in the hub's cache or the hub; give --weights-dir"):
        build(spec_of(pretrained="require"))


def test_never_asks_nobody_for_weights(monkeypatch):
    monkeypatch.setattr(pool_module, "hub_reachable", lambda: pytest.fail("asked"))
    monkeypatch.setattr(pool_module, "find_weights", lambda *_, **__: pytest.fail("looked"))
    pool = build(spec_of(pretrained="never"))
    assert names(pool) == ["deep.a", "small.a", "tiny.a"]
    assert not pool.notes
    assert "big.a" in names(build(spec_of(pretrained="never", pool={"max_params": 99})))
    assert names(build(spec_of(pretrained="never", pool={"names": ["big.a"]}))) == ["big.a"]


def test_a_folder_of_weights_that_is_not_there_is_told(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(PoolError, match=f"--weights-dir .*{path.name} is not a folder"):
            build(spec_of(weights_dir=path))


def test_a_broken_backbone_is_left_out_by_name(monkeypatch):
    before = pool_module.estimate

    def broken(recipe, classes):
        if recipe.backbone == "big.a":
            raise RecipeError("cannot build big.a at 128 px")
        if recipe.backbone == "wide.a":
            raise WeightsError("wide.a has none")
        return before(recipe, classes)

    monkeypatch.setattr(pool_module, "estimate", broken)
    pool = build()
    assert names(pool) == ["deep.a", "small.a", "tiny.a"]
    assert pool.notes == ("left out, broken: cannot build big.a at 128 px, wide.a has none",)


def test_a_backbone_keeps_the_sizes_at_which_its_weights_load(monkeypatch):
    capabilities_are(monkeypatch, big={"loads": (64,)}, wide={"drop_path": False})
    pool = build()
    assert [entry.image_sizes for entry in pool.entries] == [(64,), (), (), (), ()]
    assert [entry.drop_path for entry in pool.entries] == [True, False, True, True, True]
    assert [entry.describe_limits() for entry in pool.entries][:3] == ["only at 64 px", "no drop path", ""]
    scratch = build(spec_of(pretrained="never", pool={"names": ["big.a"]}))  # without weights it runs at both
    assert [entry.image_sizes for entry in scratch.entries] == [()]


def test_a_backbone_of_one_size_that_the_space_does_not_have_is_trained_there(monkeypatch):
    capabilities_are(monkeypatch, big={"runs": (96,)})
    pool = build()
    assert pool.entries[0].image_sizes == (96,)
    assert pool.entries[0].timing.image_size == 96
    assert not pool.notes


def test_a_backbone_of_a_larger_size_alone_is_left_out_unless_it_is_all_that_was_asked_for(monkeypatch):
    capabilities_are(monkeypatch, big={"runs": (384,)})
    pool = build()
    assert names(pool) == ["wide.a", "deep.a", "small.a", "tiny.a"]
    assert pool.notes == ("left out, need a larger image size than the space's 128 px: big.a (384 px)",)
    asked = build(spec_of(pool={"names": ["big.a"]}))
    assert [entry.image_sizes for entry in asked.entries] == [(384,)]
    assert not asked.notes


def test_a_backbone_that_runs_at_no_size_says_why(monkeypatch):
    capabilities_are(
        monkeypatch, big={"runs": (), "trouble": "it needs a chip"}, wide={"runs": (), "why_not": "64 px: no"}
    )
    pool = build()
    assert names(pool) == ["deep.a", "small.a", "tiny.a"]
    assert pool.notes == ("left out, broken: big.a: it needs a chip, wide.a: 64 px: no",)


def test_weights_of_named_backbones_that_are_out_of_reach_say_what_to_put_where(leaderboard, monkeypatch):
    leaderboard.clear()
    named = ["resnet50.a1_in1k", "vit_base_patch16_224.augreg_in21k"]
    rows = [
        {
            "model": name,
            "image_size": 224,
            "a": 1.0,
            "r": 1.0,
            "family": "f",
            "params_m": 25.0,
            "gmacs": 1.0,
            "licence": "",
        }
        for name in named
    ]
    monkeypatch.setattr(pool_module, "load_table", lambda: pd.DataFrame(rows))
    with pytest.raises(PoolError) as caught:
        build(spec_of(pool={"names": named}))
    assert str(caught.value).splitlines() == [
        "resnet50.a1_in1k, vit_base_patch16_224.augreg_in21k: no weights in the hub's cache or the hub; "
        "give --weights-dir, or --pretrained never to train from scratch",
        "put the weights of resnet50.a1_in1k into --weights-dir as resnet50.a1_in1k.safetensors "
        "(on the hub: model.safetensors of timm/resnet50.a1_in1k)",
        "put the weights of vit_base_patch16_224.augreg_in21k into --weights-dir as "
        "vit_base_patch16_224.augreg_in21k.safetensors "
        "(on the hub: model.safetensors of timm/vit_base_patch16_224.augreg_in21k)",
    ]


def test_a_recipe_of_a_known_good_size_takes_the_nearest_size_of_a_backbone(monkeypatch):
    capabilities_are(monkeypatch, tiny={"loads": (64,)})
    pool = build()
    # at 128 px it would need four times as long
    assert pool.affordable(128, 1000, limit_seconds=1.3) == 4


def test_names_that_match_nothing():
    with pytest.raises(PoolError, match=r"no backbone of the leaderboard matches huge\*, vast\*"):
        build(spec_of(pool={"names": ["huge*", "vast*"]}))


def test_a_name_that_matches_nothing_among_others_is_told():
    pool = build(spec_of(pool={"names": ["big.a", "nonesuch*"]}))
    assert names(pool) == ["big.a"]
    assert pool.notes == ("no backbone of the leaderboard matches nonesuch*",)


def test_a_pool_survives_being_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(
        pool_module, "find_weights", lambda name, *_, **__: Weights("file", tmp_path / f"{name}.safetensors")
    )
    pool = build(memory_bytes=4 * GB)
    again = Pool.from_json(json.loads(json.dumps(pool.to_json())))
    assert again.entries == pool.entries
    assert again.entries[0].find() == Weights("file", tmp_path / "wide.a.safetensors")


def test_an_entry_is_found_with_and_without_its_tag():
    pool = build()
    assert pool.named("deep.a") is pool.named("deep") is pool.entries[2]
    assert pool.named("dee") is None


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_means_offline(monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    assert not hub_reachable()


def test_only_web_addresses_are_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    assert not hub_reachable()
