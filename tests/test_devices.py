import ctypes
import subprocess
import sys

import pytest

from automl import devices as allocator
from automl.devices import find_devices, label_workers
from automl.errors import StudyError


def test_it_says_whether_it_was_done():
    # in a process of its own: the knobs stay turned
    code = "from automl.devices import keep_freed_memory; print(keep_freed_memory())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    glibc = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    assert found == f"{glibc}\n"


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_freed_memory()


# --- the devices of workers ---------------------------------------------------------------------------------------


def test_a_device_that_is_named_twice_has_two_workers():
    assert find_devices("cpu, cpu") == ("cpu", "cpu")
    assert label_workers(("cpu",)) == ["cpu"]
    assert label_workers(("cpu", "cpu")) == ["cpu-0", "cpu-1"]
    assert label_workers(("cuda:0", "cuda:1", "cuda:0")) == ["cuda:0-0", "cuda:1", "cuda:0-1"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (",", "--device , names an empty device"),
        ("cpu,", "--device cpu, names an empty device"),
        ("cpu,tpu", "no device 'tpu' here; there is: cpu"),
    ],
)
def test_a_device_that_is_not_there_is_named(wanted, message):
    with pytest.raises(StudyError, match=message):
        find_devices(wanted)
