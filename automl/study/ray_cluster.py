"""Workers on a Ray cluster, https://docs.ray.io/en/latest/ray-core/actors.html.

Each worker is an actor with one GPU or some cores of its own, which runs `automl worker` (`automl.study.ray_actor`).
An actor ends, and Ray has its resources back, when its worker has left, and when the search that made it ends, however
that ends.
"""

import importlib
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from automl.errors import AutomlError, SpecError, StudyError
from automl.study.environment import find_version
from automl.study.folder import StudyFolder
from automl.study.ray_actor import WorkerActor, call_with_lines, describe_cluster
from automl.study.worker_process import WorkerJob
from automl.units import format_count

Result = TypeVar("Result")

_CLIENT_PORT = 10001
"""Where the head of a cluster listens for clients, if it was not started with another port."""

_CONNECT_SECONDS = 5.0
"""A head that takes no connection in this time is not there; Ray itself would try for 30 seconds."""

_PATIENCE_SECONDS = 5.0
"""How long a node is waited for in silence."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: beside anything else on this machine, nothing would be trained
    # That an actor has died is printed to standard output, whatever `ray.init` is asked; the log of its worker has it.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
}
"""What a Ray that is started here reads, unless the user has set it."""


@dataclass
class RayWorker:
    """One worker, to the supervisor a process."""

    cluster: "RayCluster"
    actor: Any
    log: Path
    """What it prints."""
    is_placed: bool = field(init=False, default=False)
    """Whether it has a node; until the cluster has room it waits."""
    _output: Any = field(init=False)
    """The next output, to come; the first line is the actor's own."""
    _code: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._output = self.actor.read_output.remote()

    def poll(self) -> int | None:
        """Adds what the worker has printed to its log. Returns its exit code, negative for a signal; None: it runs.

        Raises:
            StudyError: If the cluster does not answer any more.
        """
        if self._code is None and self.cluster.is_ready(self._output):
            self.is_placed = True
            output, code = self._take_output()
            with self.log.open("ab") as file:
                file.write(output)
            if code is None:
                self._output = self.actor.read_output.remote()
            else:
                self._end(code)
        elif self._code is None and not self.is_placed and self.cluster.is_enough:
            self._end(0)
        return self._code

    def send_storage(self, storage: str) -> None:
        """Lets it begin, on the study in a storage."""
        self.actor.send_line.remote(storage)

    def close_input(self) -> None:
        """Asks it to stop after its epoch; one that has no node ends at once."""
        if self._code is None and self.is_placed:
            self.actor.close_input.remote()
        elif self._code is None:
            self._end(0)

    def kill(self) -> None:
        """Ends it now."""
        if self._code is None:
            self._end(-signal.SIGKILL)

    def _take_output(self) -> tuple[bytes, int | None]:
        """Takes the output that is there; the death of the actor is that of the worker."""
        try:
            output: tuple[bytes, int | None] = self.cluster.fetch(self._output)
        except self.cluster.ray.exceptions.RayActorError as exc:
            if package := _find_missing_package(exc):
                return f"Error: {self.cluster.describe_missing(package)}\n".encode(), 2
            return f"the Ray actor has ended: {_join_lines(exc)}\n".encode(), -signal.SIGKILL
        return output

    def _end(self, code: int) -> None:
        """Notes the exit code, and ends the actor."""
        self._code = code
        self.cluster.end_actor(self, code)


