import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from automl.memory.caching_allocator import Event, peak_live_bytes
from automl.memory.tracker import KERNELS, Tracker, workspace_bytes


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
    assert tracker.take_events() == [
        *(Event(0, 40), Event(1, 40), Event(0, -40)),
        *(Event(2, 40), Event(1, -40)),
    ]
    del four


def test_the_log_is_taken_in_stretches():
    tracker = Tracker()
    with torch.device("meta"), tracker:
        one = torch.empty(10)
        assert tracker.take_events() == [Event(0, 40)]
        two = torch.empty(20)
        del one
    assert tracker.take_events() == [Event(1, 80), Event(0, -40)]
    assert tracker.take_events() == []
    assert tracker.born == 2
    del two


def test_deaths_that_follow_each_other_are_ordered_by_birth():
    tracker = Tracker()
    with torch.device("meta"), tracker:
        one, two = torch.empty(10), torch.empty(20)
        del two
        del one
    assert tracker.take_events()[2:] == [Event(0, -40), Event(1, -80)]


def test_the_step_of_a_small_network_takes_the_bytes_counted_by_hand():
    tracker = Tracker()
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
        tracker.add_storages(model.parameters())  # 4·8·4 + 8·2·4 = 192
        with tracker:
            images = torch.empty(3, 4)  # 48
            logits = model(images)  # hidden 96, activated 96 (kept for the backward pass), logits 24
            forward = 192 + 48 + 96 + 24
            events = tracker.take_events()
            assert peak_live_bytes(events) == 192 + 48 + 96 + 96
            assert sum(change for _, change in events) == forward
    del logits


def test_a_backward_pass_leaves_weights_images_and_gradients():
    tracker = Tracker()
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
        tracker.add_storages(model.parameters())
        with tracker:
            images = torch.empty(3, 4)
            model(images).sum().backward()
            events = tracker.take_events()
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


# --- kernels that compute shapes alone ---


class Compared(TorchDispatchMode):
    """Runs torch's own kernel and ours, and compares what they return."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in KERNELS:
            self.names.add(func.overloadpacket.__name__)
            ours_all = KERNELS[func](*args, **(kwargs or {}))
            pairs = zip(result, ours_all, strict=True) if isinstance(result, tuple) else [(result, ours_all)]
            for own, ours in pairs:
                if ours is not None:  # torch's computes a gradient that nobody wants
                    assert (own.shape, own.dtype, own.device) == (ours.shape, ours.dtype, ours.device)
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("trained_input", [True, False])
def test_batch_norm_returns_what_torchs_does(dtype, affine, trained_input):
    images = torch.empty(2, 3, 4, 5, dtype=dtype, device="meta", requires_grad=trained_input)
    norm = torch.nn.BatchNorm2d(3, affine=affine, device="meta")
    if not (affine or trained_input):
        pytest.skip("nothing to differentiate")
    with Compared() as compared:
        norm(images).sum().backward()
    assert compared.names == {"native_batch_norm", "native_batch_norm_backward"}


def test_a_batch_norm_that_does_not_train_keeps_no_statistics():
    images = torch.empty(2, 3, 4, 5, device="meta")
    kernel = KERNELS[torch.ops.aten.native_batch_norm.default]
    normalised, mean, deviation = kernel(images, None, None, images[0, :, 0, 0], images[0, :, 0, 0], False, 0.1, 1e-5)
    assert (normalised.shape, mean.shape, deviation.shape) == (images.shape, (0,), (0,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(5,), (4, 5)])
def test_layer_norm_returns_what_torchs_does(dtype, affine, shape):
    values = torch.empty(2, 3, 4, 5, dtype=dtype, device="meta", requires_grad=True)
    weight = torch.empty(shape, dtype=dtype, device="meta", requires_grad=True) if affine else None
    with Compared() as compared:
        F.layer_norm(values, shape, weight, weight).sum().backward()
    assert compared.names == {"native_layer_norm", "native_layer_norm_backward"}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_gelu_returns_what_torchs_does(dtype, memory_format):
    values = torch.empty(2, 3, 4, 5, dtype=dtype, device="meta").to(memory_format=memory_format).requires_grad_()
    with Compared() as compared:
        F.gelu(values).sum().backward()
    assert compared.names == {"gelu", "gelu_backward"}
