"""Checks of what this process may use of the machine or container: cores, memory, shared memory, disk."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from automl.doctor.report import Fact, Options, Problem
from automl.files import cache_dir
from automl.processes import count_own_cores, read_control_groups, usable_cores
from automl.units import format_bytes

_ROOT = Path("/")
"""Where /proc and /sys are."""

_LITTLE_DISK_BYTES = 10 * 10**9
_NO_DISK_BYTES = 500 * 10**6
_NO_STORAGE_BYTES = 5 * 10**6
"""A storage alone: ten trials take some hundred kB."""
_LITTLE_RAM_BYTES = 4 * 10**9
_NO_RAM_BYTES = 10**9
"""A search of the smallest networks and its one worker take 1.5 GB on a CPU."""
_LITTLE_SHARED_BYTES = 10**9
"""A batch of 256 images of 384 pixels is 450 MB, and each loader process has several under way."""


def check_cores(_: Options) -> Iterator[Fact | Problem]:
    """Reports the cores that this process may use, and whether more threads are asked for than they can run."""
    total, usable = os.cpu_count() or 1, usable_cores()
    cores = count_own_cores()
    less = f", with the time of {usable}" if usable < cores else ""
    yield Fact("cores", f"{cores}{f' of {total}' if cores != total else ''}{less}")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > usable:
        what = f"this container has the time of {usable} of {cores}" if less else f"this process may use {usable}"
        yield Problem(
            f"OMP_NUM_THREADS={threads}, but {what} cores, and more threads than that get in each other's way: "
            f"remove OMP_NUM_THREADS (automl then starts the right number), or set OMP_NUM_THREADS={usable}"
        )


def check_memory(_: Options) -> Iterator[Fact | Problem]:
    """Reports the memory that is available."""
    total, available = read_memory()
    if not total:
        return
    yield Fact("memory", f"{format_bytes(total)}, {format_bytes(available)} available")
    if available < _LITTLE_RAM_BYTES:
        yield Problem(
            f"only {format_bytes(available)} of memory is available; a search takes about 4GB for each device: "
            "end other programs, or give the container more (docker run --memory)",
            fatal=available + _read_meminfo().get("SwapFree", 0) < _NO_RAM_BYTES,
        )


def _read_meminfo() -> dict[str, int]:
    """Reads what Linux shows of the memory, in bytes by name; nothing elsewhere."""
    meminfo: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in (_ROOT / "proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            meminfo[name] = int(rest.split()[0]) * 1024
    return meminfo


def read_memory() -> tuple[int, int]:
    """Reads the bytes of memory that this process may have and, of these, those available now; 0 if not known."""
    meminfo = _read_meminfo()
    total, available = meminfo.get("MemTotal", 0), meminfo.get("MemAvailable", 0)
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        groups = (read_control_groups("memory", name, _ROOT) for name in (limit, used))
        for most, taken in zip(*groups, strict=False):
            if most.isdigit() and int(most) < total:
                total, available = int(most), min(available, max(0, int(most) - int(taken)))
    return total, available


def check_shared_memory(_: Options) -> Iterator[Fact | Problem]:
    """Reports the size of /dev/shm, through which loader processes hand over batches."""
    try:
        size = shutil.disk_usage(_ROOT / "dev/shm").total
    except OSError:
        return
    yield Fact("shared memory", format_bytes(size))
    if size < _LITTLE_SHARED_BYTES:
        yield Problem(
            f"the shared memory (/dev/shm) has only {format_bytes(size)}, and the processes that load images "
            "hand over batches there: start the container with docker run --shm-size=8g, or with --ipc=host"
        )


def check_cache(_: Options) -> Iterator[Fact | Problem]:
    """Reports what the cache holds, by kind."""
    cache = cache_dir()
    kinds = sorted(path for path in cache.glob("*") if path.is_dir() and not path.name.startswith("."))
    held = ", ".join(f"{path.name} {format_bytes(folder_bytes(path))}" for path in kinds) or "empty"
    yield Fact("cache", f"{cache}: {held}")


def check_disks(options: Options) -> Iterator[Fact | Problem]:
    """Reports the disk space for the cache and, where they are other disks, for studies and their storage."""
    folders = [
        ("cache", cache_dir(), "give another folder with AUTOML_CACHE=FOLDER", _LITTLE_DISK_BYTES, _NO_DISK_BYTES)
    ]
    folders += [("studies", options.runs, "give another folder with --runs", _LITTLE_DISK_BYTES, _NO_DISK_BYTES)]
    if options.storage is not None:
        folders += [("storage", options.storage, "give another --storage", _NO_STORAGE_BYTES, _NO_STORAGE_BYTES)]
    shown = set[int]()
    for content, folder, instead, little, least in folders:
        disk = find_disk(folder)
        if disk.writable and disk.device in shown:
            continue
        shown.add(disk.device)
        free = format_bytes(disk.free_bytes)
        yield Fact(f"disk for {content}", f"{free} free at {folder}")
        where = f"{folder}, where the {content} would go"
        if not disk.writable:
            yield Problem(f"{folder} cannot be written, and the {content} would go there: {instead}", fatal=True)
        elif disk.free_bytes < little:
            fatal = disk.free_bytes < least
            needed = f"at least {format_bytes(least)} are needed" if fatal else f"{format_bytes(little)} are advised"
            text = f"only {free} of disk is free at {where}; {needed}: delete something, or {instead}"
            yield Problem(text, fatal=fatal)


@dataclass(frozen=True)
class Disk:
    """The disk under a folder."""

    device: int
    """A number that differs from disk to disk."""
    free_bytes: int
    """What this user may still write."""
    writable: bool
    """Whether it is a folder, or may become one, that this user may write into."""


def find_disk(folder: Path) -> Disk:
    """Finds the disk where a folder is or would be."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    return Disk(existing.stat().st_dev, free, existing.is_dir() and os.access(existing, os.W_OK | os.X_OK))


def folder_bytes(folder: Path) -> int:
    """Adds up the bytes of all files below a folder; links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it may be gone again
                total += (Path(parent) / name).lstat().st_size
    return total