@dataclass
class RayCluster:
    """A connection to a Ray cluster, and what each worker takes of it: where the workers of a search are."""

    ray: Any = field(repr=False)
    """The module, which is optional."""
    name: str
    """For messages: `the Ray cluster at ray://head:10001`."""
    worker_cpus: int | None
    """CPU cores of each worker; None: a GPU each."""
    print_line: Callable[[str], None] = field(repr=False)
    is_owned: bool
    """Whether the connection was made here; then it is closed here."""
    workers: int = field(init=False, default=0)
    """How many are wanted; as many of them run as the cluster has room for."""
    starts_early: bool = field(init=False, default=False)
    """A worker that waits would have the GPU that the study is prepared with."""
    is_enough: bool = field(init=False, default=False)
    """Whether a worker has left because there is no more to do: those that wait for a node are not needed."""
    _search: str = field(init=False, default_factory=lambda: uuid.uuid4().hex)
    _running: list[RayWorker] = field(init=False, default_factory=list)
    _silent_until: float = field(init=False, default=0.0)
    """Until when it is not printed that workers wait."""
    _shown: int = field(init=False, default=sys.maxsize)
    """How many had a node when that was printed last, or when all had one."""

    @property
    def devices(self) -> tuple[str, ...]:
        """What each worker trains on: an actor sees its own GPU alone."""
        return ("cpu" if self.worker_cpus else "cuda:0",) * self.workers

    @property
    def labels(self) -> list[str]:
        """The name of each worker."""
        return [f"ray-{number}" for number in range(self.workers)]

    def start_worker(self, job: WorkerJob) -> RayWorker:
        """Asks the cluster for an actor, which starts the worker as soon as there is room."""
        actor = self.ray.remote(WorkerActor).options(max_concurrency=4, **self._resources)
        log = job.folder.log_file(job.label)
        job = replace(job, folder=StudyFolder(job.folder.path.absolute()))  # a node has another working folder
        worker = RayWorker(self, actor.remote(job, self.worker_cpus, self._search), log)
        self.is_enough = False
        self._running.append(worker)
        return worker

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Calls a function on a node, with what a worker has; after `args` it is given what prints a line.

        Raises:
            AutomlError: That the function raises.
            StudyError: If the cluster cannot run it.
        """
        with self._explain_failure():
            answer = self.ray.remote(call_with_lines).options(max_retries=0, **self._resources).remote(function, args)
            if not self.ray.wait([answer], timeout=_PATIENCE_SECONDS)[0]:
                self.print_line(f"preparing the study with {self._name_share()} of {self.name}, as soon as it is free")
            result: Result
            result, lines = self.ray.get(answer)
        for line in lines:
            self.print_line(line)
        return result

    def check_storage(self, storage: str) -> None:
        """Refuses a storage that is a file where nodes of the cluster are other machines, which do not see it.

        Raises:
            StudyError: That names such a node.
        """
        names = {node["NodeManagerHostname"] for node in self.list_nodes()} - {socket.gethostname()}
        if names and ("://" not in storage or storage.startswith("sqlite")):
            raise StudyError(
                f"the study is stored in a file of this machine, which the Ray node {min(names)} does not see; "
                "give --storage postgresql://HOST/DATABASE"
            )

    def look(self) -> None:
        """Prints how many workers wait for a node, if they have waited for some seconds, and again where more do."""
        now, placed, wanted = time.monotonic(), sum(worker.is_placed for worker in self._running), len(self._running)
        if placed == wanted:
            self._silent_until, self._shown = now + _PATIENCE_SECONDS, wanted
        elif self._silent_until == 0.0:
            self._silent_until = now + _PATIENCE_SECONDS
        elif placed < self._shown and now > self._silent_until:
            self._shown = placed
            self.print_line(
                f"{placed} of {wanted} workers have a node of {self.name}; each of the others begins when there is "
                f"{self._name_share()} for it ({self._name_free()})"
            )

    def close(self) -> None:
        """Ends every worker now, and then the connection, or the Ray that was started here."""
        try:
            for worker in list(self._running):
                worker.kill()
        finally:
            if self.is_owned:
                self.ray.shutdown()

    def is_ready(self, reference: Any) -> bool:
        """Returns whether the result of a call is there, or will never come."""
        with self._explain_loss():
            return bool(self.ray.wait([reference], timeout=0)[0])

    def fetch(self, reference: Any) -> Any:
        """Takes the result of a call, or raises what the call raised."""
        with self._explain_loss():
            return self.ray.get(reference)

    def end_actor(self, worker: RayWorker, code: int) -> None:
        """Ends a worker's actor, so that Ray has its GPU or its cores back."""
        self.is_enough |= code == 0 and worker.is_placed
        self._running.remove(worker)
        with self._explain_loss():
            self.ray.kill(worker.actor)

    def list_nodes(self) -> list[dict[str, Any]]:
        """Lists the nodes that are alive, as Ray describes them."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def read_limits(self) -> dict[str, int]:
        """Reads what the cluster can grow to, by resource, from a node; empty where it does not grow.

        Raises:
            StudyError: If the node has no automl, or another one.
        """
        with self._explain_failure():
            limits: dict[str, int]
            version, limits = self.ray.get(self.ray.remote(describe_cluster).options(num_cpus=0).remote())
        if version != (here := find_version("automl-timm")):
            raise StudyError(f"automl is {version} on a node of {self.name}, and {here} here; install the same one")
        return limits

    def count_room(self, limits: dict[str, int]) -> int:
        """Counts the workers that the cluster has room for, or can grow to.

        Raises:
            StudyError: If there is none.
        """
        kind, each = ("CPU", self.worker_cpus) if self.worker_cpus else ("GPU", 1)
        counts = [int(node["Resources"].get(kind, 0)) for node in self.list_nodes()]
        room = sum(count // each for count in counts)
        if limits.get(kind, 0) < sys.maxsize:  # one without limits does not show what its owner wants to pay for
            room = max(room, limits.get(kind, 0) // each)
        if room:
            return room
        if self.worker_cpus:
            most = format_count(max(counts, default=0), "core")
            raise StudyError(f"--worker-cpus {each} is more than a node of {self.name} has: {most} at most")
        raise StudyError(
            f"{self.name} has no GPU; give --worker-cpus N to train on N CPU cores each, or --workers N to wait for "
            "N GPUs"
        )

    def describe_missing(self, package: str) -> str:
        """Writes that a node lacks a package."""
        return f"a node of {self.name} has no {package}: install automl on all nodes, the head too, as it is here"

    @contextmanager
    def _explain_failure(self) -> Iterator[None]:
        """Raises a function's own mistake, or explains why it could not be called on a node."""
        try:
            yield
        except (self.ray.exceptions.RayError, ConnectionError, ImportError) as exc:
            cause = getattr(exc, "cause", None)
            if isinstance(cause, AutomlError):
                raise cause from None
            package = _find_missing_package(exc)
            reason = f"{self.name} cannot prepare the study: {_join_lines(exc)}"
            raise StudyError(self.describe_missing(package) if package else reason) from exc

    @contextmanager
    def _explain_loss(self) -> Iterator[None]:
        """Explains that the cluster does not answer."""
        try:
            yield
        except ConnectionError as exc:
            raise StudyError(f"{self.name} is lost: {_join_lines(exc)}; the same command continues") from exc

    @property
    def _resources(self) -> dict[str, int]:
        return {"num_cpus": self.worker_cpus} if self.worker_cpus else {"num_cpus": 1, "num_gpus": 1}

    def _name_share(self) -> str:
        """Names what a worker takes."""
        return format_count(self.worker_cpus, "CPU core") if self.worker_cpus else "a GPU"

    def _name_free(self) -> str:
        """Names what is free now, of what the cluster has."""
        kind = "CPU" if self.worker_cpus else "GPU"
        free, there = (int(read().get(kind, 0)) for read in (self.ray.available_resources, self.ray.cluster_resources))
        return f"{free} of {format_count(there, 'core' if self.worker_cpus else kind)} free now"


