import json
import urllib.request
from dataclasses import replace

import pandas as pd
import pytest

from automl.backbones.capability_table import Capabilities
from automl.backbones.encoders import load_encoders
from automl.backbones.weights import Weights, hub_reachable
from automl.errors import PoolError, RecipeError, WeightsError
from automl.gpu.probe import CannotProbe, Measurement, StepMemory
from automl.memory.estimate import CONTEXT_BYTES
from automl.memory.estimate import estimate_training as real_estimate
from automl.spec import StudySpec
from automl.study import candidates as candidates_module
from automl.study import pool as pool_module
from automl.study.pool import (
    Pool,
    PoolLimits,
    build_pool,
    find_affordable_tunes,
    largest_step,
    look_up_largest_step,
    measure_need,
    predict_need,
)
from automl.training.precision import Timing
from tests.fixtures.studies import entry

GB = 10**9
LIMITS = PoolLimits(
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
        {"model": name, "image_size": 64, "a": 50.0 - k, "r": 50.0 - k, "a_clean": 60.0, "r_clean": 60.0}
        | {"family": family, "params_m": params, "gmacs": float("nan"), "macts": float("nan"), "licence": "apache-2.0"}
        for k, (name, (family, params, *_)) in enumerate(BACKBONES.items())
    ]
    reach = set(BACKBONES)

    def estimate_training(recipe, classes, *, batch_size=None):
        _, _, largest, smallest, _ = BACKBONES[recipe.backbone]
        return largest if recipe.batch_size == LIMITS.max_batch_size else smallest

    def time(recipe, classes, device, batch_size=16):
        seconds = BACKBONES[recipe.backbone][4]
        return Timing("fp32", "contiguous", seconds, seconds / 3, recipe.image_size)

    monkeypatch.setattr(candidates_module, "load_table", lambda: pd.DataFrame(rows))
    monkeypatch.setattr(candidates_module, "load_encoders", lambda: load_encoders().head(0))
    monkeypatch.setattr(pool_module, "find_capabilities", lambda name, _: can(name))
    monkeypatch.setattr(pool_module, "estimate_training", estimate_training)
    monkeypatch.setattr(pool_module, "best_numerics", time)
    monkeypatch.setattr(candidates_module, "hub_reachable", lambda: True)
    monkeypatch.setattr(
        candidates_module, "find_weights", lambda name, _, *, hub: Weights("hub") if name in reach and hub else None
    )
    return reach


def spec_of(**values):
    pool = {"size": 8, "per_family": 9} | values.pop("pool", {})
    return StudySpec.from_mapping({"pool": pool} | values)


def build(spec=None, **limits):
    return build_pool(spec or spec_of(), PoolLimits(**(vars(LIMITS) | limits)), 2, "cpu")


def names(pool):
    return [entry.backbone for entry in pool.entries]


def test_without_limits_all_are_in_best_first():
    pool = build()
    assert names(pool) == list(BACKBONES)
    scores = [entry.score for entry in pool.entries]
    assert scores == sorted(scores, reverse=True)
    assert all(entry.memory.fits_all for entry in pool.entries)
    assert not pool.notes
    assert pool.fastest_rank() == 4


def test_memory_leaves_out_what_does_not_fit_even_in_small_steps():
    pool = build(memory_bytes=4 * GB)
    assert names(pool) == ["wide.a", "deep.a", "small.a", "tiny.a"]
    assert [entry.memory.fits_all for entry in pool.entries] == [False, False, True, True]
    assert [entry.memory.peak_bytes for entry in pool.entries] == [3 * GB, 2 * GB, 3 * GB, 2 * GB]
    assert pool.notes == ("left out, need more GPU memory: big.a (8GB)",)


def test_a_need_that_the_parameters_alone_give_away_is_not_traced(monkeypatch):
    traced = []
    before = pool_module.estimate_training
    monkeypatch.setattr(pool_module, "estimate_training", lambda r, c: traced.append(r.backbone) or before(r, c))
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
    table = candidates_module.load_table().assign(gmacs=1e6)
    monkeypatch.setattr(candidates_module, "load_table", lambda: table)
    monkeypatch.setattr(pool_module, "best_numerics", lambda *_: pytest.fail("built"))
    with pytest.raises(PoolError, match="no backbone is fast enough"):
        build(trial_seconds=10)


