"""One clip for all tests of `automl inspect`."""

import numpy as np
import pytest

from automl.inspection.clip import analyse_clip
from tests.fixtures.view_clips import moving_face, tone, write_clip


@pytest.fixture(scope="package")
def talk(tmp_path_factory):
    """Sixteen frames of a face that moves a little, upside down in the tenth, and a tone."""
    frames = moving_face(16, step=3)
    frames[9] = np.ascontiguousarray(frames[9][::-1])
    return write_clip(tmp_path_factory.mktemp("talk") / "talk.mkv", frames, tone(1.6))


@pytest.fixture(scope="package")
def seen(talk):
    return analyse_clip(talk, 16)
