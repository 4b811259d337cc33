"""What every backbone of the leaderboard can do: the table that the package ships.

    python studies/leaderboard/capabilities.py [--jobs N] [--out FILE] [NAME …]

It takes about 25 minutes of one core for 1,266 backbones, on tensors without data: no GPU, no weights. It goes on where
it was interrupted, since results are kept in automl's cache. With another version of timm than the table's,
`automl backbones --check` does the same and prints what differs. Beside it stand:

    python studies/leaderboard/learning.py [--jobs N]          a proof that each of timm's families trains
    python studies/leaderboard/exports.py [--train-py FILE]    every architecture's exports, accepted
    python studies/leaderboard/pages.py                        docs/backbones.md, from all three
"""

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from automl.backbones.capability_table import COMMAND, METHOD, SHIPPED, SIZES, Capabilities, rename_problem
from automl.files import write_text


def main(arguments: Sequence[str] | None = None) -> None:
    """Examines the backbones named, or all, and writes the table."""
    from automl.backbones.capabilities import examine_backbones
    from automl.backbones.table import load_table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: every backbone of the leaderboard")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args(arguments)
    names = given.names or sorted(set(load_table()["model"]))

    def print_progress(done: int, total: int) -> None:
        if done == total or done % 20 == 0:
            print(f"{done} of {total}", file=sys.stderr, flush=True)

    rows = examine_backbones(names, given.jobs, print_progress)
    write_capabilities(rows, given.out)
    print(f"{given.out}: {len(rows)} backbones, {sum(bool(row.problem) for row in rows)} that cannot be built")


def write_capabilities(rows: Iterable[Capabilities], path: Path = SHIPPED) -> None:
    """Writes a table, atomically, with the versions it was made with on top."""
    header = {"method": METHOD, "timm": version("timm"), "command": COMMAND, "licence": "Apache-2.0"}
    text = io.StringIO("".join(f"# {key}: {value}\n" for key, value in header.items()))
    text.seek(0, io.SEEK_END)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rename_problem(dict.fromkeys(Capabilities.__dataclass_fields__)))
    writer.writerows(_format_row(row) for row in sorted(rows, key=lambda row: row.backbone))
    write_text(path, text.getvalue())


def _format_row(row: Capabilities) -> list[str | int]:
    """Formats a row's cells: truths as 1 and 0, image sizes in one cell, `all` for all of them."""
    all_sizes = tuple(sorted({*SIZES, row.weights_size}))
    cells: list[str | int] = []
    for value in asdict(row).values():
        if isinstance(value, tuple):
            cells.append("all" if value == all_sizes else " ".join(map(str, value)))
        else:
            cells.append(int(value) if isinstance(value, bool) else value)
    return cells


if __name__ == "__main__":
    main()
