from collections import namedtuple

import pytest

from automl.doctor import machine
from automl.doctor.machine import cpu_limit, disk, folder_bytes, ram, shared_memory

GIB = 2**30
MEMINFO = f"MemTotal: {16 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {8 * 2**20} kB\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine of files: `root({"proc/meminfo": "…"})`."""
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    monkeypatch.setattr(machine, "cpu_threads", lambda: 8)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


V2, V1 = {"proc/self/cgroup": "0::/a/b\n"}, {"proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/x\n0::/\n"}
TOP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, float("inf")),
        (V2 | {f"{TOP}/a/b/cpu.max": "max 100000\n"}, float("inf")),
        (V2 | {f"{TOP}/a/b/cpu.max": "150000 100000"}, 1.5),
        (V2 | {f"{TOP}/a/b/cpu.max": "400000 100000", f"{TOP}/a/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/../gone\n"} | {f"{TOP}/cpu.max": "300000 100000"}, 3),
        (
            V1 | {f"{TOP}/cpu,cpuacct/cpu.cfs_quota_us": "-1", f"{TOP}/cpu,cpuacct/cpu.cfs_period_us": "100000"},
            float("inf"),
        ),
        (
            V1 | {f"{TOP}/cpu,cpuacct/x/cpu.cfs_quota_us": "50000", f"{TOP}/cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            0.5,
        ),
    ],
)
def test_the_least_cpu_time_of_all_groups_counts(root, files, limit):
    root(files)
    assert cpu_limit() == (8, limit)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (16 * GIB, 8 * GIB)),
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
    assert ram() == expected


def test_what_the_system_does_not_tell_is_no_error(root):
    assert ram() == (0, 0)
    assert shared_memory() is None


def test_shared_memory_is_a_folder(root, monkeypatch, tmp_path):
    (tmp_path / "dev/shm").mkdir(parents=True)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage(64 * 2**20, 0, 0))
    assert shared_memory() == 64 * 2**20


def test_a_folder_that_is_not_there_yet_has_the_disk_of_the_one_above(tmp_path):
    there, later = disk(tmp_path), disk(tmp_path / "not" / "yet")
    assert (there.device, there.writable) == (later.device, later.writable) == (tmp_path.stat().st_dev, True)
    assert later.free_bytes > 0


def test_files_are_counted_and_links_are_not_followed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x").write_bytes(bytes(100))
    (tmp_path / "a" / "b" / "y").write_bytes(bytes(50))
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_bytes(bytes(10**6))
    (tmp_path / "a" / "z").symlink_to(outside)
    assert 150 <= folder_bytes(tmp_path) < 10**6
    assert folder_bytes(tmp_path / "nowhere") == 0
