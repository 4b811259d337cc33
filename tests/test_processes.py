import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time

import pytest

from automl import processes
from automl.cli.main import run
from automl.processes import cpu_threads, map_in_processes, usable_cores, worker_environment


def double(key):
    return 2 * key


def wait(key):
    if key:
        time.sleep(600)
    return key


# --- cores ---------------------------------------------------------------------------------------------------------

V2, V1 = {"proc/self/cgroup": "0::/a/b\n"}, {"proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/y\n0::/\n"}
DOCKER_V1 = {"proc/self/cgroup": "1:cpu,cpuacct:/docker/0123\n"}
TOP = "sys/fs/cgroup"
NAMES = (
    *("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "GOMP_SPINCOUNT"),
    *("AUTOML_WORKERS", "AUTOML_CHOSEN", "OMP_WAIT_POLICY", "LOCAL_WORLD_SIZE"),
)


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A machine of 64 cores on which nothing is set: `container({"proc/self/cgroup": "…"})` limits their time."""
    monkeypatch.setattr(processes, "_ROOT", tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    monkeypatch.setattr(os, "environ", environment)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    counted = cpu_threads, usable_cores
    for function in counted:  # by the tests before
        function.cache_clear()
    yield write
    for function in counted:
        function.cache_clear()


def limit_v1(folder, quota):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        (V2 | {f"{TOP}/a/b/cpu.max": "max 100000\n"}, 64),
        (V2 | {f"{TOP}/a/b/cpu.max": "200000 100000\n"}, 2),
        (V2 | {f"{TOP}/a/b/cpu.max": "150000 100000\n"}, 2),
        (V2 | {f"{TOP}/a/b/cpu.max": "400000 100000\n", f"{TOP}/a/cpu.max": "150000 50000\n"}, 3),
        ({"proc/self/cgroup": "0::/../gone\n", f"{TOP}/cpu.max": "20000 100000\n"}, 1),
        (V2 | {f"{TOP}/a/b/cpu.max": "9900000 100000\n"}, 64),
        (V1 | limit_v1(f"{TOP}/cpu,cpuacct/y", -1), 64),
        (V1 | limit_v1(f"{TOP}/cpu,cpuacct/y", 200000) | limit_v1(f"{TOP}/memory/x", 100000), 2),
        (DOCKER_V1 | limit_v1(f"{TOP}/cpu,cpuacct", 250000), 3),
    ],
)
def test_the_least_time_of_all_groups_counts(container, files, cores):
    container(files)
    assert usable_cores() == cpu_threads() == cores


@pytest.mark.parametrize(
    ("name", "value", "threads"),
    [
        ("AUTOML_WORKERS", "3", 21),
        ("LOCAL_WORLD_SIZE", "2", 32),
        ("AUTOML_WORKERS", "100", 1),
        ("AUTOML_WORKERS", "", 64),
    ],
)
def test_workers_share_the_cores(container, name, value, threads):
    container({})
    os.environ[name] = value
    assert (usable_cores(), cpu_threads()) == (64, threads)


def test_a_worker_s_threads_are_its_share_of_the_container(container):
    container(V2 | {f"{TOP}/a/b/cpu.max": "800000 100000\n"})
    added = worker_environment(2)
    assert {name: added[name] for name in NAMES[:4]} == {
        "OMP_NUM_THREADS": "4",
        "OPENCV_FOR_THREADS_NUM": "4",
        "GOMP_SPINCOUNT": processes._SPINS["GOMP_SPINCOUNT"],
        "AUTOML_WORKERS": "2",
    }
    os.environ |= added
    assert cpu_threads() == 4


def test_a_worker_alone_leaves_the_number_of_threads_to_the_libraries(container):
    container({})
    assert set(worker_environment(1)) == {"GOMP_SPINCOUNT", "AUTOML_WORKERS", "AUTOML_CHOSEN"}


@pytest.mark.parametrize("waiting", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_set_stays(container, waiting):
    container({})
    os.environ |= {"OMP_NUM_THREADS": "7", waiting: "5"}
    added = worker_environment(2)
    assert not added.keys() & {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    assert added["OPENCV_FOR_THREADS_NUM"] == "32"


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "2"}])
def test_a_command_limits_its_own_threads_and_then_those_of_its_workers(container, given):
    container(V2 | {f"{TOP}/a/b/cpu.max": "200000 100000\n"})
    os.environ |= given
    with pytest.raises(SystemExit):
        run(["--version"])
    assert os.environ["OMP_NUM_THREADS"] == "2"
    os.environ |= worker_environment(2)
    assert os.environ["OMP_NUM_THREADS"] == given.get("OMP_NUM_THREADS", "1")
    with pytest.raises(SystemExit):
        run(["--version"])  # in the worker
    assert os.environ["AUTOML_WORKERS"] == "2"
    assert os.environ["OMP_NUM_THREADS"] == given.get("OMP_NUM_THREADS", "1")


SHOW = """
import json, os
from automl.processes import cpu_threads, worker_environment
environment = worker_environment(1)
os.environ |= environment
import torch
print(json.dumps([cpu_threads(), torch.get_num_threads()]))
"""


@pytest.mark.skipif(shutil.which("taskset") is None, reason="there is no taskset")
def test_a_process_of_one_core_has_one_thread():
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    core = min(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(core), sys.executable, "-c", SHOW]
    assert json.loads(subprocess.check_output(command, env=environment)) == [1, 1]


# --- sharing out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_key_comes_with_its_result(jobs):
    assert dict(map_in_processes(double, [1, 2, 3], jobs)) == {1: 2, 2: 4, 3: 6}


def test_what_is_under_way_ends_when_nobody_waits_for_it_any_more():
    began = time.monotonic()
    results = map_in_processes(wait, [0, 1, 2], 2)
    assert next(results) == (0, 0)
    results.close()  # as Ctrl-C does
    # no join: the pool's own thread waits for them too, and a process that it just reaped looks alive for a moment
    while multiprocessing.active_children() and time.monotonic() - began < 60:
        time.sleep(0.05)
    assert not multiprocessing.active_children()