# --- connecting ---------------------------------------------------------------------------------------------------


def connect_to_ray(
    on: str, workers: int | None, worker_cpus: int | None, most: int, print_line: Callable[[str], None]
) -> RayCluster:
    """Connects to a cluster, or starts Ray on this machine.

    Args:
        on: `ray`, the cluster that this machine belongs to, as Ray finds it (`RAY_ADDRESS`, `ray start`), or else a
            Ray that is started here and ends with the search; `ray://head:10001`, a cluster elsewhere.
        workers: How many workers; None: as many as the cluster has GPUs (or so many cores), or can have.
        worker_cpus: CPU cores of each worker, which then trains on them; None: it has a GPU.
        most: No more workers than this by default: the trials of the study.
        print_line: Receives what the user should know.

    Raises:
        SpecError: If Ray is not installed, or the arguments cannot be used.
        StudyError: If there is no such cluster, it cannot be used from here, or has no room.
    """
    check_request(on, workers, worker_cpus)
    address = _find_address(on)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        ray = importlib.import_module("ray")
    except ImportError as exc:
        raise SpecError(f"--on {on} needs Ray, which is not installed; try: pip install 'automl-timm[ray]'") from exc
    is_owned = not ray.is_initialized()
    if is_owned:
        _start_ray(ray, address)
    name = f"the Ray cluster at {address}" if address else "Ray on this machine"
    cluster = RayCluster(ray, name, worker_cpus, print_line, is_owned)
    try:
        limits = cluster.read_limits()
        cluster.workers = workers or min(most, cluster.count_room(limits))
    except BaseException:
        cluster.close()
        raise
    return cluster


