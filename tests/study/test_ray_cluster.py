import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from automl.errors import DataError, SpecError, StudyError
from automl.processes import usable_cores
from automl.study import ray_cluster
from automl.study.folder import StudyFolder
from automl.study.ray_cluster import connect_to_ray
from automl.study.search import search
from automl.study.worker_process import WorkerJob

PATIENCE = 120
"""Seconds for what takes one on an idle machine."""


# --- without Ray --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["spark", "ray://", "http://head:10001", "ray://head:port", "rays"])
def test_what_is_no_address_is_refused_with_those_that_are(on):
    with pytest.raises(SpecError, match=r"give ray, or ray://HOST:10001"):
        connect_to_ray(on, None, None, 8, print)


def test_what_is_no_address_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(SpecError, match="--on spark is not known"):
        search(tmp_path / "nosuch", on="spark", runs=tmp_path)


def test_a_head_that_is_not_there_is_named_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        port = taken.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(StudyError, match=rf"no connection to 127\.0\.0\.1, port {port} .*is the head of Ray there"):
            connect_to_ray(f"ray://127.0.0.1:{port}", None, None, 8, print)
        assert time.monotonic() - start < 10  # Ray itself takes 30 seconds


def test_a_missing_ray_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpecError, match=r"pip install 'automl-timm\[ray\]'"):
        connect_to_ray("ray", None, 1, 8, print)


@pytest.mark.parametrize("counts", [{"workers": 0, "worker_cpus": 1}, {"workers": 1, "worker_cpus": -1}])
def test_counts_are_at_least_one(counts):
    with pytest.raises(SpecError, match="give 1 or more"):
        connect_to_ray("ray", **counts, most=8, print_line=print)


# --- on a Ray of this machine -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_cores():
    """A Ray that was started by somebody else, with two cores and no GPU."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield ray
        ray.shutdown()


@pytest.fixture
def cluster(two_cores):
    """Two workers with a core each, and the lines that are printed."""
    lines = []
    cluster = connect_to_ray("ray", None, 1, 8, lines.append)
    cluster.lines = lines
    yield cluster
    cluster.close()
    assert two_cores.is_initialized()  # it is not ours


@pytest.fixture
def start(cluster, tmp_path):
    """Starts a worker that is a Python script; returns it and a function that reads its log."""
    folder = StudyFolder(tmp_path / "runs" / "tones")
    folder.make_folders()

    def begin(script, label="ray-0"):
        class ScriptJob(WorkerJob):  # defined here, it is taken along to the node
            command = property(lambda job: [sys.executable, "-u", "-c", script, str(job.folder.path)])

        worker = cluster.start_worker(ScriptJob(folder, "cpu", label, 2, None))
        return worker, lambda: worker.log.read_text() if worker.log.exists() else ""

    return begin


def wait_for(found, *workers):
    """Polls the workers until `found()` gives something."""
    deadline = time.monotonic() + PATIENCE
    while not (result := found()):
        assert time.monotonic() < deadline, "waited too long"
        for worker in workers:
            worker.poll()
        time.sleep(0.02)
    return result


def is_gone(pid):
    """Returns whether a process has ended; a dead one may wait for its parent."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return not state.strip() or state.startswith("Z")


def pid_of(log):
    return int(log().partition("pid ")[2].split()[0])


def test_a_worker_has_its_input_its_output_its_code_and_its_share_of_the_cores(start):
    script = "import os, sys; print(input(), os.environ['AUTOML_WORKERS']); print(sys.stdin.read() == ''); sys.exit(7)"
    worker, log = start(script)
    worker.send_storage("sqlite:///a.db")
    wait_for(lambda: "sqlite" in log(), worker)
    assert worker.poll() is None
    worker.close_input()
    assert wait_for(worker.poll) == 7
    assert log().splitlines()[1:] == [f"sqlite:///a.db {usable_cores()}", "True"]
    assert log().startswith(f"worker on {socket.gethostname()}, pid ")


@pytest.mark.slow
def test_a_node_without_the_folder_of_the_study_has_one_of_its_own(start, tmp_path):
    script = "import sys; print('folder', sys.argv[1])"
    worker, log = start(script)
    wait_for(lambda: worker.poll() is not None)
    folder = Path(log().partition("folder ")[2].strip())
    assert (folder.name, folder.parent.parent) == ("tones", Path(tempfile.gettempdir()))
    again, log = start(script, "ray-1")  # of the same search
    wait_for(lambda: again.poll() is not None)
    assert log().endswith(f"folder {folder}\n")
    samples = tmp_path / "runs" / "tones" / "samples.csv"
    samples.touch()
    here, log = start(script, "ray-2")
    wait_for(lambda: here.poll() is not None)
    assert log().endswith(f"folder {samples.parent}\n")


