"""The benchmarks start, and measure what they say they measure."""

import importlib.util
import os
import py_compile
import sys
import time
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, create_trial

from automl.recipe import Recipe

FOLDER = Path(__file__).parents[1] / "studies" / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Noise:
    """Random images, the same at every call; `training.fit`'s Data."""

    classes, positive = 2, 1

    def labels(self, split: str) -> np.ndarray:
        return np.arange({"train": 16, "validation": 4}[split]) % 2

    def counts(self, split: str) -> np.ndarray:
        return np.ones_like(self.labels(split))

    def batch_size(self, recipe: Recipe) -> int:
        return 4

    def steps_per_epoch(self, recipe: Recipe) -> int:
        return 4

    def train_batches(self, recipe, interpolation, first, last):
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            yield (
                torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8),
                torch.randint(0, 2, (4,), generator=generator),
            )

    def evaluation_batches(self, recipe, interpolation, split, batch_size):
        yield torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_compiles(name: str, tmp_path: Path) -> None:
    py_compile.compile(str(FOLDER / name), cfile=str(tmp_path / "x.pyc"), doraise=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_command_stands_at_its_top_and_in_the_readme(name: str) -> None:
    command = f"python studies/benchmarks/{name}"
    assert command in (FOLDER / name).read_text(encoding="utf-8").split('"""')[1]
    assert command in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["throughput", "overhead", "peers/compare"])
