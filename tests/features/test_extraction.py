import numpy as np
import pytest
import torch
from torch import nn

from automl.backbones.input import read_preprocessing
from automl.backbones.layers import PRE_LOGITS, spread_evenly
from automl.backbones.timm_model import create_model
from automl.errors import MemoryBudgetError, RecipeError
from automl.features.extraction import FeatureExtractor, to_half
from automl.recipe import Numerics
from tests.fixtures.faults import Faults

NARROW = {"embed_dim": 48, "num_heads": 2, "depth": 8}
SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4)}
SIX = [0, 1, 3, 4, 5, 7]

FAMILIES = [  # backbone, pixels, what makes it small, features of each layer as multiples of its channels, channels
    ("test_vit", 32, {}, 3, [64] * 6),
    ("vit_small_patch16_dinov3", 32, NARROW, 3, [48] * 6),  # a class token and four registers
    ("vit_pe_core_tiny_patch16_384", 32, NARROW, 3, [48] * 6),
    ("vit_base_patch16_siglip_224", 32, NARROW, 2, [48] * 6),  # no class token
    ("vit_xsmall_patch16_clip_224", 32, NARROW, 3, [48] * 6),
    ("vit_small_patch14_dinov2", 28, NARROW, 3, [48] * 6),
    ("vit_base_patch16_reg4_gap_256", 32, NARROW, 2, [48] * 6),  # registers and no class token
    ("vit_relpos_small_patch16_224", 32, NARROW, 2, [48] * 6),
    ("beit_base_patch16_224", 32, NARROW, 3, [48] * 6),
    ("deit_tiny_distilled_patch16_224", 32, NARROW, 3, [48] * 6),  # two prefix tokens
    ("mixer_s32_224", 64, {}, 2, [512] * 6),
    ("swin_tiny_patch4_window7_224", 64, SWIN, 2, [24, 48, 96, 192]),  # its own features are NHWC
    ("test_mambaout", 64, {}, 2, [16, 32, 48, 64]),  # as well
    ("hiera_tiny_224", 64, {"embed_dim": 24, "stages": (1, 1, 2, 1)}, 2, [24, 48, 96, 192]),
    ("test_convnext", 32, {}, 2, [24, 32, 48, 64]),
    ("test_efficientnet", 32, {}, 2, [16, 24, 32, 48, 64]),
    ("mobilenetv2_035", 32, {}, 2, [8, 8, 16, 32, 112]),
    ("test_resnet", 32, {}, 2, [32, 32, 48, 192, 96]),
    ("resnet50_clip", 64, {}, 2, [64, 256, 512, 1024, 2048]),
    ("coat_tiny", 64, {"embed_dims": (16, 16, 16, 16)}, 2, [16] * 4),  # features of several scales
]


def make_extractor(backbone, size, numerics=None, **options):
    torch.manual_seed(0)
    model, _ = create_model(backbone, {"img_size": size}, num_classes=3, **options)
    return model, FeatureExtractor(model, read_preprocessing(model), numerics or Numerics(), "cpu", size)


def noise(count, size):
    return torch.tensor(np.random.default_rng(0).integers(0, 256, (count, 3, size, size)), dtype=torch.uint8)


def normalised(model, images):
    expected = read_preprocessing(model)
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (expected.mean, expected.std))
    return (images - mean) / std


@pytest.mark.parametrize(("backbone", "size", "small", "parts", "channels"), FAMILIES, ids=[f[0] for f in FAMILIES])
def test_every_family_gives_its_layers_and_its_own_pooled_features(backbone, size, small, parts, channels):
    model, extractor = make_extractor(backbone, size, **small)
    images = noise(3, size)
    features = extractor.extract_batch(images)
    assert features.dtype == torch.float32
    assert features.shape == (3, extractor.width)
    widths = [layer.stop - layer.start for layer in extractor.layers]
    assert widths[:-1] == [parts * n for n in channels]
    assert extractor.layers[0].start == 0
    assert all(one.stop == other.start for one, other in zip(extractor.layers, extractor.layers[1:], strict=False))
    assert len({layer.name for layer in extractor.layers}) == len(extractor.layers)
    last = extractor.layers[-1]
    assert last.name == PRE_LOGITS
    with torch.no_grad():
        pooled = model.forward_head(model.forward_features(normalised(model, images)), pre_logits=True)
    assert torch.allclose(features[:, last.columns], pooled.flatten(1), atol=1e-4)
    assert not torch.allclose(features[0], features[1])


