"""How often the predicted memory agrees with timm's record of an RTX 3090.

    python studies/benchmarks/memory/fit_3090.py ROWS [--also ROWS …] [--record DIR] [--misses FILE.csv]

`ROWS` is what `trace_3090.py` wrote. The benchmark went down a ladder of batches until one fitted, so of every network
it says that the listed batch fitted and the next one up did not; a prediction is right if it says both. Of networks
that fitted at the ladder's top it says only the former: they are counted apart. What is not in a prediction (the bytes
that the allocator cannot use, and what kernels need for themselves as a share of the largest tensor) is chosen on one
half of the families of architectures and reported on the other, and the other way round. `--also` judges more rows with
the constants of each half: another memory format, or another timm's definitions of the networks. With `--record`
(timm's CSV files) those rows are counted apart for which the record says the same in both memory formats: where it
does not, it is no measure for a prediction that is a few percent off.
"""

import argparse
import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

RECORD = "benchmark-train-amp-{}-pt112-cu113-rtx3090.csv"
MIB = 1 << 20
CARD_BYTES = 24 * 1024 * MIB
"""The card's nominal memory."""
SEED = 3090
UNUSABLE_MIB = range(1000, 3001, 10)
TRANSIENT_PERCENT = (0, 25, 50, 75, 100, 150, 200)


@dataclass(frozen=True)
class Need:
    """What a step needs at one batch, in bytes; see `trace_3090.sizes`."""

    needed: int
    largest: int


@dataclass(frozen=True)
class Case:
    """A row of the record with its prediction; `upper` is the batch that failed, None at the ladder's top."""

    model: str
    network: tuple[object, ...]
    family: str
    batch: int
    upper: int | None
    need: Need
    need_upper: Need | None
    recurrent: bool


@dataclass(frozen=True)
class Constants:
    """What a prediction leaves out: MiB of the card, and what kernels take in % of the largest tensor."""

    unusable_mib: int
    transient_percent: int = 0

    @property
    def usable(self) -> int:
        """What the allocator has, in bytes."""
        return CARD_BYTES - self.unusable_mib * MIB

    def needed(self, need: Need) -> float:
        """What a step needs, in bytes."""
        return need.needed + self.transient_percent / 100 * need.largest

    def use(self, need: Need) -> float:
        """The share of the usable memory that a step is predicted to take."""
        return self.needed(need) / self.usable

    def off(self, case: Case) -> float:
        """How far a prediction is on the wrong side, as a share of the limit: above 0 too high, below too low."""
        if (use := self.use(case.need)) > 1:
            return use - 1
        if case.need_upper is not None and (use := self.use(case.need_upper)) <= 1:
            return min(use - 1, -1e-9)
        return 0.0


def read_cases(path: Path) -> tuple[list[Case], list[str]]:
    """Reads traced rows.

    Returns:
        The cases, and those left out with the reason: networks that could not be traced, or that are others today.
    """
    cases, left_out = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "error" in row or row["parameters_differ"]:
            reason = row.get("error", "another number of parameters than in the record")
            left_out += [f"{model}: {reason}" for model in row["recorded"]]
            continue
        at = {int(batch): _need(sizes) for batch, sizes in row["at"].items()}
        for model, batch in row["recorded"].items():
            upper = next((b for b in sorted(at) if b > batch), None)
            network = (row["family"], row["image_size"], row["parameters"], batch, at[batch].needed)
            above = None if upper is None else at[upper]
            cases.append(Case(model, network, row["family"], batch, upper, at[batch], above, row["recurrent"]))
    return cases, left_out


def _need(sizes: dict[str, Any]) -> Need:
    return Need(sizes["needed"], sizes["largest"])


def halves(cases: Sequence[Case]) -> tuple[frozenset[str], frozenset[str]]:
    """Splits the families, in an order that hashes give, so that the halves have about as many cases each."""
    counts: dict[str, int] = {}
    for case in cases:
        counts[case.family] = counts.get(case.family, 0) + (case.upper is not None)
    parts: tuple[list[str], list[str]] = ([], [])
    totals = [0, 0]
    for family in sorted(counts, key=lambda name: sha256(f"{SEED}:{name}".encode()).hexdigest()):
        smaller = totals.index(min(totals))
        parts[smaller].append(family)
        totals[smaller] += counts[family]
    return frozenset(parts[0]), frozenset(parts[1])


