"""Which recipes win, in the trainings of `train_recipes.py`: by what was changed, and by minute on this machine.

    python studies/benchmarks/recipes/winners.py [--minutes 1 2 4 8 16]

The first table lists each change beside the centre, at the same length on the same data: the final metric on the
validation split, on the holdout, and on the validation split with flips. The second counts in minutes: the seconds of
an epoch of each network and image size are timed here (`best_numerics`, a second each), and a recipe's metric
at a minute is that of its last validation if it had ended by then.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

ROWS = Path(__file__).with_name("trainings.jsonl")
IMAGES = {("faces", 0): 1040, ("faces", 200): 200, ("hymenoptera", 0): 219}
VALIDATION_SHARE = 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints both tables."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--minutes", nargs="*", type=float, default=[1, 2, 4, 8, 16])
    args = parser.parse_args(arguments)
    rows = [json.loads(line) for line in args.rows.read_text().splitlines()]
    print("\n".join(compare_changes(rows)))
    print("\n".join(list_winners(rows, args.minutes)))


def compare_changes(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields a line for each change, the best first, within each data set and length."""
    groups: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["data"], row["images"], row["recipe"]["epochs"]][row["label"]].append(row)
    for (data, images, epochs), changes in groups.items():
        yield f"\n{data}{f', {images} images' if images else ''}, {epochs:g} epochs (seeds; validation, holdout, flips)"
        for label, found in sorted(changes.items(), key=lambda item: -mean(row["final"] for row in item[1])):
            values = (mean(row[name] for row in found) for name in ("final", "holdout", "flips"))
            yield f"  {label:44} {len(found)}  " + "  ".join(f"{value:.4f}" for value in values)


def list_winners(rows: Sequence[dict[str, Any]], minutes: Sequence[float]) -> Iterator[str]:
    """Yields the three best recipes that have ended by each minute."""
    seconds: dict[tuple[str, int], float] = {}
    for data, images in IMAGES:
        found = [row for row in rows if (row["data"], row["images"]) == (data, images)]
        for minute in minutes:
            ended = []
            for row in found:
                key = row["recipe"]["backbone"], row["recipe"]["image_size"]
                seconds[key] = seconds.get(key) or time_step(*key)
                cost = seconds[key] * IMAGES[data, images] * row["recipe"]["epochs"] * (1 + VALIDATION_SHARE)
                if cost <= 60 * minute:
                    ended.append((row["final"], row["label"], cost))
            yield f"\n{data}{f', {images} images' if images else ''}, {minute:g} minutes: {len(ended)} have ended"
            yield from (
                f"  {final:.4f} after {cost:3.0f} s  {label}" for final, label, cost in sorted(ended)[-3:][::-1]
            )


def time_step(backbone: str, image_size: int) -> float:
    """Times a training step on this machine's CPU; returns the seconds per image."""
    from automl.recipe import Recipe
    from automl.training.precision import best_numerics

    return best_numerics(Recipe(backbone=backbone, image_size=image_size), 2, "cpu").train_seconds


if __name__ == "__main__":
    main()
