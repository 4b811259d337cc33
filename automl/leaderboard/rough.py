"""A rough peak of training memory for every row at once, in microseconds; the exact prediction is `automl.memory`.

    peak ≈ 16 B × parameters (weights, gradients, two AdamW moments, fp32)
         + bytes per activation × activations of one image × batch size + the CUDA context

"Activations" are timm's `macts`: outputs of convolutions and matrix products in one forward pass. What training keeps
besides (normalised values, nonlinearities, gradients) goes into the bytes per activation under 16-bit mixed
precision, read off fake-tensor traces of ten backbones: 4 to 7 B, and about 3 B for plain ViTs, whose attention
matrices timm counts but fused kernels do not keep. An estimate, not a bound: those ten are 15 % under to 29 % over.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ROUGH_CONTEXT_BYTES", "rough_peak_bytes"]

ROUGH_CONTEXT_BYTES = 500_000_000
STATE_BYTES_PER_PARAMETER = 16
BYTES_PER_ACTIVATION = 6.0
BYTES_PER_ACTIVATION_FUSED_ATTENTION = 3.0
FUSED_ATTENTION_FAMILIES = frozenset({"vision_transformer", "deit", "eva", "beit", "naflexvit"})


def rough_peak_bytes(table: "pd.DataFrame", batch_size: int = 32) -> "pd.Series[float]":
    """Roughly estimates the peak memory of one AdamW training step in 16-bit mixed precision.

    Args:
        table: Rows with `params_m`, `macts` and `family`.
        batch_size: Images per forward pass.

    Returns:
        Bytes by row, NaN where the activations are unknown.
    """
    per_activation = (
        table["family"]
        .isin(FUSED_ATTENTION_FAMILIES)
        .map({True: BYTES_PER_ACTIVATION_FUSED_ATTENTION, False: BYTES_PER_ACTIVATION})
    )
    state = table["params_m"] * 1e6 * STATE_BYTES_PER_PARAMETER
    return state + per_activation * table["macts"] * 1e6 * batch_size + ROUGH_CONTEXT_BYTES
