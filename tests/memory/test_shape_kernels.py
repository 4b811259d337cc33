import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from automl.memory.shape_kernels import KERNELS


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
