"""What every backbone of the leaderboard can do, and a proof that each of timm's families trains.

    python studies/leaderboard/sweep.py [--jobs N] [--out FILE] [NAME …]     the table that the package ships
    python studies/leaderboard/learning.py [--jobs N]                        one architecture of each family, trained
    python studies/leaderboard/exports.py [--train-py FILE]                  every architecture's exports, accepted
    python studies/leaderboard/pages.py                                      docs/backbones.md, from all three

The first takes about 25 minutes of one core for 1,266 backbones, on tensors without data: no GPU, no weights. It goes
on where it was interrupted, since what is found out is kept in automl's cache. With another version of timm than the
table's, `automl backbones --check` does the same and says what differs.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Examines the backbones named, or all, and writes the table."""
    from automl.backbones.capabilities import SHIPPED, write_capabilities
    from automl.backbones.examine import examine_all
    from automl.backbones.table import load_table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: every backbone of the leaderboard")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args(arguments)
    names = given.names or sorted(set(load_table()["model"]))

    def progress(done: int, total: int) -> None:
        if done == total or done % 20 == 0:
            print(f"{done} of {total}", file=sys.stderr, flush=True)

    rows = examine_all(names, given.jobs, progress)
    write_capabilities(rows, given.out)
    print(f"{given.out}: {len(rows)} backbones, {sum(bool(row.trouble) for row in rows)} in trouble")


if __name__ == "__main__":
    main()
