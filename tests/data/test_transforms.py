import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from automl.data import transforms as augment
from automl.data.transforms import eval_transform, train_transform
from automl.errors import DataError, RecipeError
from automl.recipe.augmentation import Augmentation

EVERYTHING = {
    "vertical_flip": 0.5,
    "affine": {"name": "random", "probability": 0.8, "rotate_degrees": 20, "shear_degrees": 5, "translate": 0.1},
    "color": {"name": "jitter", "probability": 0.8, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    "grayscale": 0.3,
    "blur": 0.5,
    "jpeg": 0.5,
    "downscale": 0.5,
    "erasing": 0.5,
    "codec": 0.5,
    "time_shift": 0.2,
    "gain": 0.1,
    "noise": 0.5,
    "time_mask": 0.2,
    "frequency_mask": 0.2,
}
ALONE = [
    {"vertical_flip": 1},
    {"affine": {"name": "random", "probability": 1, "rotate_degrees": 20}},
    {"affine": {"name": "random", "probability": 1, "rotate_degrees": 0, "translate": 0.3}},
    {"affine": {"name": "random", "probability": 1, "rotate_degrees": 0, "shear_degrees": 30}},
    {"color": {"name": "jitter", "probability": 1, "brightness": 0.5}},
    {"grayscale": 1},
    {"blur": 1},
    {"jpeg": 1, "jpeg_min_quality": 5},
    {"downscale": 1, "downscale_min": 0.3},
    {"erasing": 1},
    {"grayscale": 1, "erasing": 1},
    {"codec": 1},
    {"time_shift": 0.3},
    {"gain": 0.3},
    {"noise": 1},
    {"time_mask": 0.3},
    {"frequency_mask": 0.3},
    {"policy": {"name": "auto"}},
    {"policy": {"name": "rand", "operations": 3, "magnitude": 15}},
    {"policy": {"name": "trivial"}},
    {"policy": {"name": "augmix", "severity": 5}},
]
CROPS = [{"name": "resize"}, {"name": "random_resized", "min_scale": 0.3}, {"name": "native"}, {"name": "squash"}]


def augmentation(**values):
    return Augmentation.model_validate({"horizontal_flip": 0, **values})


@pytest.fixture
def image():
    """(80, 100, 3): smooth colours with some texture, so that every operation shows."""
    y, x = np.mgrid[0:80, 0:100]
    noise = np.random.default_rng(0).integers(0, 30, (80, 100))
    return np.stack([x * 2 + noise, y * 2 + noise, 255 - x * 2 - noise], axis=-1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("values", [*ALONE, {**EVERYTHING, "policy": {"name": "trivial"}}])
def test_every_operation_gives_uint8_of_the_size_and_changes_something(image, values):
    transform = train_transform(augmentation(**values), 64)
    plain = eval_transform(augmentation(), 64)(image[:, 10:90])
    torch.manual_seed(1)
    results = [transform(image[:, 10:90]) for _ in range(8)]
    assert all(x.dtype == torch.uint8 and x.shape == (3, 64, 64) and x.is_contiguous() for x in results)
    assert any(not torch.equal(x, plain) for x in results)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("policy", ["none", "auto", "rand", "trivial", "augmix"])
def test_torchs_seed_decides_everything(image, crop, policy):
    transform = train_transform(augmentation(**EVERYTHING, crop=crop, policy={"name": policy}), 48)
    first, again = [], []
    for results in (first, again):
        np.random.seed(len(first))  # other generators must not matter
        for seed in range(6):
            torch.manual_seed(seed)
            results.append(transform(image))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({x.numpy().tobytes() for x in first}) > 1


def test_without_operations_the_image_is_only_cropped(image):
    transform = train_transform(augmentation(), 64)
    square = image[:, :80]
    torch.testing.assert_close(transform(square), eval_transform(augmentation(), 64)(square), rtol=0, atol=0)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("shape", [(80, 100), (100, 80), (20, 200), (9, 7), (64, 64)])
def test_any_shape_fits(crop, shape):
    image = np.full((*shape, 3), (10, 100, 200), dtype=np.uint8)
    for transform in (train_transform(augmentation(crop=crop), 64), eval_transform(augmentation(crop=crop), 64)):
        result = transform(image)
        assert result.shape == (3, 64, 64)
        assert result.float().mean((1, 2)).tolist() == [10, 100, 200]


def test_native_crop_keeps_pixels(image):
    native = augmentation(crop={"name": "native"})
    middle = torch.from_numpy(image[24:56, 34:66].copy()).permute(2, 0, 1)
    assert torch.equal(eval_transform(native, 32)(image), middle)
    cut = train_transform(native, 32)(image).permute(1, 2, 0).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(image, (32, 32, 3))
    assert (windows.reshape(-1, 32, 32, 3) == cut).all((1, 2, 3)).any()


def test_random_crops_reach_the_edges(image):
    transform = train_transform(augmentation(crop={"name": "native"}), 79)
    lefts = {int(transform(image)[2, 0, 0]) for _ in range(200)}
    assert len(lefts) > 10


def test_flip_flips(image):
    flipped = train_transform(augmentation(horizontal_flip=1), 80)(image[:, :80])
    assert torch.equal(flipped.flip(2), eval_transform(augmentation(), 80)(image[:, :80]))


def test_erased_is_near_imagenets_mean(image):
    erased = train_transform(augmentation(erasing=1), 80)(np.zeros_like(image))
    assert {tuple(pixel) for pixel in erased.flatten(1).T.tolist()} == {(0, 0, 0), (124, 116, 104)}


def test_reads_a_cache_that_cannot_be_written_and_leaves_it_alone(image):
    before = image.copy()
    image.flags.writeable = False
    train_transform(augmentation(**EVERYTHING, crop={"name": "native"}), 80)(image)
    eval_transform(augmentation(), 80)(image)
    assert np.array_equal(image, before)


def test_travels_to_another_process(image):
    transform = train_transform(augmentation(**EVERYTHING, policy={"name": "rand"}), 48)
    copy = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(3)
    expected = transform(image)
    torch.manual_seed(3)
    assert torch.equal(copy(image), expected)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos"])
def test_every_interpolation_of_timm_works(image, interpolation):
    assert eval_transform(augmentation(), 32, interpolation)(image).shape == (3, 32, 32)


def test_unknown_interpolation_names_the_known_ones():
    with pytest.raises(RecipeError, match=r"'cubic'.*bicubic, lanczos|'cubic'.*bilinear"):
        train_transform(augmentation(), 32, "cubic")


# --- video codec ------------------------------------------------------------------------------------------------


def psnr(x, y):
    return 10 * torch.log10(255**2 / (x.float() - y.float()).square().mean()).item()


@pytest.mark.parametrize("side", [16, 33, 80])
def test_the_codec_changes_the_image_a_little(image, side):
    square = image[:side, :side]
    coded = train_transform(augmentation(codec=1), side)(square)
    assert coded.shape == (3, side, side)
    assert coded.is_contiguous()
    assert 20 < psnr(coded, eval_transform(augmentation(), side)(square)) < 50


def test_the_codec_keeps_colors_and_position():
    image = np.full((45, 45, 3), (40, 110, 190), dtype=np.uint8)
    image[:, 30:] = (200, 90, 60)
    coded = train_transform(augmentation(codec=1), 45)(image).float()
    assert coded[:, :, :28].mean((1, 2)).tolist() == pytest.approx([40, 110, 190], abs=4)
    assert coded[:, :, 32:].mean((1, 2)).tolist() == pytest.approx([200, 90, 60], abs=4)


@pytest.mark.parametrize("side", [80, 45])
def test_the_codec_makes_nothing_darker(image, monkeypatch, side):
    monkeypatch.setattr(augment, "CODEC_CRF", (8, 8))
    square = 60 + image[:side, 10 : side + 10] // 2
    plain = eval_transform(augmentation(), side)(square).float()
    change = train_transform(augmentation(codec=1), side)(square).float() - plain
    assert abs(change.mean((1, 2)) @ torch.tensor([0.299, 0.587, 0.114])) < 0.2


def test_the_worse_the_codec_the_further_away(image, monkeypatch):
    square = image[:, :80, :1].repeat(3, axis=2)  # gray: in color, halving the colors' resolution costs most
    plain = eval_transform(augmentation(), 80)(square)
    near = []
    for crf in (23, 30, 40):
        monkeypatch.setattr(augment, "CODEC_CRF", (crf, crf))
        near.append(psnr(train_transform(augmentation(codec=1), 80)(square), plain))
    assert near[0] > near[1] + 1 > near[2] + 2


def test_the_codecs_quality_is_drawn(image):
    transform = train_transform(augmentation(codec=1), 80)
    assert len({transform(image[:, :80]).numpy().tobytes() for _ in range(12)}) > 4


def test_the_codec_is_silent(image, capfd):
    train_transform(augmentation(codec=1), 33)(image)
    assert capfd.readouterr() == ("", "")


def test_without_pyav_the_codec_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    train_transform(augmentation(), 32)
    with pytest.raises(DataError, match=r"pip install .* av$"):
        train_transform(augmentation(codec=0.1), 32)


# --- pictures of sound ------------------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**32)
SIDES = st.integers(16, 41)
SHARES = st.floats(0.01, 1)


def spectrogram(seed, side):
    """(S, S, 3) uint8: gray, every pixel at random and none near the mean, which is about 128."""
    rng = np.random.default_rng(seed)
    gray = rng.integers(0, 90, (side, side)) + 165 * rng.integers(0, 2, (side, side))
    return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)


def before_and_after(seed, picture, **values):
    """Both as (S, S) int64; what is done to gray pictures must leave them gray."""
    torch.manual_seed(seed)
    after = train_transform(augmentation(**values), len(picture))(picture)
    assert after.dtype == torch.uint8
    assert (after == after[:1]).all()
    return torch.from_numpy(picture[..., 0]).long(), after[0].long()


@given(SEEDS, SIDES, SHARES)
def test_time_shift_rolls_by_at_most_its_share(seed, side, share):
    before, after = before_and_after(seed, spectrogram(seed, side), time_shift=share)
    most = int(share * side)
    assert any(torch.equal(before.roll(pixels, 1), after) for pixels in range(-most, most + 1))


def test_time_shift_goes_everywhere():
    picture = np.zeros((20, 20, 3), dtype=np.uint8)
    picture[:, 10] = 255
    transform = train_transform(augmentation(time_shift=0.2), 20)
    assert {int(transform(picture)[0, 0].argmax()) for _ in range(200)} == set(range(6, 15))


@given(SEEDS, SIDES, st.floats(0.01, 0.5))
def test_gain_is_one_offset_for_all_pixels(seed, side, share):
    before, after = before_and_after(seed, spectrogram(seed, side), gain=share)
    offsets = (after - before)[(after > 0) & (after < 255)].unique()
    assert len(offsets) == 1
    assert abs(offsets) <= round(share * 255)
    assert torch.equal((before + offsets).clamp(0, 255), after)


def test_gain_goes_both_ways():
    transform = train_transform(augmentation(gain=0.2), 16)
    levels = [int(transform(np.full((16, 16, 3), 100, dtype=np.uint8))[0, 0, 0]) for _ in range(200)]
    assert 49 <= min(levels) < 65
    assert 135 < max(levels) <= 151
    assert len(set(levels)) > 30


@given(SEEDS, SIDES)
def test_noise_never_darkens_and_lifts_what_is_quiet_most(seed, side):
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    before, after = before_and_after(seed, np.repeat(np.tile(ramp, (side, 1))[..., None], 3, axis=2), noise=1)
    lifted = (after - before).float().mean(0)  # of each column, dark to bright
    assert (after >= before).all()
    assert lifted[0] > 20  # black is 80 dB below white, the faintest noise 60
    assert lifted[-1] < 15
    assert lifted[: side // 4].mean() > lifted[side // 4 : -side // 4].mean() >= lifted[-side // 4 :].mean()


def test_noise_adds_power(monkeypatch):
    """Sound of -40 dB under noise of -40 dB: 3 dB more, within what noise fluctuates."""
    monkeypatch.setattr(augment, "NOISE_DB", (-40.0, -40.0))
    black, equal = (np.full((64, 64, 3), level, dtype=np.uint8) for level in (0, 128))
    transform = train_transform(augmentation(noise=1), 64)
    torch.manual_seed(0)
    alone, both = (10 ** ((transform(picture).double() / 255 * 80 - 80) / 10) for picture in (black, equal))
    assert alone.mean().item() == pytest.approx(1e-4, rel=0.15)
    assert both.mean().item() == pytest.approx(2e-4, rel=0.15)
    assert 2 < (10 * alone.log10()).std() < 3.5


def test_noise_of_a_probability_leaves_some_pictures_alone():
    transform = train_transform(augmentation(noise=0.5), 16)
    untouched = [not transform(np.zeros((16, 16, 3), dtype=np.uint8)).any() for _ in range(200)]
    assert 60 < sum(untouched) < 140


def runs(blank):
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], blank, [False]])))
    return edges[1::2] - edges[::2]