def test_a_worker_that_is_killed_shows_its_signal_and_the_cores_are_free_again(start, two_cores):
    workers = [start("input()", label) for label in ("ray-0", "ray-1")]
    wait_for(lambda: all("pid" in log() for _, log in workers), *[worker for worker, _ in workers])
    assert two_cores.available_resources().get("CPU", 0) == 0
    (first, log), (second, other_log) = workers
    pid = pid_of(log)
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: first.poll()) == -signal.SIGKILL
    second.kill()
    assert second.poll() == -signal.SIGKILL
    wait_for(lambda: is_gone(pid_of(other_log)))
    wait_for(lambda: two_cores.available_resources().get("CPU", 0) == 2)


def test_an_actor_that_is_killed_takes_its_worker_along(start):
    worker, log = start("input()")
    wait_for(lambda: "pid" in log(), worker)
    pid = pid_of(log)
    actor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(actor, signal.SIGKILL)
    assert wait_for(worker.poll) == -signal.SIGKILL
    wait_for(lambda: is_gone(pid))
    assert "the Ray actor has ended" in log()


@pytest.mark.slow
def test_workers_that_wait_for_room_are_counted_and_are_not_needed_when_one_has_nothing_left(
    start, cluster, monkeypatch
):
    monkeypatch.setattr(ray_cluster, "_PATIENCE_SECONDS", 0.0)
    workers = [start("input()", f"ray-{k}")[0] for k in range(3)]
    wait_for(lambda: sum(worker.is_placed for worker in workers) == 2, *workers)
    (waiting,) = [worker for worker in workers if not worker.is_placed]
    cluster.look()
    cluster.look()
    assert cluster.lines == [
        "2 of 3 workers have a node of Ray on this machine; each of the others begins when there is 1 CPU core for it "
        "(0 of 2 cores free now)"
    ]
    placed = [worker for worker in workers if worker.is_placed]
    placed[0].send_storage("anything")  # it leaves with 0
    assert wait_for(lambda: placed[0].poll() is not None, *workers)
    assert (placed[0].poll(), waiting.poll(), placed[1].poll()) == (0, 0, None)
    placed[1].close_input()
    assert wait_for(placed[1].poll) == 1  # EOFError


def test_a_worker_without_a_node_ends_at_once_when_it_is_asked_to_stop(start):
    workers = [start("input()", f"ray-{k}")[0] for k in range(3)]
    wait_for(lambda: sum(worker.is_placed for worker in workers) == 2, *workers)
    (waiting,) = [worker for worker in workers if not worker.is_placed]
    waiting.close_input()
    assert waiting.poll() == 0


def test_a_node_computes_and_its_lines_and_mistakes_come_back(cluster):
    def add(a, b, print_line):
        print_line(f"{a} and {b}")
        return a + b, os.getpid()

    result, process = cluster.call(add, 2, 3)
    assert (result, cluster.lines) == (5, ["2 and 3"])
    assert process != os.getpid()

    def refuse(print_line):
        raise DataError("no file x.csv")

    with pytest.raises(DataError, match=r"^no file x\.csv$"):
        cluster.call(refuse)


def test_a_node_without_automl_is_named(cluster):
    def fail(_):
        raise ModuleNotFoundError("No module named 'automl.study'")

    with pytest.raises(StudyError, match=r"a node of Ray .* has no automl\.study: install automl on all nodes"):
        cluster.call(fail)


def test_as_many_workers_as_there_is_room_for(two_cores):
    cluster = connect_to_ray("ray", None, 1, 8, print)
    assert (cluster.workers, cluster.devices, cluster.labels) == (2, ("cpu", "cpu"), ["ray-0", "ray-1"])
    assert connect_to_ray("ray", None, 1, 1, print).workers == 1  # a study of one trial
    assert connect_to_ray("ray", 5, 1, 1, print).workers == 5
    assert connect_to_ray("ray", 3, None, 8, print).devices == ("cuda:0",) * 3  # they wait for GPUs
    assert cluster.count_room({"CPU": 6}) == 6
    assert cluster.count_room({"CPU": sys.maxsize}) == 2
    with pytest.raises(StudyError, match="--worker-cpus 4 is more than a node of Ray on this machine has: 2 cores"):
        connect_to_ray("ray", None, 4, 8, print)
    with pytest.raises(StudyError, match="has no GPU; give --worker-cpus N"):
        connect_to_ray("ray", None, None, 8, print)


def test_a_file_is_no_storage_for_other_machines(cluster, monkeypatch):
    for storage in ("sqlite:////data/study.db", "study.log", "postgresql://u:p@host/db"):
        cluster.check_storage(storage)  # one machine
    nodes = [{"NodeManagerHostname": socket.gethostname()}, {"NodeManagerHostname": "gpu-7"}]
    monkeypatch.setattr(type(cluster), "list_nodes", lambda _: nodes)
    cluster.check_storage("postgresql://u:p@host/db")
    for storage in ("sqlite:////data/study.db", "study.log"):
        with pytest.raises(StudyError, match=r"file of this machine, which the Ray node gpu-7 does not see; give"):
            cluster.check_storage(storage)
