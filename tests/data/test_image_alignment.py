import numpy as np
import pytest
from PIL import Image

from automl.data.image_alignment import correlate_aligned, has_details
from tests.fixtures.photos import make_photo


def gray(image):
    return np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float32)


def test_an_image_lies_on_itself():
    assert correlate_aligned(gray(make_photo(0)), gray(make_photo(0))) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_a_part_is_laid_on_the_whole(seed):
    whole = make_photo(seed, 256, 256)
    assert correlate_aligned(gray(whole), gray(whole.crop((12, 0, 256, 250)))) > 0.85


def test_different_images_are_not_alike():
    pairs = [(gray(make_photo(seed)), gray(make_photo(seed + 50))) for seed in range(10)]
    assert max(correlate_aligned(a, b) for a, b in pairs) < 0.5


def test_nothing_lies_on_nothing():
    assert correlate_aligned(np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)) == 0


def test_one_edge_is_not_enough_to_tell_a_copy_by():
    edge = np.zeros((64, 64), np.float32)
    edge[30:] = 200
    assert not has_details(edge)
    assert not has_details(np.zeros_like(edge))
    assert has_details(gray(make_photo(0)))