def choose(cases: Iterable[Case]) -> Constants:
    """The constants with the fewest wrong cases; of these, those least off; of these, those with the widest margin."""
    cases = list(cases)
    unusable = np.array(UNUSABLE_MIB)
    usable = (CARD_BYTES - unusable * MIB)[:, None]
    best: tuple[tuple[float, ...], Constants] | None = None
    for percent in TRANSIENT_PERCENT:
        constants = Constants(0, percent)
        fitted = np.array([constants.needed(case.need) for case in cases]) / usable - 1
        failed = 1 - np.array([constants.needed(c.need_upper) for c in cases if c.need_upper is not None]) / usable
        sides = np.concatenate([fitted, failed], axis=1)  # what is above 0 is on the wrong side
        wrong, off = (sides > 0).sum(axis=1), np.maximum(sides, 0).sum(axis=1)
        margin = np.abs(sides).min(axis=1)
        at = np.lexsort((-margin, off, wrong))[0]
        badness = (int(wrong[at]), float(off[at]), -float(margin[at]))
        if best is None or badness < best[0]:
            best = badness, Constants(int(unusable[at]), percent)
    assert best is not None
    return best[1]


def agreeing(record: Path) -> frozenset[str]:
    """The models with the same batch in both of the record's memory formats."""
    batches: dict[str, set[str]] = {}
    for layout in ("nchw", "nhwc"):
        with (record / RECORD.format(layout)).open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                batches.setdefault(row["model"], set()).add(row["train_batch_size"])
    return frozenset(model for model, found in batches.items() if len(found) == 1)


def interval(right: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a share."""
    z = 1.96
    share, spread = right / of, z * math.sqrt(right * (of - right) / of**3 + z * z / (4 * of * of))
    centre, width = share + z * z / (2 * of), 1 + z * z / of
    return (centre - spread) / width, (centre + spread) / width


def told(name: str, cases: Sequence[Case], constants: Constants) -> list[str]:
    """The lines about some cases."""
    lines = []
    for kind, some in (
        ("fits, and the next step does not", [c for c in cases if c.upper is not None]),
        ("fits (at the ladder's top)", [c for c in cases if c.upper is None]),
    ):
        for unit, ones in (("rows", some), ("networks", list({c.network: c for c in some}.values()))):
            right = sum(constants.off(case) == 0 for case in ones)
            if ones:
                low, high = interval(right, len(ones))
                share = f"{right}/{len(ones)} = {right / len(ones):.1%} ({low:.1%} to {high:.1%})"
                lines.append(f"  {name:<28} {kind:<34} {unit:<9} {share}")
    return lines


def missed(cases: Iterable[Case], constants: Constants) -> list[dict[str, object]]:
    """A table of the wrong cases, by how far off they are."""
    found = []
    for case in cases:
        if off := constants.off(case):
            need = case.need if off > 0 or case.need_upper is None else case.need_upper
            found.append(
                {
                    "model": case.model,
                    "family": case.family,
                    "batch": case.batch if off > 0 else case.upper,
                    "record": "fits" if off > 0 else "does not fit",
                    "needed_mib": round(constants.needed(need) / MIB),
                    "off_percent": round(100 * off, 2),
                    "recurrent": case.recurrent,
                }
            )
    return sorted(found, key=lambda row: -abs(float(str(row["off_percent"]))))


def main(arguments: Sequence[str] | None = None) -> None:
    """Chooses, reports, and lists the misses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--also", type=Path, action="append", default=[])
    parser.add_argument("--record", type=Path, metavar="DIR", help="the folder with timm's CSV files")
    parser.add_argument("--misses", type=Path, help="where to write the table of misses")
    given = parser.parse_args(arguments)
    cases, _ = read_cases(given.rows)
    first, second = halves(cases)
    table: list[dict[str, object]] = []
    for chosen_on, reported_on in ((first, second), (second, first)):
        constants = choose(case for case in cases if case.family in chosen_on)
        print(
            f"chosen on {len(chosen_on)} families: {constants.unusable_mib} MiB of 24 GiB cannot be used, "
            f"and kernels take {constants.transient_percent} % of the largest tensor"
        )
        for path in (given.rows, *given.also):
            some, left_out = read_cases(path)
            print(f"{path.name}: {len(some)} rows; left out: {'; '.join(left_out) or 'none'}")
            other = [case for case in some if case.family in reported_on]
            print("\n".join(told("half it was chosen on", [c for c in some if c.family in chosen_on], constants)))
            print("\n".join(told("other half", other, constants)))
            if given.record is not None:
                agree = agreeing(given.record)
                print("\n".join(told("other half, formats agree", [c for c in other if c.model in agree], constants)))
            table += [
                {"rows": path.stem, **row} for row in missed([c for c in some if c.family in reported_on], constants)
            ]
    for row in table:
        print("   ", *(f"{value}" for value in row.values()))
    if given.misses is not None and table:
        with given.misses.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    main()
