import threading
import time
from pathlib import Path

import pytest
import torch

from automl.training import thread_count
from automl.training.thread_count import ThreadCount, read_thread_times

CPU = torch.device("cpu")


class Machine:
    """Eight cores or fewer, of which others leave `free`, and this process's number of threads."""

    def __init__(self, threads):
        self.threads, self.free = threads, float(threads)
        self.ran = self.waited = 0.0
        self.tried = []

    def set_threads(self, threads):
        self.threads = threads
        self.tried.append(threads)


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machine = Machine(8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: machine.threads)
    monkeypatch.setattr(torch, "set_num_threads", machine.set_threads)
    monkeypatch.setattr(thread_count, "read_thread_times", lambda: (machine.ran, machine.waited))
    return machine


def seconds_of(machine, lockstep):
    """Seconds of a step: with `lockstep`, threads that have no core hold up all others."""
    share = min(1.0, machine.free / machine.threads)
    return 1 / (machine.threads * share ** (3 if lockstep else 1))


def train(machine, counted, windows, lockstep=True):
    for _ in range(windows):
        share, seconds = min(1.0, machine.free / machine.threads), seconds_of(machine, lockstep)
        for _ in range(int(thread_count._WINDOW_SECONDS / seconds) + 1):
            machine.ran += seconds * machine.threads * share
            machine.waited += seconds * machine.threads * (1 - share)
            counted.note_step(seconds)


def test_alone_nothing_is_tried(machine):
    train(machine, ThreadCount(CPU), 50)
    assert machine.tried == []


def test_fewer_threads_beside_others_and_all_when_they_have_ended(machine):
    counted = ThreadCount(CPU)
    machine.free = 2.0
    train(machine, counted, 10)
    assert machine.threads == 2
    machine.free = 8.0
    train(machine, counted, 60)
    assert machine.threads == 8


def test_what_brings_nothing_is_undone_and_tried_ever_more_rarely(machine):
    counted = ThreadCount(CPU)
    machine.free = 6.0  # eight threads do the work of six, four that of four
    train(machine, counted, 100, lockstep=False)
    assert set(machine.tried) == {4, 8}
    assert machine.tried[-1] == 8
    assert 8 <= machine.tried.count(4) <= 12
    assert machine.tried.count(8) == machine.tried.count(4)


def test_after_the_training_the_number_is_what_it_was(machine):
    counted = ThreadCount(CPU)
    machine.free = 1.0
    train(machine, counted, 10)
    assert machine.threads == 1
    counted.restore()
    assert machine.threads == 8


@pytest.mark.parametrize("why", ["a GPU", "the user's number", "no schedstat"])
def test_where_the_number_stays_as_it_is(machine, monkeypatch, why):
    if why == "the user's number":
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
    counted = ThreadCount(torch.device("cuda" if why == "a GPU" else "cpu"))
    machine.free = 1.0
    if why == "no schedstat":
        monkeypatch.setattr(thread_count, "read_thread_times", lambda: (0.0, 0.0))
        counted = ThreadCount(CPU)
    train(machine, counted, 10)
    assert machine.tried == []


def test_a_number_that_automl_has_chosen_is_no_user_s(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("AUTOML_CHOSEN", "OMP_NUM_THREADS")
    machine.free = 1.0
    train(machine, ThreadCount(CPU), 10)
    assert machine.threads == 1


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux alone says how long threads waited")
def test_the_times_of_threads_are_read():
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            pass

    threads = [threading.Thread(target=spin) for _ in range(2)]
    ran, waited = read_thread_times()
    began = time.process_time()
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    now, waited_now = read_thread_times()
    spent = time.process_time() - began
    stop.set()
    for thread in threads:
        thread.join()
    assert now - ran == pytest.approx(spent, abs=0.1)
    assert waited_now >= waited
