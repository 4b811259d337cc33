"""How often the predicted memory agrees with timm's record of an RTX 3090.

    python studies/benchmarks/memory/fit_3090.py ROWS [--also ROWS …] [--misses FILE.csv]

`ROWS` is what `trace_3090.py` wrote. The benchmark went down a ladder of batches until one fitted, so of every network
it says that the listed batch fitted and the next one up did not; a prediction is right if it says both. Of networks
that fitted at the ladder's top it says only the former: they are counted apart. What is not in a prediction (the bytes
that the allocator cannot use, the shares of a convolution's input and output that cuDNN's workspace takes) is chosen on
one half of the families of architectures and reported on the other. `--also` judges more rows with these constants:
another memory format, or another timm's definitions of the networks.
"""

import argparse
import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

MIB = 1 << 20
CARD_BYTES = 24 * 1024 * MIB
"""The card's nominal memory."""
SEED = 3090
UNUSABLE_MIB = range(1000, 3001, 10)
WORKSPACE_PERCENT = (0, 25, 50, 75, 100, 150, 200)
KINDS = ("dense", "grouped", "depthwise")


@dataclass(frozen=True)
class Need:
    """What a step needs at one batch, in bytes; see `trace_3090.sizes`."""

    live: int
    needed: int
    lines: tuple[tuple[tuple[int, int], ...], ...]
    """Of each of `KINDS`."""


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
    """What a prediction leaves out: MiB of the card, and workspace in % of convolutions' input and output, by kind."""

    unusable_mib: int
    workspace_percent: tuple[int, ...] = (0, 0, 0)

    @property
    def usable(self) -> int:
        """What the allocator has, in bytes."""
        return CARD_BYTES - self.unusable_mib * MIB

    def needed(self, need: Need) -> int:
        """What a step needs with its workspace, in bytes; fragmentation adds what it adds without."""
        peak = need.live
        for percent, lines in zip(self.workspace_percent, need.lines, strict=True):
            peak = max([peak, *(live + percent * slope for live, slope in lines)])
        return peak + need.needed - need.live

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
    lines = tuple(tuple((int(a), int(k)) for a, k in sizes[kind]) for kind in KINDS)
    return Need(sizes["live"], sizes["needed"], lines)


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
    for percent in product(WORKSPACE_PERCENT, repeat=len(KINDS)):
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
    parser.add_argument("--misses", type=Path, help="where to write the table of misses")
    given = parser.parse_args(arguments)
    cases, _ = read_cases(given.rows)
    chosen_on, reported_on = halves(cases)
    constants = choose(case for case in cases if case.family in chosen_on)
    print(
        f"chosen: {constants.unusable_mib} MiB of 24 GiB cannot be used ({constants.usable // MIB} MiB can); workspace,"
    )
    percents = zip(constants.workspace_percent, KINDS, strict=True)
    print("of a convolution's input and output:", ", ".join(f"{percent} % ({kind})" for percent, kind in percents))
    table: list[dict[str, object]] = []
    for path in (given.rows, *given.also):
        some, left_out = read_cases(path)
        print(f"{path.name}: {len(some)} rows, and {len(left_out)} left out:", "; ".join(left_out))
        for name, families in (("half it was chosen on", chosen_on), ("other half", reported_on)):
            print("\n".join(told(name, [c for c in some if c.family in families], constants)))
        for row in missed(some, constants):
            half = "chosen on" if row["family"] in chosen_on else "reported on"
            table.append({"rows": path.stem, "half": half, **row})
            print("   ", *(f"{value}" for value in table[-1].values()))
    if given.misses is not None and table:
        with given.misses.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    main()
