"""The fake allocator itself."""

import pytest
import torch
from torch import nn

from tests.fixtures.limited_memory import LimitedMemory


def test_what_lives_is_counted_and_what_dies_is_not():
    before = torch.ones(1000)
    with LimitedMemory(10**6) as memory:
        one = torch.empty(100)
        assert memory.live_bytes == 400
        view = one.view(10, 10)[2:]
        view.add_(1)
        before.add_(1)
        assert memory.live_bytes == 400
        two = one + 1
        assert memory.live_bytes == memory.peak_bytes == 800
        del one
        assert memory.live_bytes == 800  # the view holds the storage
        del view
        assert memory.live_bytes == 400
    del two
    assert (memory.live_bytes, memory.peak_bytes, memory.refused) == (0, 800, 0)


def test_more_than_there_is_is_refused_and_nothing_of_it_stays():
    with LimitedMemory(1000) as memory:
        kept = torch.empty(200)
        with pytest.raises(torch.OutOfMemoryError, match="tried to allocate 800 bytes of which 200 are free"):
            kept.exp()
        assert memory.live_bytes == 800
        fits = torch.empty(50)
    assert (fits.numel(), memory.refused) == (50, 1)


def test_a_neighbour_takes_memory_and_gives_it_back():
    with LimitedMemory(1000) as memory:
        memory.take(700)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(100)
        memory.take(-700)
        assert torch.empty(100).numel() == 100


def test_a_training_step_runs_out_in_its_backward_pass_and_leaves_nothing_behind():
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    images = torch.ones(32, 64)
    with LimitedMemory(10**9) as memory:
        loss = model(images).sum()
        forward = memory.peak_bytes
        loss.backward()
        model.zero_grad()
        del loss
        assert memory.live_bytes == 0
    assert memory.peak_bytes > forward
    with LimitedMemory(forward) as memory:
        loss = model(images).sum()
        with pytest.raises(torch.OutOfMemoryError):
            loss.backward()
        del loss
        model.zero_grad()
        assert memory.live_bytes == 0
