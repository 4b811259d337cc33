import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from automl.memory.cuda_autocast import FLOAT, FLOAT_RESULT, HALF, SOFTMAX, WIDEST, cuda_autocast


class Casts(TorchDispatchMode):
    """Counts casts of leaves."""

    def __init__(self):
        super().__init__()
        self.of_weights = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.of_weights += func is torch.ops.aten._to_copy.default and args[0].is_leaf and args[0].requires_grad
        return func(*args, **(kwargs or {}))


HALVES = [torch.float16, torch.bfloat16]


def on_the_cpu():
    """What real CPU autocast makes of operators whose CUDA rules differ."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    w = torch.randn(4, 4, 3, 3, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = F.conv2d(x, w)
        return [
            *(h, h.softmax(1), F.layer_norm(h, h.shape[1:]), h.exp(), h.sum(), torch.einsum("nchw,ndhw->ncd", h, h)),
            *(
                h.pow(2.0),
                F.gelu(h),
                F.interpolate(h, scale_factor=2.0, mode="bilinear"),
                F.scaled_dot_product_attention(x, x, x),
            ),
        ]


@pytest.mark.parametrize("dtype", HALVES)
def test_real_cpu_autocast_is_the_same_before_and_after(dtype):
    before = on_the_cpu()
    with cuda_autocast(dtype) as autocast, autocast():
        torch.empty(3, device="meta").exp()
    with pytest.raises(KeyError), cuda_autocast(dtype) as autocast, autocast():
        raise KeyError
    after = on_the_cpu()
    assert [t.dtype for t in before] == [t.dtype for t in after]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", HALVES)
def test_dtypes_are_those_of_cuda(dtype):
    with cuda_autocast(dtype) as autocast, autocast(), torch.device("meta"):
        x, image = torch.empty(4, 4), torch.empty(1, 3, 8, 8)
        half = x @ x
        assert half.dtype is dtype
        assert F.conv2d(image, torch.empty(2, 3, 3, 3)).dtype is dtype
        assert torch.einsum("ij,jk->ik", x, x).dtype is dtype
        assert F.layer_norm(half, (4,)).dtype is torch.float32
        assert half.exp().dtype is torch.float32
        assert half.softmax(-1).dtype is torch.float32
        assert half.log_softmax(-1).dtype is torch.float32
        assert half.sum().dtype is torch.float32
        assert F.gelu(half).dtype is dtype
        assert F.relu(half).dtype is dtype
        assert F.interpolate(image.to(dtype), scale_factor=2.0, mode="bilinear").dtype is torch.float32
        assert F.cross_entropy(half, torch.empty(4, dtype=torch.long)).dtype is torch.float32


def test_integers_and_double_precision_are_left_alone():
    with cuda_autocast(torch.float16) as autocast, autocast(), torch.device("meta"):
        assert torch.empty(3, dtype=torch.float64).exp().dtype is torch.float64
        assert torch.empty(3, dtype=torch.long).sum().dtype is torch.long


def test_a_weight_is_cast_once_and_its_cast_lives_to_the_end_of_the_forward_pass():
    weight = torch.empty(4, 4, device="meta", requires_grad=True)
    image = torch.empty(4, 4, device="meta")
    casts = Casts()
    with cuda_autocast(torch.float16) as autocast:
        with casts, autocast():
            (image @ weight, image @ weight)
        with casts, autocast():
            image @ weight
    assert casts.of_weights == 2  # one in each forward pass


def test_mixed_inputs_are_computed_in_the_widest_type():
    with cuda_autocast(torch.float16) as autocast, autocast(), torch.device("meta"):
        full, half = torch.empty(2), torch.empty(2, dtype=torch.float16)
        assert torch.cat([half, full]).dtype is torch.float32
        assert torch.cat([half, half]).dtype is torch.float16


def test_constants_on_the_cpu_are_left_alone():
    with cuda_autocast(torch.float16) as autocast, autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32
        assert torch.ones(2, dtype=torch.float16).sum().dtype is torch.float16


def test_without_a_dtype_nothing_is_cast():
    with cuda_autocast(None) as autocast, autocast(), torch.device("meta"):
        assert (torch.empty(2, 2) @ torch.empty(2, 2)).dtype is torch.float32
        assert torch.empty(2, dtype=torch.float16).exp().dtype is torch.float16


def test_no_operator_has_two_rules():
    names = [*HALF, *FLOAT, *FLOAT_RESULT, *(name for name, _ in SOFTMAX), *WIDEST]
    assert len(set(names)) == len(names)
