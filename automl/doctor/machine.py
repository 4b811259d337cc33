"""What this process may use of the machine: cores, memory, shared memory, disk; a container's limits count."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from automl.processes import cpu_threads

_ROOT = Path("/")
"""Where /proc and /sys are."""


def cpu_limit() -> tuple[int, float]:
    """Cores that this process may run on, and how many cores' time its control groups give it.

    Returns:
        The second is infinite without a limit.
    """
    limits = [float("inf")]
    for text in _limits("cpu", "cpu.max"):
        quota, period = (*text.split(), "100000")[:2]
        with suppress(ValueError, ZeroDivisionError):
            limits.append(int(quota) / int(period))  # `max` is no number
    for quota, period in zip(_limits("cpu", "cpu.cfs_quota_us"), _limits("cpu", "cpu.cfs_period_us"), strict=False):
        if int(quota) > 0:
            limits.append(int(quota) / int(period))
    return cpu_threads(), min(limits)


def ram() -> tuple[int, int]:
    """Bytes of memory that this process may have and, of these, bytes that are available now; 0 if not told."""
    fields: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in (_ROOT / "proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            fields[name] = int(rest.split()[0]) * 1024
    total, available = fields.get("MemTotal", 0), fields.get("MemAvailable", 0)
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        for most, taken in zip(_limits("memory", limit), _limits("memory", used), strict=False):
            if most.isdigit() and int(most) < total:
                total, available = int(most), min(available, max(0, int(most) - int(taken)))
    return total, available


def shared_memory() -> int | None:
    """Bytes of /dev/shm, through which loader processes hand over batches; None where there is none."""
    folder = _ROOT / "dev/shm"
    with suppress(OSError):
        return shutil.disk_usage(folder).total
    return None


@dataclass(frozen=True)
class Disk:
    """The disk under a folder.

    Attributes:
        device: Tells disks apart.
        free_bytes: What this user may still write.
        writable: Whether this user may write into the folder.
    """

    device: int
    free_bytes: int
    writable: bool


def disk(folder: Path) -> Disk:
    """Looks at the disk where a folder is or would be."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    return Disk(there.stat().st_dev, free, os.access(there, os.W_OK | os.X_OK))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it may be gone again
                total += (Path(place) / name).lstat().st_size
    return total


def _limits(controller: str, name: str) -> Iterator[str]:
    """The contents of a control group's file, for this process's group and those above it, of cgroup v2 or v1."""
    try:
        lines = (_ROOT / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = _ROOT / "sys/fs/cgroup" / (controllers or "")
        group = top / path.strip("/")
        # A container may see its group as the root, under a path that is not there.
        for folder in (group, *group.parents):
            with suppress(OSError):
                yield (folder / name).read_text(encoding="utf-8").strip()
            if folder == top:
                break