def check_request(on: str, workers: int | None, worker_cpus: int | None) -> None:
    """Refuses what `connect_to_ray` could not read, without looking for a cluster.

    Raises:
        SpecError: If an argument cannot be used.
    """
    _read_address(on)
    for flag, count in (("--workers", workers), ("--worker-cpus", worker_cpus)):
        if count is not None and count < 1:
            raise SpecError(f"{flag} is {count}; give 1 or more")


def _read_address(on: str) -> tuple[str, int] | None:
    """Reads `--on`: host and port of a cluster elsewhere, or None for Ray's own choice."""
    if on == "ray":
        return None
    url = urlsplit(on)
    try:
        host, port = url.hostname, url.port or _CLIENT_PORT
    except ValueError:  # a port that is no number
        host, port = None, 0
    if url.scheme != "ray" or not host:
        raise SpecError(f"--on {on} is not known; give ray, or ray://HOST:{_CLIENT_PORT}, the head of a Ray cluster")
    return host, port


def _find_address(on: str) -> str | None:
    """Makes sure that something listens where `--on` names a cluster; returns Ray's address of it."""
    host_and_port = _read_address(on)
    if host_and_port is None:
        return None
    host, port = host_and_port
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as exc:
        raise StudyError(f"--on {on}: no connection to {host}, port {port} ({exc}); is the head of Ray there?") from exc
    return f"ray://{host}:{port}"


def _start_ray(ray: Any, address: str | None) -> None:
    """Connects to Ray, or starts it here."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what goes wrong is raised as well
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is in the exception
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as exc:
        reason = _join_lines(exc)
        if address and isinstance(exc, ConnectionError):  # Ray only says that it took too long
            reason += (
                "; something answers there: is it the port for clients (ray start --ray-client-server-port)? If that "
                "Ray asks for a token, set RAY_AUTH_MODE=token here, with the token in ~/.ray/auth_token"
            )
        raise StudyError(f"--on {address or 'ray'}: {reason}") from exc
    finally:
        if main:  # Ray's own would end the search without a checkpoint
            signal.signal(signal.SIGTERM, handler)


# --- messages -----------------------------------------------------------------------------------------------------


def _join_lines(error: BaseException) -> str:
    """Writes an exception's message in one line, without the guesses that Ray adds."""
    return " ".join(str(error).split()).partition(" Some common causes")[0] or type(error).__name__


def _find_missing_package(error: BaseException) -> str:
    """Returns the package or module that a node lacks, by the message of an exception; "" for any other message."""
    match = re.search(r"No module named '([^']+)'", str(error))
    return match[1] if match else ""
