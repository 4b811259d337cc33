import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from automl.memory.cuda_attention import cuda_kernels


class Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def kernels(dtype, width=8, mask=None, **options):
    """The operators that attention of (2, 4, 6, width) runs, and its result."""
    with torch.device("meta"), Operators() as operators, cuda_kernels():
        query = torch.empty(2, 4, 6, width, dtype=dtype, requires_grad=True)
        if mask is not None:
            options["attn_mask"] = torch.empty(6, 6, dtype=mask)
        return operators.names, F.scaled_dot_product_attention(query, query, query, **options)


@pytest.mark.parametrize(
    ("dtype", "mask", "width", "kernel"),
    [
        (torch.float16, None, 8, "_scaled_dot_product_flash_attention"),
        (torch.bfloat16, None, 64, "_scaled_dot_product_flash_attention"),
        (torch.float32, None, 8, "_scaled_dot_product_efficient_attention"),
        (torch.float16, torch.float16, 8, "_scaled_dot_product_efficient_attention"),
        (torch.float16, torch.bool, 8, "_scaled_dot_product_efficient_attention"),
        (torch.float16, None, 264, "_softmax"),
    ],
)
def test_the_kernel_is_cudas(dtype, mask, width, kernel):
    names, result = kernels(dtype, width, mask)
    assert kernel in names
    assert result.shape == (2, 4, 6, width)
    assert result.dtype is dtype


def test_a_head_width_that_is_no_multiple_of_8_is_padded():
    names, result = kernels(torch.float16, width=10)
    assert "constant_pad_nd" in names
    assert result.shape == (2, 4, 6, 10)


def test_grouped_queries_have_the_right_shape():
    with torch.device("meta"), cuda_kernels():
        query, key = torch.empty(2, 4, 6, 8), torch.empty(2, 2, 6, 8)
        assert F.scaled_dot_product_attention(query, key, key, enable_gqa=True).shape == (2, 4, 6, 8)


def test_attention_is_pytorchs_own_again_afterwards():
    own = F.scaled_dot_product_attention
    x = torch.randn(1, 2, 3, 8)
    before = own(x, x, x)
    kernels(torch.float16)
    assert F.scaled_dot_product_attention is own
    assert torch.equal(F.scaled_dot_product_attention(x, x, x), before)