# --- encoders --------------------------------------------------------------------------------------------------------


ENCODERS = {"dino_l.lvd": ("vit", 300.0, 60.0), "dino_s.lvd": ("vit", 20.0, 4.0), "dino_b.lvd": ("vit", 80.0, 17.0)}
"""Name: (family, millions of parameters, 10⁹ multiplications)."""


@pytest.fixture
def encoders(leaderboard, monkeypatch):
    """Three made-up encoders, the cheapest of which is in the middle; where their weights are can be set."""
    rows = [
        {"model": name, "image_size": 64, "family": family, "params_m": params, "gmacs": gmacs, "macts": gmacs}
        | {"licence": "dinov3-license"}
        for name, (family, params, gmacs) in ENCODERS.items()
    ]
    monkeypatch.setattr(candidates_module, "load_encoders", lambda: pd.DataFrame(rows))
    for name, (family, params, _) in ENCODERS.items():
        monkeypatch.setitem(BACKBONES, name, (family, params, 4 * GB, GB, 0.01))
    places = dict.fromkeys(ENCODERS, "hub")

    def find_weights(name, _, *, hub):
        source = places.get(name, "hub" if name in leaderboard else None)
        return Weights(source) if source and (hub or source != "hub") else None

    monkeypatch.setattr(candidates_module, "find_weights", find_weights)
    return places


def pool_of(**values):
    return build(spec_of(pool=values))


def test_a_hub_full_of_encoders_does_not_flood_the_pool(encoders):
    assert names(pool_of()) == ["big.a", "wide.a", "deep.a", "small.a", "tiny.a"]
    assert not pool_of().notes


def test_encoders_whose_weights_are_here_come_behind_the_ranked_ones_the_cheapest_first(encoders):
    encoders |= {"dino_l.lvd": "file", "dino_b.lvd": "cache"}
    pool = pool_of()
    assert names(pool) == ["big.a", "wide.a", "deep.a", "small.a", "tiny.a", "dino_b.lvd", "dino_l.lvd"]
    assert [entry.score for entry in pool.entries[5:]] == [None, None]
    assert pool.entries[5].describe_score() == "no score"
    assert pool.notes == (
        "no board ranks encoders; behind the ranked ones, the cheapest to train first: dino_b.lvd, dino_l.lvd",
    )
    again = Pool.from_json(json.loads(json.dumps(pool.to_json(), allow_nan=False)))
    assert again.entries == pool.entries


def test_of_a_full_pool_they_are_half_at_most(encoders):
    encoders |= dict.fromkeys(encoders, "file")
    assert names(pool_of(size=4)) == ["big.a", "wide.a", "dino_s.lvd", "dino_b.lvd"]
    assert names(pool_of(size=1)) == ["big.a"]


def test_encoders_that_are_named_enter_from_the_hub(encoders):
    assert names(pool_of(names=["dino_*"])) == ["dino_s.lvd", "dino_b.lvd", "dino_l.lvd"]
    assert names(pool_of(names=["dino_l.lvd", "big.a"], size=2)) == ["big.a", "dino_l.lvd"]
    assert names(pool_of(names=["dino_*"], size=2)) == ["dino_s.lvd", "dino_b.lvd"]


def test_a_wildcard_for_both_gives_encoders_of_the_hub_what_the_ranked_ones_leave(encoders):
    assert names(pool_of(names=["d*"], size=3)) == ["deep.a", "dino_s.lvd", "dino_b.lvd"]
    assert names(pool_of(names=["*.*"], size=6)) == ["big.a", "wide.a", "deep.a", "small.a", "tiny.a", "dino_s.lvd"]


