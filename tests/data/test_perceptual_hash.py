import numpy as np
from PIL import Image

from automl.data.perceptual_hash import count_ones, perceptual_hashes


def scene(seed):
    """A smooth picture of colours, (90, 120, 3)."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(colours).resize((120, 90), Image.Resampling.BICUBIC))


def squares(seeds):
    return np.stack([np.array(Image.fromarray(scene(seed)).resize((64, 64))) for seed in seeds])


def test_the_hash_is_of_the_picture_and_not_of_its_brightness():
    pictures = squares(range(8))
    hashes, useful = perceptual_hashes(pictures)
    darker, _ = perceptual_hashes((0.6 * pictures + 30).astype(np.uint8))
    assert useful.all()
    assert count_ones(hashes ^ darker).max() <= 6
    others = count_ones(hashes[:, None] ^ hashes)[~np.eye(8, dtype=bool)]
    assert others.min() > 10


def test_half_of_the_bits_are_set():
    hashes, _ = perceptual_hashes(squares(range(5)))
    assert count_ones(hashes).tolist() == [32] * 5


def test_an_image_with_nothing_in_it_is_told():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 12, (1, 64, 64, 3), dtype=np.uint8)
    for plain in (np.zeros_like(noise), np.full_like(noise, 255), noise):
        assert not perceptual_hashes(plain)[1].any()


def test_ones_are_counted_with_any_numpy(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**63, (5, 7), dtype=np.uint64)
    words[0, :2] = 0, 2**64 - 1
    expected = [[bin(word).count("1") for word in row] for row in words.tolist()]
    assert count_ones(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    found = count_ones(words)
    assert found.tolist() == expected
    assert found.dtype == np.uint8
