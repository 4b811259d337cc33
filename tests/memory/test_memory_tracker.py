import torch
from torch import nn

from automl.memory.caching_allocator import Event, peak_live_bytes
from automl.memory.tracker import Tracker, workspace_bytes


def test_births_and_deaths_are_logged_in_order():
    tracker = Tracker()
    with torch.device("meta"), tracker:
        one = torch.empty(10)
        two = one + 1
        del one
        three = two.view(5, 2)  # a view has no storage of its own
        del two
        four = three * 2
        del three
    assert tracker.take() == [
        *(Event(0, 40), Event(1, 40), Event(0, -40)),
        *(Event(2, 40), Event(1, -40)),
    ]
    del four


def test_the_log_is_taken_in_stretches():
    tracker = Tracker()
    with torch.device("meta"), tracker:
        one = torch.empty(10)
        assert tracker.take() == [Event(0, 40)]
        two = torch.empty(20)
        del one
    assert tracker.take() == [Event(1, 80), Event(0, -40)]
    assert tracker.take() == []
    assert tracker.born == 2
    del two


def test_deaths_that_follow_each_other_are_ordered_by_birth():
    tracker = Tracker()
    with torch.device("meta"), tracker:
        one, two = torch.empty(10), torch.empty(20)
        del two
        del one
    assert tracker.take()[2:] == [Event(0, -40), Event(1, -80)]


def test_the_step_of_a_small_network_takes_the_bytes_counted_by_hand():
    tracker = Tracker()
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
        tracker.add(model.parameters())  # 4·8·4 + 8·2·4 = 192
        with tracker:
            images = torch.empty(3, 4)  # 48
            logits = model(images)  # hidden 96, activated 96 (kept for the backward pass), logits 24
            forward = 192 + 48 + 96 + 24
            events = tracker.take()
            assert peak_live_bytes(events) == 192 + 48 + 96 + 96
            assert sum(change for _, change in events) == forward
    del logits


def test_a_backward_pass_leaves_weights_images_and_gradients():
    tracker = Tracker()
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
        tracker.add(model.parameters())
        with tracker:
            images = torch.empty(3, 4)
            model(images).sum().backward()
            events = tracker.take()
    assert sum(change for _, change in events) == 192 + 48 + 192
    # The peak is where ReLU's gradient is made: 192 weights, 48 images, 96 activated, 4 the loss, 4 its gradient
    # (expanded for free), the gradients of the second layer (64) and of what it was given (96), and ReLU's (96).
    assert peak_live_bytes(events) == 192 + 48 + 96 + 4 + 4 + 64 + 96 + 96
    assert images.shape == (3, 4)


def test_flash_attention_has_a_workspace_in_its_backward_pass():
    query = torch.empty(2, 3, 5, 8)
    name = "aten::_scaled_dot_product_flash_attention_backward"
    assert workspace_bytes(name, (None, query)) == 4 * (240 + 30)
    assert workspace_bytes("aten::mm", (query, query)) == 0