def test_help_explains(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load(name).main(["--help"])
    assert stopped.value.code == 0
    assert "--data" in capsys.readouterr().out


def test_the_bare_loop_does_the_same_work_as_fit() -> None:
    throughput = load("throughput")
    recipe = Recipe(backbone="resnet10t", pretrained=False, image_size=32, batch_size=4, epochs=2, clip_norm=1.0)
    fit = throughput.measure_fit(recipe, Noise(), "cpu", 2)
    bare = throughput.measure_bare(recipe, Noise(), "cpu", 2)
    assert fit.mean_loss == pytest.approx(bare.mean_loss, rel=1e-4)
    assert min(fit.loop_images_per_second, bare.loop_images_per_second) > 0
    # Waiting for a batch is in the loop, not in the step.
    assert fit.step_images_per_second > 0
    assert bare.step_images_per_second > 0


def test_throughput_is_compared_round_by_round() -> None:
    throughput = load("throughput")
    # A machine that is twice as fast in one round than in the others: the ratios stay.
    speeds = [100.0, 200.0, 100.0]
    rounds = [{"fit": throughput.Measured(0.98 * s, s, 0.5), "bare": throughput.Measured(s, s, 0.5)} for s in speeds]
    told = "\n".join(throughput.compare(rounds))
    assert "loop  fit / bare 0.980" in told
    assert "step  fit / bare 1.000" in told


def test_a_busy_machine_is_compared_round_by_round_where_it_was_left_alone() -> None:
    busy = load("busy_machine")
    rounds = [
        {(0, "plain"): busy.Turn(100 * fast), (0, "automl"): busy.Turn(150 * fast, others=others)}
        for fast, others in [(1, 0.0), (2, 0.05), (1, 0.0)]
    ]
    rounds.append({(0, "plain"): busy.Turn(1, others=0.5), (0, "automl"): busy.Turn(100)})
    first, second = busy.compare(rounds)
    assert first.startswith("0 busy  plain")
    assert "100.0 images/s   1.00 x plain" in first
    assert "150.0 images/s   1.50 x plain  (1.50 … 1.50 in 3 quiet of 4 rounds)" in second


def test_variants_of_a_busy_machine_s_environment() -> None:
    busy = load("busy_machine")
    assert busy.read_variant("plain") == {}
    assert busy.read_variant("spin=100+threads=2") == {"GOMP_SPINCOUNT": "100", "OMP_NUM_THREADS": "2"}
    assert busy.read_variant("passive") == {"OMP_WAIT_POLICY": "passive"}
    with pytest.raises(ValueError, match="no variant 'spin=fast'"):
        busy.read_variant("spin=fast")


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux alone says who took how much")
def test_our_own_work_is_not_that_of_others() -> None:
    busy, began = load("busy_machine"), time.process_time()
    everybody, others = busy._others_seconds(()), busy._others_seconds((os.getpid(),))
    assert everybody - others == pytest.approx(began, abs=0.5)


def trial(number: int, start: float, end: float, **user_attrs: Any) -> FrozenTrial:
    frozen = create_trial(value=0.9, user_attrs=user_attrs)
    frozen.number = number
    frozen.datetime_start, frozen.datetime_complete = datetime.fromtimestamp(start), datetime.fromtimestamp(end)
    return frozen


def test_overhead_shares_add_up() -> None:
    overhead = load("overhead")
    trials = [
        trial(1, 60, 90, train_seconds=20, validation_seconds=5, fit_seconds=28),
        trial(0, 20, 55, spent={"train_seconds": 24, "validation_seconds": 4, "fit_seconds": 30}),
        trial(2, 91, 92),  # ended before it was validated
    ]
    shares = overhead.share_out(trials, overhead.Moments(began=0, decoded=5, chosen=15, ended=100))
    parts = vars(shares).copy()
    assert parts.pop("wall") == 100
    assert sum(parts.values()) == pytest.approx(100)
    assert min(parts.values()) >= 0
    assert (shares.pool, shares.worker_start, shares.between_trials, shares.end) == (10, 5, 6, 8)
    assert shares.outside_fit == pytest.approx(0.42)
    assert shares.outside_steps == pytest.approx(0.47)
    assert "42.0%" in "\n".join(shares.lines())


def test_overhead_counts_what_a_storage_is_asked(tmp_path: Path) -> None:
    overhead = load("overhead")
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")
    meter = overhead.Meter(study._storage)
    trial = study.ask()
    study.get_trials()
    assert meter.all.commits == 1  # reading waits for no disk
    assert meter.in_fit == overhead.Asked()
    with meter.fitting():
        trial.set_user_attr("spent", {"fit_seconds": 1.0})
        trial.report(0.5, 1)
    assert (meter.all.commits, meter.in_fit.commits) == (3, 2)
    assert meter.all.statements > meter.in_fit.statements >= 2
    assert meter.all.seconds > meter.in_fit.seconds > 0
    assert "1 commits" in meter.in_fit.line(2)


def test_the_yardstick_counts_the_best_so_far_of_each_seed() -> None:
    compare = load("peers/compare")
    run = {"task": "faces", "images": 0, "version": "", "minutes": 20.0}
    scores = {0: [(30, 0.7), (200, 0.96), (500, 0.8)], 1: [(100, 0.9)], 2: [(200, 0.953)]}
    rows = [
        compare.Row(**run, who="automl", seed=seed, split="validation", seconds=float(seconds), auc=auc)
        for seed, found in scores.items()
        for seconds, auc in found
    ]
    rows.append(compare.Row(**run, who="automl", seed=0, split="holdout", seconds=1200.0, auc=0.99))
    line = list(compare.summarise(rows))[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["faces, all images", "automl", "3"]
    assert cells[3:6] == [".700", ".800 (.700–.900)", ".953 (.900–.960)"]
    assert cells[-3:] == ["", "200 s (2 of 3)", ".990"]  # 40 minutes were not run


def test_the_yardstick_reads_what_each_runner_prints() -> None:
    compare = load("peers/compare")
    lines = {
        "SCORE 0.95125 trial 3 resnet18 epoch 1 of 4": 0.95125,
        "trial 0 complete: auc 0.9709 mobilenetv2_100.ra_in1k 224 px 4.5 epochs in 1m30s": 0.9709,
        "│ val_roc_auc                         0.79258 │": 0.79258,
        "Current best trial: 059a64f0 with val_roc_auc=0.84615 and params={}": 0.84615,
    }
    for line, auc in lines.items():
        assert float(next(filter(None, compare._SCORE.search(line).groups()))) == auc
    assert compare._SCORE.search("trial 2 pruned: auc 0.8181 after 1.09 of 2.2 epochs is behind") is None


def test_the_yardstick_goes_on_where_it_was(tmp_path: Path) -> None:
    compare, path = load("peers/compare"), tmp_path / "rows.csv"
    row = compare.Row("faces", 200, "recipe", "abc", 1, 20.0, "validation", 12.5, 0.9)
    compare.append_rows(path, [row])
    compare.append_rows(path, [row])
    assert compare.read_rows(path) == [row, row]