@given(SEEDS, SIDES, st.floats(0.01, 0.49), st.floats(0.01, 0.49))  # less than half: never the whole picture
def test_masks_blank_two_bands_of_each_axis_and_nothing_else(seed, side, time, frequency):
    before, after = before_and_after(seed, spectrogram(seed, side), time_mask=time, frequency_mask=frequency)
    mean = round(before.float().mean().item())
    columns, rows = ((after == mean).all(axis).numpy() for axis in (0, 1))
    for blank, share in ((columns, time), (rows, frequency)):
        assert len(runs(blank)) <= 2
        assert blank.sum() <= 2 * int(share * side)
        if len(runs(blank)) == 2:
            assert max(runs(blank)) <= int(share * side)
    elsewhere = ~(torch.from_numpy(columns)[None, :] | torch.from_numpy(rows)[:, None])
    assert torch.equal(after[elsewhere], before[elsewhere])


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(["time_mask", "frequency_mask"]))
def test_a_mask_of_one_axis_leaves_the_other(seed, name):
    before, after = before_and_after(seed, spectrogram(seed, 32), **{name: 0.25})
    changed = (before != after).numpy()
    axis = 0 if name == "time_mask" else 1
    assert np.array_equal(changed.all(axis), changed.any(axis))


def test_masks_reach_everywhere_and_every_width():
    picture = spectrogram(0, 20)
    transform = train_transform(augmentation(time_mask=0.2), 20)
    blanked = [(transform(picture)[0] != torch.from_numpy(picture[..., 0])).all(0).numpy() for _ in range(200)]
    assert np.any(blanked, axis=0).all()
    assert {int(blank.sum()) for blank in blanked} == set(range(9))


