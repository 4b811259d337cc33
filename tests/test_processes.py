import multiprocessing
import time

import pytest

from automl.processes import map_in_processes


def double(key):
    return 2 * key


def wait(key):
    if key:
        time.sleep(600)
    return key


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