@pytest.mark.parametrize(
    ("backbone", "size", "small"), [("test_vit", 32, {}), ("vit_small_patch16_dinov3", 64, NARROW)]
)
def test_a_layer_is_class_token_mean_and_deviation_of_the_patches(backbone, size, small):
    model, extractor = make_extractor(backbone, size, **small)
    images = noise(2, size)
    tokens = []
    model.blocks[-1].register_forward_hook(lambda _module, _inputs, output: tokens.append(output))
    features = extractor.extract_batch(images)
    patches = tokens[0][:, model.num_prefix_tokens :]
    expected = torch.cat([tokens[0][:, 0], patches.mean(1), patches.std(1, correction=0)], dim=1)
    assert torch.allclose(features[:, extractor.layers[-2].columns], expected, atol=1e-5)


def test_a_layout_with_channels_last_is_pooled_over_positions():
    model, extractor = make_extractor("swin_tiny_patch4_window7_224", 64, **SWIN)
    images = noise(2, 64)
    with torch.no_grad():
        final = model.layers(model.patch_embed(normalised(model, images)))  # (B, H, W, C)
    expected = torch.cat([final.mean((1, 2)), final.std((1, 2), correction=0)], dim=1)
    assert torch.allclose(extractor.extract_batch(images)[:, extractor.layers[-2].columns], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "size", "small"),
    [
        ("test_vit", 32, {}),
        ("vit_relpos_small_patch16_224", 32, NARROW),
        ("swin_tiny_patch4_window7_224", 64, SWIN),
        ("test_resnet", 32, {}),
    ],
)
def test_without_intermediates_the_last_features_alone_are_read(monkeypatch, backbone, size, small):
    def fail(self, *args, **options):
        raise NotImplementedError("none here")

    model, with_layers = make_extractor(backbone, size, **small)
    images = noise(2, size)
    before = with_layers.extract_batch(images)
    monkeypatch.setattr(type(model), "forward_intermediates", fail)
    _, extractor = make_extractor(backbone, size, **small)
    assert [layer.name for layer in extractor.layers] == ["features", PRE_LOGITS]
    features = extractor.extract_batch(images)
    last = with_layers.layers[-2]
    assert extractor.layers[0].stop == last.stop - last.start
    assert torch.equal(features[:, extractor.layers[-1].columns], before[:, with_layers.layers[-1].columns])


def test_a_head_on_the_pooled_features_gives_the_classifiers_logits():
    model, extractor = make_extractor("test_efficientnet", 32)
    nn.init.normal_(model.classifier.weight)
    images = noise(3, 32)
    pooled = extractor.extract_batch(images)[:, extractor.layers[-1].columns]
    with torch.no_grad():
        assert torch.allclose(model.classifier(pooled), model(normalised(model, images)), atol=1e-4)


def test_layers_are_evenly_spread_and_the_last_is_among_them():
    assert spread_evenly(8, 6) == SIX
    assert spread_evenly(12, 6) == [1, 3, 5, 7, 9, 11]
    assert spread_evenly(4, 6) == [0, 1, 2, 3]
    assert spread_evenly(24, 1) == [23]


def test_a_batch_does_not_change_what_an_image_gives():
    _, extractor = make_extractor("test_resnet", 32, Numerics(micro_batch_size=2))
    images = noise(5, 32)
    features = extractor.extract_batch(images)
    assert torch.allclose(features[3], extractor.extract_batch(images[3:4])[0], atol=1e-5)


@pytest.mark.slow
def test_what_does_not_fit_is_tried_with_half_the_images():
    _, extractor = make_extractor("test_vit", 32, Numerics(micro_batch_size=4))
    images = noise(4, 32)
    expected = extractor.extract_batch(images)
    with Faults(("aten.convolution", 1), ("aten.conv2d", 1)):
        features = extractor.extract_batch(images)
    assert extractor.batch_size == 2
    assert torch.allclose(features, expected, atol=1e-5)
    calls = [(name, k) for name in ("aten.convolution", "aten.conv2d") for k in range(1, 9)]
    with Faults(*calls), pytest.raises(MemoryBudgetError, match="one image"):
        extractor.extract_batch(images)


def test_what_is_not_finite_is_refused():
    model, extractor = make_extractor("test_resnet", 32)
    nn.init.constant_(next(model.parameters()), float("nan"))
    with pytest.raises(RecipeError, match="not finite in fp32; its weights may be damaged"):
        extractor.extract_batch(noise(1, 32))


def test_low_precision_gives_nearly_the_same():
    _, exact = make_extractor("test_vit", 32)
    _, rough = make_extractor("test_vit", 32, Numerics(precision="bf16", memory_format="channels_last"))
    images = noise(2, 32)
    one, other = exact.extract_batch(images), rough.extract_batch(images)
    assert other.dtype == torch.float32
    assert float((one - other).abs().max()) < 0.1 * float(one.abs().max())


def test_halves_stay_finite():
    assert to_half(torch.tensor([[1e9, -1e9, 0.5]])).tolist() == [[65504.0, -65504.0, 0.5]]
