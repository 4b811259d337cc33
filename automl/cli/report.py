"""`automl report`."""

from pathlib import Path
from typing import Annotated

import typer

from automl.cli.options import Runs, Study


def report(
    study: Study = None,
    runs: Runs = Path("runs"),
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page. Default: RUNS/STUDY/report.html.")] = None,
) -> None:
    """Writes a page about a study: one HTML file with every figure in it, which opens without a network.

    Example: automl report ffdi --out ffdi.html
    """
    import automl
    from automl.cli.json_objects import PageWritten
    from automl.cli.json_output import write_result
    from automl.cli.output import make_console, print_line

    with make_console(stderr=True).status("reading the study and drawing"):
        page = automl.report(study, runs=runs, out=out)
    print_line(f"written: {page}")
    write_result(PageWritten(page=str(page)))
