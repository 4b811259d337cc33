"""Decoding files that come from outside, in processes of their own: what a file does to its decoder is one line.

Pillow, FFmpeg, OpenCV and librosa read whatever a file claims to be, and a file can end the process that decodes it,
keep it busy for ever, or fill the memory. So files are decoded in child processes (`automl.media.decoder`), one to a
core, that serve one request after the other until they have nothing to do for a minute. Of a child that ends, the file
is known, and a new one goes on with the others.

The children are started by `subprocess`, not by `multiprocessing`: that would import the user's script again, which
then needs `if __name__ == "__main__"`. They end when this process ends, however it does.
"""

import atexit
import operator
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from automl.errors import AutomlError, DataError
from automl.media.decoder import NO_MEMORY, receive_message, send_message
from automl.processes import cpu_threads, usable_cores
from automl.units import format_bytes

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

_SECONDS = 300.0  # that one file may take
_BATCH_SECONDS = 10.0  # that several quick ones together may take, before each is tried alone
_BATCH_WORK = 0.02  # seconds of work that are asked for at once: a message for each of many tiny files costs too much
_STARTS, _PAUSE_SECONDS = 3, 0.2  # tries to start a decoder
_STANDARD = 2  # the last of the standard streams
_LEAST_MEMORY = 2 << 30  # bytes that a decoder may allocate
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "NUMBA_NUM_THREADS"), "1"
)
# our own path, not what Python would make of the folder we are in: a numpy.py there is no NumPy
_BEGIN = (
    "import sys; sys.path[:] = sys.argv[3:]; from automl.media import decoder; decoder.serve_requests(*sys.argv[1:3])"
)


def decode_files(function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R | DataError]:
    """Calls a function on each item in child processes, one to a core.

    Closing the iterator, and Ctrl-C, wait for nothing.

    Args:
        function: What can be pickled: a function of a module, or a `functools.partial` of one. Its module should
            import little, and never torch.
        items: One file each, taken one after the other in the caller's thread, as results are taken.
        ahead: Items at most that are started and whose result was not yet taken.

    Yields:
        In the order of the items, what the function returns; or a `DataError`, not raised, that says why there is
        nothing: the function's own, or one line on any other exception, or on the end of the process, on more than 300
        seconds, or more than the memory that a decoder may have (half of the machine's in all, at least 2 GiB each).

    Raises:
        AutomlError: If the processes cannot be started; and what the function raises but a `DataError`.
        OSError: If the function finds a disk full.
    """
    call: _Call[T, R] = _Call(function)
    pending: deque[tuple[int, Future[list[R | DataError]]]] = deque()
    waiting = 0
    items = iter(items)
    with ThreadPoolExecutor(cpu_threads()) as pool:  # a thread waits for each process
        try:
            while batch := list(islice(items, call.batch_size(ahead))):
                pending.append((len(batch), pool.submit(call.call_items, batch)))
                waiting += len(batch)
                while waiting > ahead:
                    size, future = pending.popleft()
                    yield from future.result()
                    waiting -= size
            while pending:
                yield from pending.popleft()[1].result()
        finally:
            for _, future in pending:
                future.cancel()
            call.stop()


