"""What runs on a node of a Ray cluster: a worker's process, held by a Ray actor, and the study's preparation."""

import ctypes
import importlib
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from automl.processes import usable_cores, worker_environment
from automl.study.environment import find_version
from automl.study.folder import StudyFolder
from automl.study.worker_process import WorkerJob

Result = TypeVar("Result")

_QUIET_SECONDS = 20.0
"""How long a question for output is kept when there is none."""

_TOGETHER_SECONDS = 0.1
"""What is printed within this time is returned together."""

_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2): a signal for this process when its parent dies."""


class WorkerActor:
    """A worker's process; Ray makes an actor of this class.

    What a trial does to the process (a CUDA error, a kill for memory) does not end the actor, which still has its
    output and its exit code. When the actor ends, however it ends, so does the process.
    """

    def __init__(self, job: WorkerJob, cpus: int | None, search: str) -> None:
        """Starts the worker.

        Args:
            job: What it is for.
            cpus: Its CPU cores; None: those that belong to a GPU.
            search: A name of the search that is nobody else's.
        """
        if not job.folder.samples.exists():  # it is another machine's: this one has a folder of its own
            own = Path(tempfile.gettempdir()) / f"automl-ray-{search}"
            job = replace(job, folder=StudyFolder(own / job.folder.name))
        self._output: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Ray's own reaper of children is off by default, and an orphan would train on a GPU that Ray gives to others.
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._process = subprocess.Popen(
            job.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_choose_environment(cpus),
            start_new_session=True,  # Ctrl-C reaches the caller alone
            preexec_fn=(lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)) if libc else None,
        )
        assert self._process.stdin is not None  # noqa: S101 - made above
        assert self._process.stdout is not None  # noqa: S101 - made above
        self._input, self._printed = self._process.stdin, self._process.stdout
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = f"{socket.gethostname()}, GPU {gpus}" if gpus else socket.gethostname()
        self._output.put(f"worker on {where}, pid {self._process.pid}\n".encode())
        threading.Thread(target=self._collect_output, daemon=True).start()

    def send_line(self, line: str) -> None:
        """Writes a line to the process's standard input."""
        with suppress(BrokenPipeError, ValueError):  # it has ended, or was asked to stop before
            self._input.write(f"{line}\n".encode())
            self._input.flush()

    def close_input(self) -> None:
        """Closes its standard input, which asks it to stop after its epoch."""
        with suppress(BrokenPipeError):
            self._input.close()

    def read_output(self) -> tuple[bytes, int | None]:
        """Waits a while for output.

        Returns:
            What was printed since the last call; the exit code, negative for a signal, once the process has ended and
            all is read, else None.
        """
        pieces: list[bytes] = []
        while True:
            try:
                piece = self._output.get(timeout=_TOGETHER_SECONDS if pieces else _QUIET_SECONDS)
            except queue.Empty:
                return b"".join(pieces), None
            if piece is None:
                return b"".join(pieces), self._process.wait()
            pieces.append(piece)

    def _collect_output(self) -> None:
        """Puts what the process prints into the queue, line by line, and None at its end."""
        for line in self._printed:
            self._output.put(line)
        self._process.wait()
        self._output.put(None)


def _choose_environment(cpus: int | None) -> dict[str, str]:
    """Chooses the environment of a worker, which has its share of the node's cores."""
    os.environ.pop("OMP_NUM_THREADS", None)  # Ray's: one, mostly
    if cpus is None:
        ray = importlib.import_module("ray")
        here = ray.get_runtime_context().get_node_id()
        workers = sum(int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["NodeID"] == here)
    else:
        workers = usable_cores() // cpus
    return os.environ | worker_environment(max(1, workers))


def call_with_lines(function: Callable[..., Result], args: tuple[Any, ...]) -> tuple[Result, list[str]]:
    """Calls a function whose last parameter prints a line; returns the lines as well, for the caller to print."""
    lines: list[str] = []
    return function(*args, lines.append), lines


def describe_cluster() -> tuple[str, dict[str, int]]:
    """Returns the version of automl on this node, and which resources, by name, an autoscaling cluster can grow to."""
    # Ray Data asks in the same way: there is no public function, and some releases have none.
    state = importlib.import_module("ray._private.state").state
    read = getattr(state, "get_max_resources_from_cluster_config", lambda: None)
    return find_version("automl-timm"), read() or {}
