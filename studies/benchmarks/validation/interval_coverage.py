"""How often the holdout's interval holds the score on samples that were never used.

    python studies/benchmarks/validation/interval_coverage.py --features FEATURES --draws 300

A draw deals samples out to train, validation and holdout, without replacement, and then does what `automl search` and
`automl confirm` do: 36 candidates (`candidates.py`) are trained and scored on the validation split; the best three are
trained three times more; the best mean on the same validation split is chosen; its three models are scored on the
holdout once, with the interval of `automl.training.intervals`. What is left gives the score to be covered.

A logistic regression has no seed. In place of one, each training sees a bootstrap sample of the training split, which
varies more than the seeds of a network do. Rows are appended to `rows/interval_coverage.csv`; what is there is not
computed again. `tables.py` makes tables of them.

Beside the interval of the holdout there are, in columns of their own: the same interval of as many samples drawn with
replacement from those that are left, whose AUC is known exactly; and on the holdout the interval of DeLong et al. 1988
on the logit scale, for groups that of Obuchowski 1997 ("Nonparametric analysis of clustered ROC curve data") with
Student's t for as many groups; and that of the jackknife over groups (Efron & Tibshirani 1993, chapter 11), also on the
logit scale and with Student's t, which suits any metric.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from candidates import Rows, Scores, World, compute_auc, train_candidate
from numpy.typing import NDArray
from scipy.stats import rankdata, t
from worlds import CLEAN

from automl.training.intervals import metric_interval

ROWS = Path(__file__).parent / "rows" / "interval_coverage.csv"
TOP, SEEDS = 3, 3
FIELDS = (
    "case",
    "draw",
    "search",
    "confirmed",
    "confirmed_low",
    "confirmed_high",
    "holdout",
    "low",
    "high",
    "rest",
    "delong_low",
    "delong_high",
    "resampled_low",
    "resampled_high",
    "jackknife_low",
    "jackknife_high",
)


@dataclass(frozen=True)
class Case:
    """How samples are dealt out.

    Attributes:
        world: The set of features.
        sizes: Samples of train, validation and holdout.
        photos: Groups of each, where whole groups are dealt out; the rest has what is left.
    """

    world: str
    sizes: tuple[int, int, int]
    photos: tuple[int, int, int] | None = None

    def count_parts(self, total: tuple[int, int]) -> tuple[int, int]:
        """Counts the samples of holdout and rest, or the groups where those are dealt out; of (samples, groups)."""
        sizes, number = (self.photos, total[1]) if self.photos else (self.sizes, total[0])
        return sizes[2], number - sum(sizes)


CASES = {
    "faces": Case("faces", (400, 200, 160)),
    "faces, few": Case("faces", (150, 60, 40)),
    "demo, images dealt out": Case("demo", (400, 200, 160)),
    "demo, photographs dealt out": Case("demo", (400, 200, 160), (5, 3, 3)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Computes what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True, help="folder that worlds.py has written")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    args = parser.parse_args(arguments)

    done = {(row["case"], int(row["draw"])) for row in read_rows()}
    if not ROWS.exists():
        ROWS.parent.mkdir(exist_ok=True)
        ROWS.write_text(",".join(FIELDS) + "\n", encoding="utf-8")
    for name in args.cases:
        case = CASES[name]
        world = World.load(args.features, case.world)
        clean = np.flatnonzero(world.table["copy"] == CLEAN)
        labels = world.labels[clean]
        groups = world.table["group"].to_numpy(str)[clean] if case.photos else None
        features = world.rotate_features(clean, clean)
        models = [(features[c.backbone, c.layers], c.strength) for c in world.candidates]
        for draw in range(args.draws):
            if (name, draw) in done:
                continue
            parts = deal_samples(labels, groups, case, np.random.default_rng([draw, 3]))
            row = search_and_confirm(models, labels, groups, parts, draw)
            with ROWS.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow([name, draw, *(f"{row[field]:.4f}" for field in FIELDS[2:])])
            if draw % 10 == 9:
                print(f"{name}: {draw + 1} draws", flush=True)


def read_rows(path: Path = ROWS) -> list[dict[str, str]]:
    """Reads the rows that are there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def deal_samples(labels: Rows, groups: NDArray[np.str_] | None, case: Case, random: np.random.Generator) -> list[Rows]:
    """Deals samples out: positions of train, validation, holdout and the rest; as many of both classes in the first."""
    left = np.ones(len(labels), dtype=bool)
    photos = random.permutation(np.unique(groups)) if groups is not None and case.photos else None
    parts = []
    for number, size in enumerate(case.sizes):
        free = left.copy()
        if photos is not None and groups is not None and case.photos:
            first = sum(case.photos[:number])
            free &= np.isin(groups, photos[first : first + case.photos[number]])
        chosen = np.concatenate(
            [random.choice(np.flatnonzero(free & (labels == label)), size // 2, replace=False) for label in (0, 1)]
        )
        left[free if photos is not None else chosen] = False
        parts.append(np.sort(chosen))
    return [*parts, np.flatnonzero(left)]


def search_and_confirm(
    models: list[tuple[NDArray[np.float32], float]],
    labels: Rows,
    groups: NDArray[np.str_] | None,
    parts: list[Rows],
    draw: int,
) -> dict[str, float]:
    """Does what a search and its confirmation do; returns the numbers of a row."""
    train, validation, holdout, rest = parts
    random = np.random.default_rng([draw, 4])

    def train_once(number: int) -> Scores:
        features, strength = models[number]
        return train_candidate(features, labels, draw_again(labels, train, random), strength)

    searched = [compute_auc(labels[validation], train_once(number)[validation]) for number in range(len(models))]
    best = np.argsort(searched)[::-1][:TOP]
    confirmed = [np.stack([train_once(int(number)) for _ in range(SEEDS)], axis=1) for number in best]
    means = [mean_auc(labels[validation], logits[validation]) for logits in confirmed]
    chosen = confirmed[int(np.argmax(means))]

    def measure_interval(rows: Rows, repeats: int = 2000) -> tuple[float, float]:
        of_models = [np.stack([-logits, logits], axis=1) for logits in chosen[rows].T]
        kinds = None if groups is None else groups[rows]
        interval = metric_interval("auc", labels[rows], of_models, groups=kinds, repeats=repeats, seed=draw)
        return interval.low, interval.high

    row = {"search": max(searched), "confirmed": max(means)}
    row["confirmed_low"], row["confirmed_high"] = measure_interval(validation)
    row["holdout"] = mean_auc(labels[holdout], chosen[holdout])
    row["low"], row["high"] = measure_interval(holdout)
    row["rest"] = mean_auc(labels[rest], chosen[rest])
    kinds = None if groups is None else groups[holdout]
    row["delong_low"], row["delong_high"] = delong_interval(labels[holdout], chosen[holdout], kinds)
    row["jackknife_low"] = row["jackknife_high"] = float("nan")
    if kinds is not None:
        row["jackknife_low"], row["jackknife_high"] = jackknife_interval(labels[holdout], chosen[holdout], kinds)
    row["resampled_low"] = row["resampled_high"] = float("nan")
    if groups is None:
        counts = {label: int((labels[holdout] == label).sum()) for label in (0, 1)}
        again = [random.choice(rest[labels[rest] == label], count) for label, count in counts.items()]
        row["resampled_low"], row["resampled_high"] = measure_interval(np.concatenate(again), 1000)
    return row


def draw_again(labels: Rows, rows: Rows, random: np.random.Generator) -> Rows:
    """Draws as many rows of each class with replacement."""
    return np.concatenate([random.choice(own, len(own)) for own in (rows[labels[rows] == label] for label in (0, 1))])


def mean_auc(labels: Rows, logits: Scores) -> float:
    """Computes the mean AUC of (N, models)."""
    return float(np.mean([compute_auc(labels, one) for one in logits.T]))


def delong_interval(
    labels: Rows, logits: Scores, groups: NDArray[np.str_] | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Computes the interval of the mean AUC of (N, models) from its variance, on the logit scale.

    The variance is DeLong's (1988); with groups Obuchowski's (1997), with Student's t for as many groups.
    """
    hits = labels == 1
    shares = np.empty(len(labels))  # of a sample: the share of the other class that it is ranked right against
    for kind in (hits, ~hits):
        sign = 1 if kind is hits else -1
        others = int((~kind).sum())
        ranks = rankdata(sign * logits, axis=0)[kind] - rankdata(sign * logits[kind], axis=0)
        shares[kind] = ranks.mean(axis=1) / others
    auc = float(shares[hits].mean())
    parts = (shares - auc) / np.where(hits, hits.sum(), (~hits).sum())
    _, codes = np.unique(np.arange(len(labels)) if groups is None else groups, return_inverse=True)
    sums = np.bincount(codes, parts)
    error = float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()))
    return reach_on_logits(auc, error, len(sums), level)


def jackknife_interval(
    labels: Rows, logits: Scores, groups: NDArray[np.str_], level: float = 0.95
) -> tuple[float, float]:
    """Computes the interval of the mean AUC of (N, models) by leaving out each group in turn."""
    names = np.unique(groups)
    values = np.array([mean_auc(labels[groups != name], logits[groups != name]) for name in names])
    error = float(np.sqrt((len(names) - 1) / len(names) * ((values - values.mean()) ** 2).sum()))
    return reach_on_logits(mean_auc(labels, logits), error, len(names), level)


def reach_on_logits(value: float, error: float, count: int, level: float) -> tuple[float, float]:
    """Computes Student's interval of a share on the logit scale, from its standard error over `count` parts."""
    clipped = min(max(value, 1e-4), 1 - 1e-4)
    centre = np.log(clipped / (1 - clipped))
    reach = t.ppf((1 + level) / 2, count - 1) * error / (clipped * (1 - clipped))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-reach, reach]))))
    return float(low), float(high)


if __name__ == "__main__":
    main()