def decode_one(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function in a child process, as `decode_files` does; for files that are decoded one after the other.

    The first of its arguments is the file. Errors are those of `decode_files`, all of them raised; a `DataError` that
    is not the function's own gets the file's name.
    """
    call: _Call[Any, R] = _Call(operator.call)
    (outcome,) = call.call_items([partial(function, *args, **kwargs)])
    if isinstance(outcome, DataError):
        if isinstance(outcome, NotDecoded):
            raise DataError(f"cannot read {args[0]}: {outcome}")
        raise outcome
    return outcome


class NotDecoded(DataError):  # noqa: N818 - says what it is
    """A decoder ended over a file, or was ended; it may go well another time."""


class _Ended(Exception):  # noqa: N818 - no error of the program
    """A decoder ended while it was asked; its exit code is negative of a signal's number."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Call(Generic[T, R]):
    """One function that is called on many items, from several threads."""

    def __init__(self, function: Callable[[T], R]) -> None:
        self._function = function
        self._busy: set[_Decoder] = set()
        self._stopped = False
        self._lock = threading.Lock()
        self._item_seconds = _BATCH_WORK  # of late; one item at a time until it is known

    def batch_size(self, ahead: int) -> int:
        """Counts the items asked for at once: about `_BATCH_WORK`, and two batches a process fit into `ahead`."""
        wanted = int(_BATCH_WORK / max(self._item_seconds, 1e-6))
        return max(1, min(wanted, ahead // (2 * cpu_threads())))

    def call_items(self, items: list[T]) -> list[R | DataError]:
        """Returns what the function gives for each item; nothing once it was stopped.

        An item is blamed only if it ends a fresh decoder, alone: the end may come late, or from others in its batch.
        """
        try:
            return self._ask_decoder(items, fresh=False)
        except _Ended as ended:
            if len(items) == 1 and ended.code == -signal.SIGALRM:
                return [NotDecoded(_explain_exit(ended.code))]
        return [self._ask_alone(item) for item in items if not self._stopped]

    def stop(self) -> None:
        """Ends what is under way: nobody waits for it any more."""
        with self._lock:
            self._stopped = True
            for decoder in self._busy:
                decoder.process.kill()

    def _ask_alone(self, item: T) -> R | DataError:
        try:
            return self._ask_decoder([item], fresh=True)[0]
        except _Ended as ended:
            self._item_seconds = _BATCH_WORK  # where there is one such file, there are others
            return NotDecoded(_explain_exit(ended.code))

    def _ask_decoder(self, items: list[T], fresh: bool) -> list[R | DataError]:
        """Asks a decoder; raises `_Ended` if it ends."""
        seconds = _SECONDS if len(items) == 1 else _BATCH_SECONDS
        folder = None  # where relative paths begin, unless it is gone
        with suppress(OSError):
            folder = str(Path.cwd())
        decoder = _take_decoder(fresh)
        with self._lock:
            self._busy.add(decoder)
            if self._stopped:
                decoder.process.kill()
        try:
            answer = decoder.ask((self._function, items, seconds, folder))
        finally:
            with self._lock:
                self._busy.discard(decoder)
        if len(_idle) < cpu_threads():  # for the next request
            _idle.append(decoder)
        else:
            decoder.end()
        if isinstance(answer, BaseException):
            raise answer
        took, results = answer
        self._item_seconds = 0.7 * self._item_seconds + 0.3 * took / len(items)
        return results  # type: ignore[no-any-return]


class _Decoder:
    """A process that decodes files."""

    def __init__(self) -> None:
        """Starts it; AutomlError if it does not start."""
        if os.name != "posix":
            raise AutomlError("files are decoded on Linux and macOS only; on Windows use WSL")
        self.connection, theirs = map(_move_above_standard, socket.socketpair())
        command = [sys.executable, "-c", _BEGIN, str(theirs.fileno()), str(_limit_bytes()), *sys.path]
        with theirs:
            try:
                # a group of its own: the terminal sends Ctrl-C to all of ours
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                    env={**os.environ, **_ONE_THREAD},
                )
            except OSError as exc:
                self.connection.close()
                raise AutomlError(f"cannot start a process that decodes files: {exc.strerror or exc}") from exc
        _alive.add(self)
        try:
            self.ask()  # it says that it is ready
        except _Ended as ended:
            raise AutomlError(f"cannot start a process that decodes files: it {_describe_exit(ended.code)}") from None

    def ask(self, *requests: Any) -> Any:
        """Sends a request, if there is one, and waits for the answer of `serve_requests`; _Ended if it ends instead."""
        try:
            for request in requests:
                send_message(self.connection, request)
            return receive_message(self.connection)
        except (EOFError, OSError):
            raise _Ended(self.end()) from None
        except BaseException:  # Ctrl-C: the answer would be taken for that to the next request
            self.end()
            raise

    def end(self) -> int:
        """Ends it, if it still lives; its exit code."""
        self.process.kill()
        self.connection.close()
        _alive.discard(self)
        return self.process.wait()


def _move_above_standard(end: socket.socket) -> socket.socket:
    """Gives a socket a number above 2: where standard streams are closed, it would be taken for one."""
    import fcntl  # Windows has none, and no decoders either

    if end.fileno() > _STANDARD:
        return end
    with end:
        return socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _STANDARD + 1))


_alive: set[_Decoder] = set()
_idle: list[_Decoder] = []


def _take_decoder(fresh: bool) -> _Decoder:
    """Returns a decoder that nobody else uses; a fresh one was never asked anything."""
    with suppress(IndexError):
        while not fresh:
            decoder = _idle.pop()
            if decoder.process.poll() is None:
                return decoder
            decoder.end()  # it was idle for too long
    for _ in range(_STARTS - 1):
        with suppress(AutomlError):
            return _Decoder()
        time.sleep(_PAUSE_SECONDS)
    return _Decoder()


def _end_all() -> None:
    """Ends the decoders with this process; if it is killed, they see it."""
    for decoder in list(_alive):
        decoder.end()


def _forget_decoders() -> None:
    """Leaves the decoders to the parent, in a process that `os.fork` made: it shares the sockets with it."""
    for decoder in _alive:
        decoder.connection.close()
        decoder.process.returncode = 0  # it is no child of this process
    _alive.clear()
    _idle.clear()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_decoders)


def _limit_bytes() -> int:
    """Returns bytes that a decoder may allocate."""
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return max(_LEAST_MEMORY, half // usable_cores())


def _explain_exit(code: int) -> str:
    """Returns why a file was not decoded, by the exit code of its decoder."""
    if code == -signal.SIGALRM:
        return f"not decoded within {_SECONDS:g} s"
    if code == NO_MEMORY:
        return f"needs more than {format_bytes(_limit_bytes())} of memory to decode"
    return f"its decoder {_describe_exit(code)}"


def _describe_exit(code: int) -> str:
    """Returns how a process ended, by its exit code."""
    name = f": {signal.Signals(-code).name}" if -code in list(signal.Signals) else ""
    return f"ended (exit code {code})" if code >= 0 else f"ended (signal {-code}{name})"
