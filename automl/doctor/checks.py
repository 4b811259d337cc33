"""The checks of `automl doctor`: what a search would meet on this machine, and what to do about each problem.

To add a check: a function of `Options` that returns a `Report`, and its name in `CHECKS`.
"""

from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path

from automl.doctor.environment import check_packages, check_weights, import_library
from automl.doctor.gpu import check_gpus, check_kernels
from automl.doctor.machine import check_cache, check_cores, check_disks, check_memory, check_shared_memory
from automl.doctor.report import Options, Report
from automl.errors import StudyError, WeightsError

Check = Callable[[Options], Report]

CHECKS: tuple[Check, ...] = (
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

_BEFORE_A_SEARCH: tuple[Check, ...] = (check_packages, check_disks)


def run_checks(weights_dir: Path | None = None) -> Report:
    """Runs all checks.

    Args:
        weights_dir: A folder of weights to look into as well.

    Raises:
        WeightsError: If there is no such folder.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise WeightsError(f"--weights-dir {weights_dir} is not a folder; give one that holds safetensors files")
    return _run(CHECKS, Options(Path.cwd(), weights_dir))


def refuse_hopeless(devices: tuple[str, ...], runs: Path) -> None:
    """Ends a search before it begins where nothing could be trained: `automl doctor` shows the same, and more.

    Args:
        devices: What is to be trained on.
        runs: Where the studies go.

    Raises:
        StudyError: With one line for each reason, and what to do about it.
    """
    report = _run(_BEFORE_A_SEARCH, Options(runs))
    reasons = [problem.text for problem in report.problems if problem.fatal]
    torch, _ = import_library("torch")
    if torch is not None:
        reasons += [reason for device in devices for reason in check_kernels(torch, device)]
    if reasons:
        raise StudyError("\n".join(reasons))


def _run(checks: tuple[Check, ...], options: Options) -> Report:
    return reduce(add, (check(options) for check in checks))