@pytest.mark.parametrize("shape", [(480, 80), (80, 480), (80, 160), (80, 80), (20, 30)])
def test_squashing_shows_both_ends_in_training_and_in_evaluation(shape):
    marked = np.full((*shape, 3), 90, dtype=np.uint8)
    along = marked if shape[0] >= shape[1] else marked.swapaxes(0, 1)
    tenth = max(1, len(along) // 10)
    along[:tenth], along[-tenth:] = 255, 0
    squash = augmentation(crop={"name": "squash"})
    shown = eval_transform(squash, 32)(marked)
    rows = shown if shape[0] >= shape[1] else shown.transpose(1, 2)
    assert rows[:, 0].min() > 250
    assert rows[:, -1].max() < 5
    assert torch.equal(train_transform(squash, 32)(marked), shown)  # nothing random in it
    for crop in CROPS[:3]:
        if max(shape) >= 2 * min(shape):
            assert (eval_transform(augmentation(crop=crop), 32)(marked) == 90).all(), "the others show the middle"


@pytest.mark.parametrize("crop", CROPS[:3])
def test_what_is_beyond_1_to_2_does_not_change_the_crops_that_cut(crop):
    image = np.random.default_rng(0).integers(0, 256, (300, 50, 3), dtype=np.uint8)
    for make in (eval_transform, train_transform):
        transform = make(augmentation(crop=crop), 32)
        torch.manual_seed(1)
        whole = [transform(image) for _ in range(4)]
        torch.manual_seed(1)
        assert all(map(torch.equal, whole, [transform(image[100:200]) for _ in range(4)]))


def test_every_field_of_a_recipe_has_a_step():
    fields = {name for name in Augmentation.model_fields if name not in augment.NOT_STEPS}
    assert fields == set(augment._STEPS)


@pytest.mark.parametrize("field", ["crop", "affine", "color", "policy"])
def test_an_unknown_branch_is_refused_by_name(field):
    unknown = augmentation().model_copy(update={field: SimpleNamespace(name="swirl")})
    with pytest.raises(RecipeError, match=rf"augmentation.{field}: 'swirl' has no step"):
        train_transform(unknown, 32)


@pytest.mark.parametrize("strengths", [(0.5, 0.0), (0.0, 0.5), (0.4, 0.4)])
def test_brightness_and_contrast_are_torchvisions_within_a_step(image, strengths):
    jitter = {"name": "jitter", "probability": 1, "brightness": strengths[0], "contrast": strengths[1]}
    color = {"saturation": 0.0, "hue": 0.0} | jitter
    pipeline = train_transform(augmentation(crop={"name": "squash"}, color=color), 96)
    theirs = v2.ColorJitter(*strengths)
    for seed in range(20):
        torch.manual_seed(seed)
        ours = pipeline(image)
        after = torch.rand(())
        torch.manual_seed(seed)
        expected = theirs(pipeline.cut(image))
        difference = (ours.int() - expected.int()).abs()
        assert difference.max() <= 2
        assert difference.float().mean() < 0.5
        assert torch.rand(()) == after, "as many numbers are drawn"
