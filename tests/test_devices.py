import ctypes
import subprocess
import sys

from automl import devices as allocator


def test_it_says_whether_it_was_done():
    # in a process of its own: the knobs stay turned
    code = "from automl.devices import keep_freed_memory; print(keep_freed_memory())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    glibc = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    assert found == f"{glibc}\n"


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_freed_memory()
