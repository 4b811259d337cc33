"""The checks of `automl doctor`: what a search would meet on this machine, and what to do about each problem.

To add a check: a function of `Options` that yields a `Fact` for each finding and a `Problem` for each problem, and its
name in `CHECKS`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from automl.doctor.environment import check_packages, check_weights, import_library
from automl.doctor.gpu import check_gpus, check_kernels
from automl.doctor.machine import check_cache, check_cores, check_disks, check_memory, check_shared_memory
from automl.doctor.report import Fact, Options, Problem, Report, make_report
from automl.errors import StudyError
from automl.files import check_weights_dir

CHECKS: tuple[Callable[[Options], Iterator[Fact | Problem]], ...] = (
    check_packages,
    check_gpus,
    check_cores,
    check_memory,
    check_shared_memory,
    check_cache,
    check_disks,
    check_weights,
)
"""All checks, in the order in which they are shown; none changes anything."""


def run_checks(weights_dir: Path | None = None) -> Report:
    """Runs all checks; a folder of weights is looked into as well."""
    check_weights_dir(weights_dir)
    options = Options(Path.cwd(), weights_dir)
    return make_report(line for check in CHECKS for line in check(options))


def refuse_hopeless(devices: tuple[str, ...], runs: Path) -> None:
    """Ends a search before it begins where nothing could be trained, as `automl doctor` would show."""
    options = Options(runs)
    problems = make_report([*check_packages(options), *check_disks(options)]).problems
    reasons = [problem.text for problem in problems if problem.fatal]
    torch, _ = import_library("torch")
    if torch is not None:
        reasons += [problem.text for device in devices for problem in check_kernels(torch, device)]
    if reasons:
        raise StudyError("\n".join(reasons))
