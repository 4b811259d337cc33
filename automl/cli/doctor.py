"""`automl doctor`."""

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    weights_dir: Annotated[Path | None, typer.Option(help="Folder of weights to look into as well.")] = None,
) -> None:
    """Shows GPUs, memory, packages, weights and disk as a search would find them, and how to mend each problem.

    The exit code is 1 if no search is possible here, else 0.

    Example: automl doctor --weights-dir weights/
    """
    from automl.cli.json_objects import DoctorResult, Finding, Problem
    from automl.cli.json_output import write_result
    from automl.cli.output import make_console, print_line
    from automl.doctor.checks import run_checks

    with make_console(stderr=True).status("looking"):
        report = run_checks(weights_dir)
    result = DoctorResult(
        can_search=report.can_search,
        findings=[Finding(name=one.name, text=one.text) for one in report.findings],
        problems=[Problem(text=one.text, fatal=one.fatal) for one in report.problems],
    )
    write_result(result)
    for fact in report.findings:
        print_line(f" {fact.text}", title=f"{fact.name}:")
    for problem in report.problems:
        kind, style = ("error", "red") if problem.fatal else ("warning", "yellow")
        print_line(f"{kind}: {problem.text}", style=style)
    if not report.problems:
        print_line("no problems found", style="green")
    if not report.can_search:
        raise typer.Exit(1)