def test_none_and_only(encoders):
    encoders |= dict.fromkeys(encoders, "file")
    assert names(pool_of(encoders="none")) == ["big.a", "wide.a", "deep.a", "small.a", "tiny.a"]
    assert names(pool_of(encoders="only")) == ["dino_s.lvd", "dino_b.lvd", "dino_l.lvd"]
    encoders |= dict.fromkeys(encoders, "hub")
    assert names(pool_of(encoders="only", size=2)) == ["dino_s.lvd", "dino_b.lvd"]
    assert names(pool_of(encoders="only", max_params=50)) == ["dino_s.lvd"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"names": ["dino_*"], "encoders": "none"},
            r"no backbone of the leaderboard matches dino_\*; an encoder does: give --encoders",
        ),
        ({"names": ["big.a"], "encoders": "only"}, r"no encoder matches big.a; the leaderboard does: give --encoders"),
        ({"licence": "commercial", "encoders": "only"}, r"no encoder matches \*, of the licence commercial$"),
    ],
)
def test_a_pool_without_rows_says_why(encoders, values, says):
    with pytest.raises(PoolError, match=says):
        pool_of(**values)


def test_from_scratch_encoders_are_trained_only_if_somebody_named_them(encoders, monkeypatch):
    encoders.clear()
    monkeypatch.setattr(candidates_module, "hub_reachable", lambda: False)
    assert names(build(spec_of(pretrained="never"))) == ["deep.a", "small.a", "tiny.a"]
    assert names(build(spec_of(pretrained="never", pool={"names": ["dino_s.lvd"]}))) == ["dino_s.lvd"]
    monkeypatch.setattr(candidates_module, "_explain_where", lambda name: f"put {name} there")
    with pytest.raises(PoolError, match=r"dino_\*: no weights in the hub's cache"):
        pool_of(names=["dino_*"])


def test_an_encoder_without_a_classifier_is_no_candidate(encoders, monkeypatch):
    table = candidates_module.load_encoders()
    table.loc[table["model"] == "dino_s.lvd", ["params_m", "gmacs"]] = float("nan")
    monkeypatch.setattr(candidates_module, "load_encoders", lambda: table)
    assert names(pool_of(encoders="only")) == ["dino_b.lvd", "dino_l.lvd"]


def test_the_shipped_tables_make_a_pool_of_encoders_by_prediction(monkeypatch):
    """Times and needs come from the tables alone, but for the smallest, which is timed."""
    monkeypatch.setattr(candidates_module, "load_encoders", load_encoders)
    monkeypatch.setattr(candidates_module, "find_weights", lambda *_, **__: Weights("hub"))
    monkeypatch.setattr(
        pool_module, "best_numerics", lambda recipe, *_: Timing("fp32", "contiguous", 0.01, 0.003, recipe.image_size)
    )
    monkeypatch.setattr(pool_module, "_TIMING_SECONDS", 0.0)
    monkeypatch.setattr(pool_module, "estimate_training", real_estimate)
    spec = spec_of(pool={"names": ["vit_base_patch16_dinov3.*", "vit_small_patch16_dinov3.*"]})
    pool = build_pool(spec, replace(LIMITS, memory_bytes=80 * GB), 2, "cpu")
    assert names(pool) == ["vit_small_patch16_dinov3.lvd1689m", "vit_base_patch16_dinov3.lvd1689m"]
    small, base = (entry.timing.train_seconds for entry in pool.entries)
    assert 3 < base / small < 5


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
    assert pool.entries[0].locate_weights() == Weights("hub")
    assert pool.notes == ("4 backbones left out: their weights are out of reach",)
    assert names(build(spec_of(pretrained="require"))) == ["small.a"]


def test_without_any_weights_small_ones_train_from_scratch_and_it_is_said_loudly(leaderboard, monkeypatch):
    monkeypatch.setattr(candidates_module, "hub_reachable", lambda: False)
    pool = build()
    assert names(pool) == ["deep.a", "small.a", "tiny.a"]
    assert all(entry.locate_weights() is None for entry in pool.entries)
    assert "NO PRETRAINED WEIGHTS" in pool.notes[0]
    assert "--weights-dir" in pool.notes[0]
    with pytest.raises(PoolError, match="no backbone has weights in the hub's cache or the hub; give --weights-dir"):
        build(spec_of(pretrained="require"))


