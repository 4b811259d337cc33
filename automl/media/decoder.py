"""The process in which files are decoded: `automl.media.decoding` starts it and talks to it.

It imports little, and never torch: it has to start, and to start again, in a tenth of a second.
"""

import os
import pickle
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from automl.errors import AutomlError, DataError, is_disk_full

NO_MEMORY = 77
"""Exit code of a decoder whose file needs more memory than it may have; it begins anew instead of going on with what
is left."""

_IDLE_SECONDS = 60
_CV2_NO_MEMORY = -4  # cv2.Error.StsNoMem


def serve_requests(descriptor: str, memory_bytes: str) -> None:
    """Answers requests until nobody is there to ask, or has asked for a minute: then memory is wanted elsewhere.

    A request is (function, items, seconds, folder): what to call, with each of which, how long all of it may take
    before the kernel ends this process with SIGALRM, and the folder that relative paths begin at. The answer is
    (seconds it took, what the function returned or the DataError for each item), or an exception that concerns no file.
    The arguments, from a command line, are the number of our end of a pair of sockets, and what may be allocated.
    """
    connection = socket.socket(fileno=int(descriptor))
    _prepare_process(int(descriptor), int(memory_bytes))
    try:
        send_message(connection, None)  # ready
        asked = select.poll()
        asked.register(connection, select.POLLIN)
        while asked.poll(1000 * _IDLE_SECONDS):
            try:
                answer = _answer_request(receive_message(connection))
            except (ImportError, AttributeError) as exc:  # there is no such function: the asker's mistake
                answer = exc
            send_message(connection, answer)
        os._exit(0)
    except (EOFError, OSError):
        os._exit(0)  # the parent is gone
    except MemoryError:
        os._exit(NO_MEMORY)


def send_message(connection: socket.socket, message: Any) -> None:
    """Sends a message: its pickle, and apart from it its arrays, not copied (PEP 574); OSError if nobody is there."""
    buffers: list[pickle.PickleBuffer] = []
    first = pickle.dumps(message, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    rest = [buffer.raw() for buffer in buffers]
    sizes = [len(first), *(part.nbytes for part in rest)]
    connection.sendall(struct.pack(f"={1 + len(sizes)}Q", len(sizes), *sizes) + first)
    for part in rest:
        connection.sendall(part)


def receive_message(connection: socket.socket) -> Any:
    """Receives a message; only from our own child, or our own parent, for a pickle can do anything.

    EOFError or OSError: nobody is there to send one.
    """
    (count,) = struct.unpack("=Q", _receive_bytes(connection, 8))
    sizes = struct.unpack(f"={count}Q", _receive_bytes(connection, 8 * count))
    first, *rest = [_receive_bytes(connection, size) for size in sizes]
    return pickle.loads(first, buffers=rest)  # noqa: S301


def _receive_bytes(connection: socket.socket, size: int) -> bytearray:
    """Receives so many bytes."""
    buffer = bytearray(size)
    with memoryview(buffer) as view:
        done = 0
        while done < size:
            if not (got := connection.recv_into(view[done:], flags=socket.MSG_WAITALL)):
                raise EOFError
            done += got
    return buffer


def _prepare_process(descriptor: int, memory_bytes: int) -> None:
    """Limits what this process may do, and how long it lives."""
    import resource  # on Windows there is none, and no decoder is started

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # RLIMIT_DATA counts what is allocated; RLIMIT_AS would count what libraries and threads only reserve
    for limit, most in ((resource.RLIMIT_DATA, memory_bytes), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    with suppress(OSError):  # where memory runs out all the same, the kernel ends this process and not the parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # what libraries print would spoil progress bars
    os.dup2(nothing, 2)
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()


def _end_with_parent(descriptor: int) -> None:
    """Ends this process when the other end is closed, whatever is being decoded."""
    watch = select.poll()
    watch.register(descriptor, 0)  # nothing but its being closed
    watch.poll()
    os._exit(0)


def _answer_request(request: Any) -> tuple[float, list[Any]] | Exception:
    """Does what is asked; see `serve_requests`."""
    function, items, seconds, folder = request
    signal.setitimer(signal.ITIMER_REAL, seconds)
    began = time.perf_counter()
    try:
        if folder is not None:
            with suppress(OSError):  # an absolute path needs no folder
                os.chdir(folder)
        outcomes = [_call_function(function, item) for item in items]
        return time.perf_counter() - began, outcomes
    except Exception as exc:
        return exc
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _call_function(function: Callable[[Any], Any], item: Any) -> Any:
    """Returns what a function returns for an item, or why it returns nothing; raises what concerns no file."""
    try:
        return function(item)
    except Exception as exc:  # a broken file makes decoders raise nearly anything
        if _is_out_of_memory(exc):
            os._exit(NO_MEMORY)
        if isinstance(exc, DataError):
            return exc
        if isinstance(exc, AutomlError) or is_disk_full(exc):
            raise
        return DataError(f"{type(exc).__name__}: {next(iter(str(exc).strip().splitlines()), 'no message')}")


def _is_out_of_memory(exc: BaseException | None) -> bool:
    """Returns whether an exception, or one that it was made of, says that memory could not be had."""
    while exc is not None:
        if isinstance(exc, MemoryError) or (
            type(exc).__module__ == "cv2" and getattr(exc, "code", 0) == _CV2_NO_MEMORY
        ):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
