"""The checks of `automl doctor`: what a search would meet on this machine, and what to do about each problem.

To add a check: a function of `Options` that yields a `Fact` for each finding and a `Problem` for each problem, and its
name in `CHECKS`.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from automl.devices import find_devices, is_gpu
from automl.doctor.environment import check_packages, check_weights, import_library
from automl.doctor.gpu import check_gpus, check_kernels, explain_unused_gpus
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


def refuse_machine(runs: Path, storage: Path | None) -> None:
    """Ends a search that has no room to work, as `automl doctor` would show; this needs no torch and no time.

    Args:
        runs: The folder that studies go into.
        storage: The folder of a storage that is a file; None: it is none, or lies with the studies.

    Raises:
        StudyError: If a disk is full or cannot be written, or there is next to no memory.
    """
    options = Options(runs, storage=storage)
    _refuse(make_report([*check_disks(options), *check_memory(options)]).problems)


def find_usable_devices(wanted: str, print_line: Callable[[str], None]) -> tuple[str, ...]:
    """Finds the devices to train on, as `find_devices` does; ends a search none of whose trials could run.

    Where all GPUs are passed over by `auto`, a line says why.

    Raises:
        StudyError: If a library is broken, the device is not there, or torch cannot compute on it.
    """
    torch, _ = import_library("torch")
    if torch is not None:  # the others take longer to import
        devices = find_devices(wanted)
        refuse_unusable(devices)
    _refuse(make_report(check_packages(Options(Path()))).problems)
    assert torch is not None  # noqa: S101 - else it was refused
    if wanted == "auto" and not any(map(is_gpu, devices)) and (why := explain_unused_gpus(torch)):
        print_line(f"warning: {why}; until then the CPU trains")
    return devices


def refuse_unusable(devices: Iterable[str]) -> None:
    """Ends a search on a device on which torch cannot compute.

    Raises:
        StudyError: With what to do about it.
    """
    torch = importlib.import_module("torch")
    _refuse(replace(problem, fatal=True) for device in devices for problem in check_kernels(torch, device))


def _refuse(problems: Iterable[Problem]) -> None:
    """Raises StudyError with the problems that make every trial fail, if there are any."""
    if reasons := [problem.text for problem in problems if problem.fatal]:
        raise StudyError("\n".join(reasons))