def test_never_asks_nobody_for_weights(monkeypatch):
    monkeypatch.setattr(candidates_module, "hub_reachable", lambda: pytest.fail("asked"))
    monkeypatch.setattr(candidates_module, "find_weights", lambda *_, **__: pytest.fail("looked"))
    pool = build(spec_of(pretrained="never"))
    assert names(pool) == ["deep.a", "small.a", "tiny.a"]
    assert not pool.notes
    assert "big.a" in names(build(spec_of(pretrained="never", pool={"max_params": 99})))
    assert names(build(spec_of(pretrained="never", pool={"names": ["big.a"]}))) == ["big.a"]


def test_a_folder_of_weights_that_is_not_there_is_told(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(WeightsError, match=f"--weights-dir .*{path.name} is not a folder"):
            build(spec_of(weights_dir=path))


def test_a_broken_backbone_is_left_out_by_name(monkeypatch):
    before = pool_module.estimate_training

    def broken(recipe, classes):
        if recipe.backbone == "big.a":
            raise RecipeError("cannot build big.a at 128 px")
        if recipe.backbone == "wide.a":
            raise WeightsError("wide.a has none")
        return before(recipe, classes)

    monkeypatch.setattr(pool_module, "estimate_training", broken)
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
        monkeypatch, big={"runs": (), "problem": "it needs a chip"}, wide={"runs": (), "why_not": "64 px: no"}
    )
    pool = build()
    assert names(pool) == ["deep.a", "small.a", "tiny.a"]
    assert pool.notes == ("left out, broken: big.a: it needs a chip, wide.a: 64 px: no",)


def test_weights_of_named_backbones_that_are_out_of_reach_say_what_to_put_where(leaderboard, monkeypatch):
    leaderboard.clear()
    named = ["resnet50.a1_in1k", "vit_base_patch16_224.augreg_in21k"]
    rows = candidates_module.load_table().iloc[:2].assign(model=named, image_size=224, params_m=25.0)
    monkeypatch.setattr(candidates_module, "load_table", lambda: rows)
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
    assert pool.affordable_rank(128, 1000, limit_seconds=1.3) == 4


def test_names_that_match_nothing():
    with pytest.raises(PoolError, match=r"no backbone of the leaderboard matches huge\*, vast\*"):
        build(spec_of(pool={"names": ["huge*", "vast*"]}))


def test_a_name_that_matches_nothing_among_others_is_told():
    pool = build(spec_of(pool={"names": ["big.a", "nonesuch*"]}))
    assert names(pool) == ["big.a"]
    assert pool.notes == ("no backbone of the leaderboard matches nonesuch*",)
    with pytest.raises(PoolError, match=r"no backbone of the leaderboard matches smal\.a; near: small$"):
        build(spec_of(pool={"names": ["smal.a"]}))


def test_a_pool_survives_being_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(
        candidates_module, "find_weights", lambda name, *_, **__: Weights("file", tmp_path / f"{name}.safetensors")
    )
    pool = build(memory_bytes=4 * GB)
    again = Pool.from_json(json.loads(json.dumps(pool.to_json())))
    assert again.entries == pool.entries
    assert again.entries[0].locate_weights() == Weights("file", tmp_path / "wide.a.safetensors")


def test_an_entry_is_found_with_and_without_its_tag():
    pool = build()
    assert pool.find_entry("deep.a") is pool.find_entry("deep") is pool.entries[2]
    assert pool.find_entry("dee") is None


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


# --- measured on a GPU; the probe is made up ------------------------------------------------------------------------

TIMING = Timing("bf16", "channels_last", 0.002, 0.001, 96)
MEASURED = ("deep.a", "small.a", "tiny.a")


