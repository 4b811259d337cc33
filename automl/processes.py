"""Work shared out to several processes of one thread each."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

__all__ = ["map_in_processes"]

Key = TypeVar("Key")
Result = TypeVar("Result")


def map_in_processes(function: Callable[[Key], Result], keys: Sequence[Key], jobs: int) -> Iterator[tuple[Key, Result]]:
    """Calls a function for every key, in fresh processes, and yields what is ready.

    Args:
        function: A function of a module; it is called once a key.
        keys: Its arguments.
        jobs: Processes; with one, or one key, this process does it.

    Yields:
        Each key with its result, in the order in which they are ready.

    Raises:
        Exception: Whatever the function raises.
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
    import torch

    def end_with(parent: multiprocessing.process.BaseProcess) -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
