"""Tables of the rows of this folder, in Markdown, and the picture `docs/winners-curse.svg`.

    python studies/benchmarks/validation/tables.py

Intervals of means are 95 % percentile bootstraps: of what is unseen, and of seeds.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from candidates import LAYERS, STRENGTHS
from interval_coverage import CASES, read_rows
from numpy.typing import NDArray
from predict_unseen import ROWS
from predict_unseen import read_rows as read_cells
from scipy.stats import spearmanr, t

Values = dict[tuple[str, str], list[float]]
"""By world and what is unseen, a value for each seed."""

METHODS = ("random", "resplit", "folds", "hard", "hard folds", "domain", "domain folds", "robust")
EXTRA = ("robust, unseen among them", "new samples of known domains")
DEFAULT_NUMBER = list(LAYERS).index("last") * len(STRENGTHS) + STRENGTHS.index(1.0)
"""Of `candidates.DEFAULT`, whose backbone comes first."""
TOTALS = {"faces": (1600, 1600), "demo": (2160, 15)}
"""Samples and groups of each set."""
REPEATS = 2000
PICTURE = Path(__file__).parents[3] / "docs" / "winners-curse.svg"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables and draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    cells = read_cells(ROWS)
    print_worlds(cells)
    print_methods(cells)
    print_equal_time(cells)
    print_coverage()


# --- which validation predicts ------------------------------------------------------------------------------------


def measure_methods(cells: Iterable[dict[str, Any]]) -> dict[str, dict[str, Values]]:
    """Measures each method in each cell: rank correlation, regret and bias of what it selects."""
    measured: dict[str, dict[str, Values]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for cell in cells:
        key, target = (cell["world"], cell["unseen"]), np.array(cell["target"], float)
        for method, scores in {**cell["scores"], EXTRA[1]: cell["seen"]}.items():
            values = np.array(scores, float)
            if np.isfinite(values).all() and len(values):
                rho, regret, bias = judge_selection(values, target)
                measured[method]["rank correlation"][key].append(rho)
                measured[method]["regret"][key].append(regret)
                measured[method]["bias"][key].append(bias)
        for method, regret in {
            "the default, no search": target.max() - target[DEFAULT_NUMBER],
            "any at random": target.max() - target.mean(),
        }.items():
            measured[method]["regret"][key].append(float(regret))
    return measured


def replay_trainings(cells: Iterable[dict[str, Any]], trainings: int, draws: int = 200) -> dict[str, Values]:
    """Replays searches of so many trainings, with candidates in random order: the regret of what each selects.

    `folds` sees a fifth of the candidates, each trained on five folds. `best of split by folds` sees as many candidates
    less 15 on one split, and trains the best three on five folds.
    """
    random, regrets = np.random.default_rng(0), defaultdict[str, Values](lambda: defaultdict(list))
    for cell in cells:
        scores = cell["scores"]
        split, folds, target = (np.array(row, float) for row in (scores["random"], scores["folds"], cell["target"]))
        if not np.isfinite(target).all() or not np.isfinite(folds).all():
            continue
        drawn = defaultdict[str, list[float]](list)
        for _ in range(draws):
            order = random.permutation(len(target))
            seen = order[:trainings]
            drawn["one split"].append(target[seen[np.argmax(split[seen])]])
            few = order[: max(1, trainings // 5)]
            drawn["folds"].append(target[few[np.argmax(folds[few])]])
            first = order[: max(1, trainings - 15)]
            top = first[np.argsort(-split[first])[:3]]
            drawn["best of split by folds"].append(target[top[np.argmax(folds[top])]])
        for name, values in drawn.items():
            regrets[name][cell["world"], cell["unseen"]].append(float(target.max() - np.mean(values)))
    return regrets


def judge_selection(scores: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[float, float, float]:
    """Returns the rank correlation of scores with the target, and regret and bias of the candidate of the best score.

    Of candidates that share the best score the first one counts; scores that are all the same have no correlation.
    """
    chosen = int(np.argmax(scores))
    rho = float(spearmanr(scores, target).statistic) if np.ptp(scores) > 0 and np.ptp(target) > 0 else 0.0
    return rho, float(target.max() - target[chosen]), float(scores[chosen] - target[chosen])


def bootstrap_mean(values: Values, repeats: int = REPEATS, seed: int = 0) -> tuple[float, float, float]:
    """Computes the mean of the means over seeds, and its interval.

    What is unseen is drawn anew; and so are the seeds, for all of a world at once, because they share their samples.
    """
    rows = [(world, np.array(row)) for (world, _), row in values.items() if row]
    if not rows:
        return float("nan"), float("nan"), float("nan")
    random, longest = np.random.default_rng(seed), max(len(row) for _, row in rows)
    worlds = sorted({world for world, _ in rows})
    means = np.empty(repeats)
    for repeat in range(repeats):
        seeds = dict(zip(worlds, random.random((len(worlds), longest)), strict=True))
        drawn = [rows[number] for number in random.integers(len(rows), size=len(rows))]
        means[repeat] = np.mean([row[(seeds[world][: len(row)] * len(row)).astype(int)].mean() for world, row in drawn])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean([row.mean() for _, row in rows])), float(low), float(high)


def subtract_values(values: Values, other: Values) -> Values:
    """Subtracts seed by seed where both have all seeds."""
    return {
        key: (np.array(row) - np.array(other[key])).tolist()
        for key, row in values.items()
        if len(row) == len(other.get(key, []))
    }


def print_worlds(cells: list[dict[str, Any]]) -> None:
    """Prints what is unseen, and how well it can be done."""
    print("\n| world, unseen | seeds | known, unseen samples | of known domains | unseen: best | median | worst |")
    print("|---|---|---|---|---|---|---|")
    by_key = defaultdict(list)
    for cell in cells:
        by_key[cell["world"], cell["unseen"]].append(cell)
    for (world, unseen), rows in by_key.items():
        target = np.array([row["target"] for row in rows], float)
        seen = np.array([[value or np.nan for value in row["seen"]] for row in rows], float)
        sizes = rows[0]["samples"]
        middle = f"{np.nanmedian(seen):.3f}".lstrip("0") if np.isfinite(seen).any() else ""
        best, median, worst = (
            f"{np.mean(part):.3f}".lstrip("0") for part in (target.max(1), np.median(target, 1), target.min(1))
        )
        counts = f"{sizes['known']}, {sizes['unseen']}"
        print(f"| {world}: {unseen} | {len(rows)} | {counts} | {middle} | {best} | {median} | {worst} |")


def print_equal_time(cells: list[dict[str, Any]]) -> None:
    """Prints what is selected with as many trainings, of one split or of folds; clips are too few to say anything."""
    print("\n| trainings | one split | folds | the best of one split, by folds | folds − one split |")
    print("|---|---|---|---|---|")
    for trainings in (10, 20, 30, 36):
        regrets = replay_trainings([cell for cell in cells if cell["world"] != "clips"], trainings)
        shown = [format_mean(regrets[name]) for name in ("one split", "folds", "best of split by folds")]
        shown.append(format_mean(subtract_values(regrets["folds"], regrets["one split"]), signed=True))
        print(f"| {trainings} | {' | '.join(shown)} |")


def print_methods(cells: list[dict[str, Any]]) -> None:
    """Prints a table for each world: how well each method predicts, and by how much it beats a random split."""
    measured = measure_methods(cells)
    worlds = list(dict.fromkeys(cell["world"] for cell in cells))
    groups = {world: [cell for cell in cells if cell["world"] == world] for world in worlds}
    for world in (*worlds, "all but clips"):
        inside = [name for name in worlds if name != "clips"] if world == "all but clips" else [world]
        print(f"\n**{world}** ({sum(len(groups[name]) for name in inside)} rows)\n")
        print("| selected by | rank correlation | more than a random split's | regret | less a random split's | bias |")
        print("|---|---|---|---|---|---|")
        for method in (*METHODS, *EXTRA, "the default, no search", "any at random"):
            cells_of = {
                measure: {key: row for key, row in values.items() if key[0] in inside}
                for measure, values in measured.get(method, {}).items()
            }
            if not cells_of.get("regret"):
                continue
            texts = []
            for name in ("rank correlation", "regret"):
                texts.append(format_mean(cells_of.get(name, {})))
                less = subtract_values(cells_of.get(name, {}), measured["random"][name])
                texts.append("" if method == "random" else format_mean(less, signed=True))
            print(f"| {method} | {' | '.join(texts)} | {format_mean(cells_of.get('bias', {}), signed=True)} |")


def format_mean(values: Values, signed: bool = False) -> str:
    """Writes a mean with its interval: `.45 (.30 to .58)`."""
    mean, low, high = bootstrap_mean(values)
    if not math.isfinite(mean):
        return ""
    return f"{format_number(mean, signed)} ({format_number(low, signed)} to {format_number(high, signed)})"


def format_number(value: float, signed: bool = False) -> str:
    """Writes three digits without the zero before the point: `.954`, `−.012`."""
    text = f"{abs(value):.3f}".removeprefix("0")
    sign = "−" if round(value, 3) < 0 else "+" if signed and round(value, 3) > 0 else ""
    return sign + text


# --- the interval -------------------------------------------------------------------------------------------------


def print_coverage() -> None:
    """Prints how often intervals cover, and the winner's curse; draws the picture."""
    by_case: dict[str, list[dict[str, float]]] = defaultdict(list)
    for row in read_rows():
        by_case[row["case"]].append({key: float(value) for key, value in row.items() if key not in ("case", "draw")})
    columns = {case: {key: np.array([row[key] for row in rows]) for key in rows[0]} for case, rows in by_case.items()}
    print(
        "\n| case | draws | first 30 | all | exact | DeLong | jackknife | of the rest, drawn again | in the confirmed |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case, table in columns.items():
        covered = cover_score(table, "", "rest")
        exact = expect_coverage(*CASES[case].count_parts(TOTALS[CASES[case].world]))
        others = [cover_score(table, name, "rest") for name in ("delong_", "jackknife_", "resampled_")]
        texts = [f"{one.mean():.1%}" if len(one) else "" for one in others]
        texts.append(f"{cover_score(table, 'confirmed_', 'holdout').mean():.1%}")
        first = f"{covered[:30].sum()} of {len(covered[:30])}"
        print(f"| {case} | {len(covered)} | {first} | {covered.mean():.1%} | {exact:.1%} | {' | '.join(texts)} |")
    print("\n| case | rest | search's best − rest | confirmed − rest | holdout − rest | width of the interval |")
    print("|---|---|---|---|---|---|")
    for case, table in columns.items():
        texts = []
        for name in ("search", "confirmed", "holdout"):
            less = table[name] - table["rest"]
            spread = float(less.std(ddof=1))
            error = format_number(spread / len(less) ** 0.5)
            texts.append(f"{format_number(less.mean(), True)} ± {error} (spread {format_number(spread)})")
        width = format_number(float(np.median(table["high"] - table["low"])))
        print(f"| {case} | {format_number(table['rest'].mean())} | {' | '.join(texts)} | {width} |")
    PICTURE.write_text(draw_curse(by_case), encoding="utf-8")


def cover_score(table: dict[str, NDArray[np.float64]], interval: str, score: str) -> NDArray[np.bool_]:
    """Returns for each draw whether an interval holds a score; nothing where there is no such interval."""
    low, high = table[f"{interval}low"], table[f"{interval}high"]
    if not np.isfinite(low).all():
        return np.zeros(0, dtype=bool)
    return (low <= table[score]) & (table[score] <= high)


def expect_coverage(holdout: int, rest: int, level: float = 0.95) -> float:
    """Computes how often an exact interval of the holdout covers the score on the rest, which has an error of its own.

    Both are disjoint samples of one population, so that their difference varies by 1 / holdout + 1 / rest; samples or
    groups are counted. Student's t is taken, which matters for few groups.
    """
    reach = t.ppf((1 + level) / 2, holdout - 1) / (1 + holdout / rest) ** 0.5
    return float(2 * t.cdf(reach, holdout - 1) - 1)


def draw_curse(by_case: dict[str, list[dict[str, float]]]) -> str:
    """Draws how far the three scores lie above the rest: mean, and from where to where 80 % of the draws lie."""
    colours = {"search": "#d9730d", "confirmed": "#a371f7", "holdout": "#2f81f7"}
    names = {"search": "search's best validation", "confirmed": "confirmed validation", "holdout": "holdout"}
    left, right, top, lowest, highest = 210, 780, 70, -0.15, 0.2
    grey = 'fill="#7a7a7a" font-size="13"'

    def x_of(value: float) -> float:
        return round(left + (right - left) * (min(max(value, lowest), highest) - lowest) / (highest - lowest), 1)

    parts, y = [], top
    for case, rows in by_case.items():
        parts.append(f'<text x="{left - 14}" y="{y + 24}" text-anchor="end" {grey}>{case}</text>')
        for name, colour in colours.items():
            less = np.array([row[name] - row["rest"] for row in rows])
            low, high = np.quantile(less, [0.1, 0.9])
            parts.append(f'<path d="M{x_of(low)} {y}H{x_of(high)}" stroke="{colour}" stroke-width="3"/>')
            parts.append(f'<circle cx="{x_of(less.mean())}" cy="{y}" r="5" fill="{colour}"/>')
            y += 20
        y += 24
    bottom = y - 24
    for number in range(8):
        value = lowest + 0.05 * number
        strong = ".9" if abs(value) < 1e-9 else ".3"
        parts.append(f'<path d="M{x_of(value)} {top - 14}V{bottom}" stroke="#7a7a7a" stroke-opacity="{strong}"/>')
        label = format_number(value, signed=True)
        parts.append(f'<text x="{x_of(value)}" y="{bottom + 18}" text-anchor="middle" {grey}>{label}</text>')
    for number, (name, colour) in enumerate(colours.items()):
        x = left + 190 * number
        parts.append(
            f'<circle cx="{x}" cy="44" r="5" fill="{colour}"/><text x="{x + 12}" y="48" {grey}>{names[name]}</text>'
        )
    title = "AUC above that of samples never used: mean, and the middle 80 % of draws"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {bottom + 30}" '
            'font-family="system-ui, Helvetica, Arial, sans-serif" role="img">',
            f"<title>{title}</title>",
            f'<text x="20" y="22" fill="#7a7a7a" font-size="16" font-weight="bold">{title}</text>',
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    main()
