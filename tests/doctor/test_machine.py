import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from automl.doctor import machine
from automl.doctor.machine import (
    Disk,
    check_cache,
    check_cores,
    check_disks,
    check_memory,
    check_shared_memory,
    find_disk,
    folder_bytes,
    read_memory,
)
from automl.doctor.report import Options, Report, make_report

GB, GIB = 10**9, 2**30
RUNS = Path("runs")
MEMINFO = f"MemTotal: {16 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {8 * 2**20} kB\n"


def run_check(check):
    return make_report(check(Options(RUNS)))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine of files: `root({"proc/meminfo": "…"})`."""
    monkeypatch.setattr(machine, "_ROOT", tmp_path)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


V2, V1 = {"proc/self/cgroup": "0::/a/b\n"}, {"proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/y\n0::/\n"}
TOP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (16 * GIB, 8 * GIB)),
        (
            V2 | {f"{TOP}/a/memory.max": f"{2 * GIB}", f"{TOP}/a/memory.current": f"{GIB}"},  # of the group above
            (2 * GIB, GIB),
        ),
        (
            {"proc/self/cgroup": "0::/../gone\n"} | {f"{TOP}/memory.max": f"{GIB}", f"{TOP}/memory.current": "0"},
            (GIB, GIB),
        ),
        (V2 | {f"{TOP}/a/b/memory.max": "max", f"{TOP}/a/b/memory.current": "5"}, (16 * GIB, 8 * GIB)),
        (V2 | {f"{TOP}/a/b/memory.max": f"{4 * GIB}", f"{TOP}/a/b/memory.current": f"{GIB}"}, (4 * GIB, 3 * GIB)),
        (
            V1 | {f"{TOP}/memory/memory.limit_in_bytes": f"{2**63 - 4096}", f"{TOP}/memory/memory.usage_in_bytes": "5"},
            (16 * GIB, 8 * GIB),
        ),
        (
            V1 | {f"{TOP}/memory/x/memory.limit_in_bytes": f"{GIB}", f"{TOP}/memory/x/memory.usage_in_bytes": "0"},
            (GIB, GIB),
        ),
    ],
)
def test_the_least_memory_of_all_groups_counts(root, files, expected):
    root(files | {"proc/meminfo": MEMINFO})
    assert read_memory() == expected


def test_what_the_system_does_not_show_is_no_error(root):
    assert read_memory() == (0, 0)
    assert run_check(check_memory) == run_check(check_shared_memory) == Report()


def test_little_memory(root):
    root({"proc/meminfo": MEMINFO})
    report = run_check(check_memory)
    assert report.findings[0].text == "17.2GB, 8.59GB available"
    assert not report.problems
    root({"proc/meminfo": MEMINFO.replace(f"{8 * 2**20}", f"{2 * 2**20}")})
    assert "only 2.15GB of memory is available" in run_check(check_memory).problems[0].text


def test_docker_s_little_shared_memory(root, monkeypatch, tmp_path):
    (tmp_path / "dev/shm").mkdir(parents=True)
    size = SimpleNamespace(total=64 * 2**20)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: size)
    report = run_check(check_shared_memory)
    assert report.findings[0].text == "67.1MB"
    assert "(/dev/shm) has only 67.1MB" in report.problems[0].text
    assert "--shm-size=8g" in report.problems[0].text
    size.total = 16 * GB
    assert not run_check(check_shared_memory).problems


# --- cores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "allowed", "usable", "threads", "text", "advice"),
    [
        (8, 8, 8, None, "8", None),
        (8, 8, 8, "8", "8", None),
        (8, 4, 4, "4", "4 of 8", None),
        (8, 4, 4, "8", "4 of 8", "OMP_NUM_THREADS=8, but this process may use 4 cores, .* or set OMP_NUM_THREADS=4"),
        (8, 8, 3, None, "8, with the time of 3", None),
        (8, 8, 3, "3", "8, with the time of 3", None),
        (8, 8, 3, "4", "8, with the time of 3", "OMP_NUM_THREADS=4, but .* has the time of 3 of 8 cores, .*THREADS=3"),
    ],
    ids=["all", "all, wanted", "affinity", "affinity, more wanted", "container", "wanted", "container, more wanted"],
)
def test_cores(monkeypatch, total, allowed, usable, threads, text, advice):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(os, "cpu_count", lambda: total)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    monkeypatch.setattr(machine, "usable_cores", lambda: usable)
    report = run_check(check_cores)
    assert report.findings[0].text == text
    assert [bool(re.search(advice, problem.text)) for problem in report.problems] == ([True] if advice else [])


# --- disk ----------------------------------------------------------------------------------------------------------


def test_the_cache_is_listed_by_kind(tmp_path):
    assert run_check(check_cache).findings[0].text == f"{tmp_path / 'cache'}: empty"
    for name, size in (("images/a/images.bin", 3000), ("memory/x.json", 20), (".half/y", 9)):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(size))
    assert run_check(check_cache).findings[0].text.endswith("cache: images 3kB, memory 20B")


@pytest.fixture
def disks(monkeypatch):
    """Checks the disks of the cache and of studies, where `find` gives a folder's disk."""

    def check(find):
        monkeypatch.setattr(machine, "find_disk", find)
        return run_check(check_disks)

    return check


@pytest.mark.parametrize(("free", "fatal"), [(5 * GB, False), (GB // 10, True)])
def test_little_disk_is_reported_once_for_one_disk(disks, free, fatal):
    report = disks(lambda _: Disk(1, free, True))
    (problem,) = report.problems
    assert "of disk is free at" in problem.text
    assert "AUTOML_CACHE=FOLDER" in problem.text
    assert report.can_search is not fatal


def test_the_disk_for_studies_may_be_another(disks):
    report = disks(lambda folder: Disk(*((2, GB, True) if folder == RUNS else (1, 99 * GB, True))))
    assert (report.findings[1].name, report.findings[1].text) == ("disk for studies", "1GB free at runs")
    assert "--runs" in report.problems[0].text


@pytest.mark.parametrize("content", ["cache", "studies"])
def test_a_folder_that_cannot_be_written_stops_every_search(disks, content):
    report = disks(lambda folder: Disk(1, 99 * GB, (folder == RUNS) is (content == "cache")))
    (problem,) = report.problems
    assert problem.fatal
    assert f"cannot be written, and the {content} would go there" in problem.text


def test_a_folder_that_is_not_there_yet_has_the_disk_of_the_one_above(tmp_path):
    near, far = find_disk(tmp_path), find_disk(tmp_path / "not" / "yet")
    assert (near.device, near.writable) == (far.device, far.writable) == (tmp_path.stat().st_dev, True)
    assert far.free_bytes > 0


def test_files_are_counted_and_links_are_not_followed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x").write_bytes(bytes(100))
    (tmp_path / "a" / "b" / "y").write_bytes(bytes(50))
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_bytes(bytes(10**6))
    (tmp_path / "a" / "z").symlink_to(outside)
    assert 150 <= folder_bytes(tmp_path) < 10**6
    assert folder_bytes(tmp_path / "nowhere") == 0
