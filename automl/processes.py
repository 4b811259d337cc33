"""Shares work out to the cores: to threads, or to processes of one thread each."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from functools import cache
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


@cache
def cpu_threads() -> int:
    """Counts the CPU cores that this process may use, within its affinity and its control group."""
    from joblib import cpu_count  # late: it takes as long to import as the rest of automl

    return int(cpu_count())


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