def measured(micro, batch=64, **given):
    steps = (StepMemory(micro, 2 * GB, 3 * GB, None, 0.001),) if micro else ()
    values = {"device_name": "Tesla T4", "context_bytes": GB // 2, "budget_bytes": 8 * GB, "shared": False}
    values |= {"workspace_bytes": GB // 10}  # of the 2 GB
    values |= {"image_size": 128, "precision": "bf16", "memory_format": "channels_last", "timing": TIMING}
    accumulation = batch // micro if micro else 0
    return Measurement(**(values | given), steps=steps, micro_batch=micro, accumulation=accumulation)


@pytest.fixture
def probed(monkeypatch):
    """Sets what probes answer, in their order; notes what they were asked."""
    asked = []
    monkeypatch.setattr(pool_module, "memory_factor", lambda *_: 1.25)

    def set_to(*answers):
        left = list(answers)

        def probe(recipe, classes, device, budget, *, timed_image_size=None):
            asked.append((recipe, budget, timed_image_size))
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(pool_module, "probe_backbone", probe)
        return asked

    return set_to


def build_measured(device="cuda:0", **limits):
    limits = PoolLimits(**(vars(LIMITS) | {"memory_bytes": 8 * GB} | limits))
    return build_pool(spec_of(pool={"names": MEASURED}), limits, 2, device)


def test_the_largest_step_is_measured(probed):
    asked = probed(measured(64))
    need, timing = measure_need("wide.a", LIMITS, 8 * GB, 2, "cuda:0")
    (recipe, budget, timed), *more = asked
    assert not more
    assert (recipe.image_size, recipe.batch_size, recipe.ema_decay > 0, budget, timed) == (128, 64, True, 8 * GB, 64)
    assert (need.fits_all, need.micro_batch, need.measured, timing) == (True, 64, True, TIMING)
    assert need.peak_bytes == 2 * GB + GB // 2  # live tensors and the measured context
    assert need.predicted_bytes == 12 * GB
    assert need.memory_factor == 1.25
    assert need.context_bytes == GB // 2 + GB // 10  # what is there beside tensors


def test_a_part_of_the_largest_step_fits(probed):
    probed(measured(16))
    need, _ = measure_need("wide.a", LIMITS, 8 * GB, 2, "cuda:0")
    assert (need.fits_all, need.micro_batch, need.accumulation) == (False, 16, 4)
    # the smallest step's prediction, corrected, and what is there beside tensors
    assert need.peak_bytes == GB // 2 + GB // 10 + int(1.25 * (3 * GB - CONTEXT_BYTES))


def test_where_nothing_of_the_largest_fits_the_smallest_is_tried(probed):
    asked = probed(measured(0), measured(2, 2, image_size=64, timing=None))
    need, timing = measure_need("wide.a", LIMITS, 8 * GB, 2, "cuda:0")
    recipe, _, timed = asked[1]
    assert (recipe.image_size, recipe.batch_size, recipe.numerics.precision, timed) == (64, 2, "bf16", None)
    assert (need.fits_all, need.micro_batch, need.peak_bytes) == (False, 0, 2 * GB + GB // 2)
    assert timing == TIMING
    probed(measured(0), measured(0))
    assert measure_need("wide.a", LIMITS, 8 * GB, 2, "cuda:0") is None


def test_an_entry_carries_what_was_measured(probed):
    probed(measured(64), measured(16), measured(64))
    pool = build_measured()
    assert [entry.memory.fits_all for entry in pool.entries] == [True, False, True]
    assert [entry.memory.micro_batch for entry in pool.entries] == [64, 16, 64]
    assert all(entry.memory.measured and entry.timing == TIMING for entry in pool.entries)
    assert not pool.notes
    again = Pool.from_json(json.loads(json.dumps(pool.to_json())))
    assert again.entries == pool.entries
    assert pool.entries[0].memory.describe(8 * GB) == (
        "needs at most 2.5GB (measured; 5GB predicted; 5.5GB of 8GB left; its largest step 64 × 1 images)"
    )


def test_a_stored_pool_is_one_flat_row_an_entry(probed):
    probed(measured(64))
    row = build_measured().to_json()[0]
    assert set(row) == {
        *("backbone", "family", "score", "params_m", "weights", "weights_path", "peak_bytes", "fits_all", "timing"),
        *("measured", "predicted_bytes", "micro_batch", "accumulation", "memory_factor", "context_bytes"),
        *("image_sizes", "drop_path", "tunes", "weights_digest"),
    }


def test_a_pool_stored_before_there_were_probes_is_read(probed):
    probed(measured(64))
    rows = build_measured().to_json()
    later = ("measured", "predicted_bytes", "micro_batch", "accumulation", "memory_factor", "context_bytes")
    for row in rows:
        for name in (*later, "image_sizes", "drop_path", "tunes"):
            del row[name]
    memory = Pool.from_json(rows).entries[0].memory
    assert not memory.measured
    assert memory.prediction_limit(8 * GB) == 8 * GB
    assert memory.describe(8 * GB) == "needs at most 2.5GB"


def test_the_limit_for_predictions_is_corrected_by_what_was_measured(probed):
    probed(measured(64))
    limit = build_measured().entries[0].memory.prediction_limit(8 * GB)
    assert limit - CONTEXT_BYTES == int((8 * GB - GB // 2 - GB // 10) / 1.25)


def test_what_does_not_fit_and_what_is_broken_is_left_out_with_its_reason(probed):
    probed(measured(0), measured(0), RecipeError("small.a: killed by signal 9"), measured(64))
    pool = build_measured()
    assert names(pool) == ["tiny.a"]
    assert pool.notes == (
        "left out, out of GPU memory when tried: deep.a",
        "left out, broken: small.a: killed by signal 9",
    )
    probed(measured(0))
    with pytest.raises(PoolError, match=r"out of memory within 8GB when tried: deep\.a, small\.a, tiny\.a"):
        build_measured()


def test_too_slow_is_judged_by_the_probes_timing(probed):
    probed(measured(64))
    with pytest.raises(PoolError, match="no backbone is fast enough"):
        build_measured(trial_seconds=0.5)


def test_where_nothing_can_be_measured_the_prediction_stays_and_the_note_is_made_once(probed):
    asked = probed(CannotProbe("no process can be started"))
    pool = build_measured()
    assert len(asked) == 1
    assert [entry.memory.peak_bytes for entry in pool.entries] == [5 * GB, 3 * GB, 2 * GB]
    assert not any(entry.memory.measured for entry in pool.entries)
    assert pool.notes == ("memory is predicted, not measured: no process can be started",)


def test_without_a_budget_there_is_nothing_to_measure_against(probed):
    asked = probed(measured(64))
    assert "give --gpu-mem" in build_measured(memory_bytes=None).notes[0]
    assert not asked


def test_on_a_cpu_nothing_is_probed(probed):
    probed(AssertionError("probed"))
    pool = build_measured("cpu")
    assert len(pool.entries) == 3
    assert not any(entry.memory.measured for entry in pool.entries)


# --- before the first trial, in seconds ---------------------------------------------------------------------------


@pytest.mark.parametrize(("backbone", "params_m"), [("mobilenetv2_100", 3.5), ("tf_efficientnet_lite2", 6.09)])
def test_the_shipped_table_says_what_a_trace_says(backbone, params_m):
    limits = PoolLimits(**(vars(LIMITS) | {"image_sizes": (128, 256)}))
    known = look_up_largest_step(backbone, limits, params_m)
    assert known == pytest.approx(real_estimate(largest_step(backbone, limits), 2), rel=0.05)


def test_a_step_that_surely_fits_is_not_traced_and_a_doubtful_one_is(monkeypatch):
    traced = []
    monkeypatch.setattr(pool_module, "estimate_training", lambda recipe, _: traced.append(recipe.backbone) or GB)
    limits = PoolLimits(**(vars(LIMITS) | {"image_sizes": (128, 256), "memory_bytes": 16 * GB}))
    need = predict_need("mobilenetv2_100", limits, 2, 3.5)
    assert (need.fits_all, traced) == (True, [])
    doubtful = replace(limits, memory_bytes=int(1.1 * need.peak_bytes))
    assert predict_need("mobilenetv2_100", doubtful, 2, 3.5).peak_bytes == GB
    assert traced == ["mobilenetv2_100"]


@pytest.fixture
def counted(monkeypatch):
    """The leaderboard's figures of the made-up backbones: their seconds are as predicted, but for the tiny one's."""
    timed = []
    before = pool_module.best_numerics
    table = candidates_module.load_table()
    table["gmacs"] = [BACKBONES[name][4] for name in table["model"]]
    table["macts"] = 1e-9
    monkeypatch.setattr(candidates_module, "load_table", lambda: table)
    monkeypatch.setattr(pool_module, "best_numerics", lambda r, *given: timed.append(r.backbone) or before(r, *given))
    return timed


def test_what_there_is_no_time_to_time_is_predicted_from_the_smallest(counted, monkeypatch):
    monkeypatch.setattr(pool_module, "_TIMING_SECONDS", 0.0)
    pool = build(trial_seconds=1000.0)
    assert counted == ["tiny.a"]
    assert names(pool) == list(BACKBONES)
    for one in pool.entries:
        assert not one.timing.measured
        assert one.timing.train_seconds == pytest.approx(BACKBONES[one.backbone][4])
    assert Pool.from_json(pool.to_json()) == replace(pool, notes=())


def test_what_is_predicted_to_be_too_slow_is_left_out_when_there_is_no_time_to_time_it(counted, monkeypatch):
    monkeypatch.setattr(pool_module, "_TIMING_SECONDS", 0.0)
    pool = build(trial_seconds=15.0)  # an epoch of big.a takes 40 s, of wide.a 20, of deep.a 10
    assert counted == ["tiny.a"]
    assert names(pool) == ["deep.a", "small.a", "tiny.a"]
    assert "too slow" in pool.notes[0]


TUNE_BYTES = {"head": 2 * GB, "last": 3 * GB, "norms": 4 * GB, "lora": 6 * GB, "all": 12 * GB}


@pytest.mark.parametrize(
    ("memory_bytes", "tunes"),
    [(16 * GB, ()), (8 * GB, ("head", "norms", "lora")), (5 * GB, ("head", "norms")), (2 * GB, ("head",))],
)
def test_a_backbone_that_is_too_big_to_train_whole_is_trained_in_part(monkeypatch, memory_bytes, tunes):
    monkeypatch.setattr(pool_module, "estimate_training", lambda recipe, _: TUNE_BYTES[recipe.tune.name])
    limits = PoolLimits(**(vars(LIMITS) | {"memory_bytes": memory_bytes, "tunes": ("head", "norms", "lora", "all")}))
    need = predict_need("big.a", limits, 2)
    assert need.fits_all is (memory_bytes == 16 * GB)
    assert need.peak_bytes == (12 if need.fits_all else 2) * GB
    assert find_affordable_tunes("big.a", limits, need, 2) == tunes
    whole_only = PoolLimits(**(vars(limits) | {"tunes": ("all",)}))
    assert find_affordable_tunes("big.a", whole_only, need, 2) == ()


def test_a_pool_says_where_lora_finds_no_attention(monkeypatch):
    asked = []
    monkeypatch.setattr(pool_module, "has_attention", lambda name: asked.append(name) or name == "big.a")
    assert build().notes == ()
    assert not asked
    assert build(tunes=("head", "lora")).notes == (
        "LoRA changes all layers, whatever tune.lora.targets is, of wide.a, deep.a, small.a and 1 more:"
        " no attention there",
    )
    assert build(spec_of(pretrained="never"), tunes=("all", "lora")).notes == ()  # nothing is frozen then


def test_what_can_be_trained_survives_the_storage_and_is_shown():
    before = entry("big.a", tunes=("head", "norms"))
    after = Pool.from_json(json.loads(json.dumps(Pool((before,)).to_json()))).entries[0]
    assert after == before
    assert after.restriction.tunes == ("head", "norms")
    assert after.describe_limits() == "tune only head, norms"
