"""`automl compare`."""

from pathlib import Path
from typing import Annotated

import typer

from automl.cli.options import Runs


def compare(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY STUDY…", help="Names of two to six studies.")],
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page. Default: RUNS/compare-STUDY-STUDY.html.")
    ] = None,
) -> None:
    """Writes a page with several studies side by side: one HTML file, which opens without a network.

    Example: automl compare ffdi ffdi-gp --out compared.html
    """
    import automl
    from automl.cli.json_objects import PageWritten
    from automl.cli.json_output import write_result
    from automl.cli.output import make_console, print_line

    with make_console(stderr=True).status("reading the studies and drawing"):
        page = automl.compare(studies, runs=runs, out=out)
    print_line(f"written: {page}")
    write_result(PageWritten(page=str(page)))
