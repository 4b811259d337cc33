"""Peak GPU memory of a training step, predicted without a GPU.

`import automl.memory` imports no torch; neither does a prediction that is in the cache.
"""

from automl.memory.envelope import Envelope
from automl.memory.prediction import (
    CONTEXT_BYTES,
    envelope_of,
    estimate,
    estimate_inference,
    largest_micro_batch,
)

__all__ = ["CONTEXT_BYTES", "Envelope", "envelope_of", "estimate", "estimate_inference", "largest_micro_batch"]
