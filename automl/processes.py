"""Shares work out to the cores: to threads, or to processes of one thread each."""

import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")

_ROOT = Path("/")
"""Where /proc and /sys are."""

_WORKERS, _OURS = "AUTOML_WORKERS", "AUTOML_CHOSEN"
"""Variables of ours: how many workers share this machine, and which variables we have set, not the user."""

_NUMBERS_OF_THREADS = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
"""OpenMP's holds for PyTorch, oneDNN, MKL and OpenBLAS."""

_SPINS = {"GOMP_SPINCOUNT": "5000"}
"""How often OpenMP's threads look whether there is work before they sleep (GNU's, which PyTorch ships for Linux).

By default 300,000 times, some milliseconds: beside other programs, most of a training's time. Without any, a network's
many short steps wait for threads to wake up. Measured by `studies/benchmarks/busy_machine.py`.
"""


# --- cores --------------------------------------------------------------------------------------------------------


@cache
def cpu_threads() -> int:
    """Counts the CPU cores for this process: those it may use, divided by the workers of this machine."""
    return max(1, usable_cores() // count_workers())


@cache
def usable_cores() -> int:
    """Counts the CPU cores that this process may use: its affinity, and the time that its control groups give it."""
    return math.ceil(min([count_own_cores(), *_read_quotas()]))


def count_workers() -> int:
    """Counts the workers that share the cores of this machine, this process included: ours, or those of torchrun."""
    workers = os.environ.get(_WORKERS) or os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(workers)) if workers.isdecimal() else 1


def worker_environment(workers: int) -> dict[str, str]:
    """Returns what is added to the environment of a process that is one of `workers` on this machine.

    Its libraries, which read it when they are loaded, then start threads for its share of the cores; and threads that
    wait leave their core to other programs. What the user has set stays as it is.
    """
    share = max(1, usable_cores() // workers)
    values = {} if "OMP_WAIT_POLICY" in os.environ else dict(_SPINS)
    if share < count_own_cores():  # else libraries count the cores themselves, and know which two of them are one
        values |= dict.fromkeys(_NUMBERS_OF_THREADS, str(share))
    values = {name: value for name, value in values.items() if not has_user_set(name)}
    return values | {_WORKERS: str(workers), _OURS: " ".join(values)}


def has_user_set(name: str) -> bool:
    """Returns whether an environment variable was set by the user, not by `worker_environment`."""
    return name in os.environ and name not in os.environ.get(_OURS, "").split()


def read_control_groups(controller: str, name: str, root: Path) -> Iterator[str]:
    """Yields a file of this process's control group and of those above it, of cgroup v2 or v1; `root` is `/`."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        group = top / path.strip("/")
        # A container may see its group as the root, under a path that is not there.
        for folder in (group, *group.parents):
            with suppress(OSError):
                yield (folder / name).read_text(encoding="utf-8").strip()
            if folder == top:
                break


def count_own_cores() -> int:
    """Counts the cores that this process may run on, however little of their time is its own."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_quotas() -> Iterator[float]:
    """Yields the cores whose time each control group around this process has, where it is limited."""
    limits = [line.split() for line in read_control_groups("cpu", "cpu.max", _ROOT)]
    v1 = (read_control_groups("cpu", f"cpu.cfs_{name}_us", _ROOT) for name in ("quota", "period"))
    for quota, period in (*limits, *zip(*v1, strict=False)):
        if quota.isdigit():  # neither `max` nor -1
            yield int(quota) / int(period)


# --- sharing out --------------------------------------------------------------------------------------------------


def in_threads(function: Callable[[Key], Result], items: Iterable[Key], ahead: int) -> Iterator[Result]:
    """Calls a function on each item in threads, one per core.

    Args:
        function: May run in any thread; what it raises is raised here.
        items: Taken one after the other in the caller's thread, as results are taken.
        ahead: Items at most that are started and whose result was not yet taken.

    Yields:
        The results, in the order of the items.
    """
    with ThreadPoolExecutor(cpu_threads()) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def map_in_processes(function: Callable[[Key], Result], keys: Sequence[Key], jobs: int) -> Iterator[tuple[Key, Result]]:
    """Calls a function for every key, in fresh processes, and yields what is ready.

    Args:
        function: A function of a module; what it raises is raised here.
        keys: Its arguments.
        jobs: Processes; with one, or one key, this process does it.

    Yields:
        Each key with its result, in the order in which they are ready.
    """
    if jobs == 1 or len(keys) < 2:
        yield from ((key, function(key)) for key in keys)
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_prepare_process)
    before, finished = set(multiprocessing.active_children()), False
    try:
        futures = {pool.submit(function, key): key for key in keys}
        for future in as_completed(futures):
            yield futures[future], future.result()
        finished = True
    finally:
        workers = set(multiprocessing.active_children()) - before
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in () if finished else workers:  # Ctrl-C is answered at once, not when what is under way is done
            worker.terminate()


def _prepare_process() -> None:
    """Sets one thread, leaves Ctrl-C to the parent, and ends with the parent, however that ends."""

    def end_with(parent: multiprocessing.process.BaseProcess) -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"  # what torch reads when it is imported
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
