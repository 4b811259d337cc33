"""What all steps of degradations share, and how a step's randomness is seeded."""

import hashlib
import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from automl.schema import Part


class Step(Part):
    """One operation and its parameters.

    Attributes:
        codec: FFmpeg's name of the encoder that it needs, if any.
        ending: Of the file that a last step writes, if it decides that.
    """

    codec: ClassVar[str | None] = None
    ending: ClassVar[str | None] = None
    operation: str


def seed_random(source: Path, degradation: str) -> np.random.Generator:
    """Returns random numbers that depend on a file's name (without its folder) and a degradation's name alone."""
    key = os.fsencode(source.name) + b"\0" + degradation.encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()))
