"""What the pool makes of a probe; the probe itself is made up."""

import json

import pandas as pd
import pytest

from automl.backbones.capabilities import Capabilities
from automl.backbones.weights import Weights
from automl.errors import PoolError, RecipeError
from automl.gpu.probe import CannotProbe, Measurement, StepMemory
from automl.memory.estimate import CONTEXT_BYTES
from automl.spec import StudySpec
from automl.study import need as need_module
from automl.study import pool as pool_module
from automl.study.need import Limits, measure_need
from automl.study.pool import Pool, build_pool
from automl.training.precision import Timing

GB = 10**9
LIMITS = Limits(
    memory_bytes=8 * GB,
    trial_seconds=None,
    min_epochs=1,
    image_sizes=(64, 128),
    reference_image_size=96,
    max_batch_size=64,
    train_images=1000,
)
TIMING = Timing("bf16", "channels_last", 0.002, 0.001, 96)


def found(micro, batch=64, **given):
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
    monkeypatch.setattr(need_module, "memory_factor", lambda *_: 1.25)
    monkeypatch.setattr(need_module, "estimate", lambda recipe, *_: CONTEXT_BYTES + recipe.batch_size * GB // 40)

    def set_to(*answers):
        left = list(answers)

        def probe(recipe, classes, device, budget, *, timed_image_size=None):
            asked.append((recipe, budget, timed_image_size))
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(need_module, "probe", probe)
        return asked

    return set_to


def test_the_largest_step_is_measured(probed):
    asked = probed(found(64))
    need = measure_need("resnet18", LIMITS, 8 * GB, 2, "cuda:0")
    (recipe, budget, timed), *more = asked
    assert not more
    assert (recipe.image_size, recipe.batch_size, recipe.ema_decay > 0, budget, timed) == (128, 64, True, 8 * GB, 96)
    assert (need.fits_all, need.micro_batch, need.measured, need.timing) == (True, 64, True, TIMING)
    assert need.peak_bytes == 2 * GB + GB // 2  # live tensors and the measured context
    assert need.predicted_bytes == CONTEXT_BYTES + 64 * GB // 40
    assert need.memory_factor == 1.25
    assert need.context_bytes == GB // 2 + GB // 10  # what is there beside tensors


def test_a_part_of_the_largest_step_fits(probed):
    probed(found(16))
    need = measure_need("resnet18", LIMITS, 8 * GB, 2, "cuda:0")
    assert (need.fits_all, need.micro_batch) == (False, 16)
    # the smallest step's prediction, corrected, and what is there beside tensors
    assert need.peak_bytes == GB // 2 + GB // 10 + int(1.25 * (2 * GB // 40))


def test_where_nothing_of_the_largest_fits_the_smallest_is_tried(probed):
    asked = probed(found(0), found(2, 2, image_size=64, timing=None))
    need = measure_need("resnet18", LIMITS, 8 * GB, 2, "cuda:0")
    recipe, _, timed = asked[1]
    assert (recipe.image_size, recipe.batch_size, recipe.numerics.precision, timed) == (64, 2, "bf16", None)
    assert (need.fits_all, need.micro_batch, need.peak_bytes) == (False, 0, 2 * GB + GB // 2)
    assert need.timing == TIMING
    probed(found(0), found(0))
    assert measure_need("resnet18", LIMITS, 8 * GB, 2, "cuda:0") is None


# --- in the pool ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def leaderboard(monkeypatch):
    """Three made-up backbones with weights; each is predicted to need 4 GB, and timed only by a probe."""
    names = ("first.a", "second.a", "third.a")
    rows = [
        {"model": name, "image_size": 64, "family": name, "params_m": 1.0, "gmacs": 1.0, "score": 1.0} for name in names
    ]
    monkeypatch.setattr(pool_module, "load_table", lambda: pd.DataFrame(rows))
    monkeypatch.setattr(pool_module, "rank_at", lambda table, *_: table)
    monkeypatch.setattr(
        pool_module, "find_capabilities", lambda name, sizes: Capabilities(name, 64, runs=sizes, loads=sizes)
    )
    monkeypatch.setattr(pool_module, "select", lambda table, **_: table)
    monkeypatch.setattr(pool_module, "estimate", lambda *_: 4 * GB)
    monkeypatch.setattr(pool_module, "hub_reachable", lambda: True)
    monkeypatch.setattr(pool_module, "find_weights", lambda *_, **__: Weights("hub"))
    monkeypatch.setattr(pool_module, "best_numerics", lambda *_: pytest.fail("timed in this process"))


def build(device="cuda:0", **limits):
    return build_pool(StudySpec(), Limits(**(vars(LIMITS) | limits)), 2, device)


def test_an_entry_carries_what_was_measured(probed):
    probed(found(64), found(16), found(64))
    pool = build()
    assert [entry.fits_all for entry in pool.entries] == [True, False, True]
    assert [entry.micro_batch for entry in pool.entries] == [64, 16, 64]
    assert all(entry.measured and entry.timing == TIMING for entry in pool.entries)
    assert not pool.notes
    again = Pool.from_json(json.loads(json.dumps(pool.to_json())))
    assert again.entries == pool.entries
    said = pool.entries[0].describe_memory(8 * GB)
    assert said == (
        "needs at most 2.5GB (measured; 3.91GB predicted; 5.5GB of 8GB left; its largest step 64 × 1 images)"
    )


def test_a_pool_stored_before_there_were_probes_is_read(probed):
    probed(found(64))
    rows = build().to_json()
    for row in rows:
        for name in ("measured", "predicted_bytes", "micro_batch", "accumulation", "memory_factor", "context_bytes"):
            del row[name]
    entry = Pool.from_json(rows).entries[0]
    assert not entry.measured
    assert entry.limit_for(8 * GB) == 8 * GB
    assert entry.describe_memory(8 * GB) == "needs at most 2.5GB"


def test_the_limit_for_predictions_is_corrected_by_what_was_measured(probed):
    probed(found(64))
    limit = build().entries[0].limit_for(8 * GB)
    assert limit - CONTEXT_BYTES == int((8 * GB - GB // 2 - GB // 10) / 1.25)


def test_what_does_not_fit_and_what_is_broken_is_left_out_with_its_reason(probed):
    probed(found(0), found(0), RecipeError("second.a: killed by signal 9"), found(64))
    pool = build()
    assert [entry.backbone for entry in pool.entries] == ["third.a"]
    assert pool.notes == (
        "left out, out of GPU memory when tried: first.a",
        "left out, broken: second.a: killed by signal 9",
    )
    probed(found(0))
    with pytest.raises(PoolError, match=r"out of memory within 8GB when tried: first\.a, second\.a, third\.a"):
        build()


def test_too_slow_is_judged_by_the_probes_timing(probed):
    probed(found(64))
    with pytest.raises(PoolError, match="no backbone is fast enough"):
        build(trial_seconds=0.5)


def test_where_nothing_can_be_measured_the_prediction_stays_and_it_is_said_once(probed, monkeypatch):
    asked = probed(CannotProbe("no process can be started"))
    monkeypatch.setattr(pool_module, "best_numerics", lambda *_: TIMING)
    pool = build()
    assert len(asked) == 1
    assert [entry.peak_bytes for entry in pool.entries] == [4 * GB] * 3
    assert not any(entry.measured for entry in pool.entries)
    assert pool.notes == ("memory is predicted, not measured: no process can be started",)


def test_without_a_budget_there_is_nothing_to_measure_against(probed, monkeypatch):
    asked = probed(found(64))
    monkeypatch.setattr(pool_module, "best_numerics", lambda *_: TIMING)
    assert "give --gpu-mem" in build(memory_bytes=None).notes[0]
    assert not asked


def test_on_a_cpu_nothing_is_probed(probed, monkeypatch):
    probed(AssertionError("probed"))
    monkeypatch.setattr(pool_module, "best_numerics", lambda *_: TIMING)
    pool = build("cpu")
    assert len(pool.entries) == 3
    assert not any(entry.measured for entry in pool.entries)
