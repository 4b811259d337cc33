from dataclasses import replace

import pytest
import torch
from torch import nn

from automl.backbones.timm_model import build_on_meta
from automl.errors import RecipeError
from automl.memory.caching_allocator import needed_bytes, peak_live_bytes
from automl.memory.envelope import build_envelope
from automl.memory.step import Step
from automl.memory.trace import build_meta_model, trace_envelope, trace_model, trace_model_envelopes


class Small(nn.Module):
    """A convolutional network with batch normalisation; an image of 16 px, three classes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GELU())
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


class Remembers(Small):
    """Makes something at its first pass that all later ones find, as ConViT does its indices."""

    def __init__(self):
        super().__init__()
        self.remembered = None

    def forward(self, images):
        if self.remembered is None:
            self.remembered = images.new_zeros(1000)
        return super().forward(images + self.remembered[0])


PARAMETER_BYTES = 4 * sum(p.numel() for p in Small().parameters())
BUFFER_BYTES = sum(b.nbytes for b in Small().buffers())


def step(**changes):
    return Step("small", image_size=16, classes=3, **{"optimizer": "sgd", "nesterov": True, **changes})


def trace_batches(model, of, *batches):
    return trace_model(model, of, batches, (of.precision,))[of.precision]


def trace(batch=2, **changes):
    return trace_batches(Small(), step(**changes), batch)[0]


def left(events):
    """Bytes alive when the step ends."""
    return sum(change for _, change in events)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_the_envelope_equals_a_direct_trace_at_a_third_batch_size(precision, memory_format):
    of = step(precision=precision, memory_format=memory_format)
    first, second, third = trace_batches(Small(), of, 2, 3, 64)
    envelope = build_envelope(first, second, (2, 3))
    assert envelope.live_bytes(64) == peak_live_bytes(third)
    assert envelope.needed_bytes(64) == needed_bytes(third)


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_what_the_first_pass_leaves_behind_is_counted_once_in_every_step(accumulates, training):
    of = step(accumulates=accumulates and training, training=training)
    first, second, third = trace_batches(Remembers(), of, 2, 3, 64)
    envelope = build_envelope(first, second, (2, 3))
    assert len(envelope.needed) > 1  # the traces pair
    assert envelope.live_bytes(64) == peak_live_bytes(third)
    lasting = left(first) - left(trace_batches(Small(), of, 2)[0])
    assert lasting == 4 * 1000


def test_of_convit_and_levit_more_images_need_more_memory():
    training = trace_envelope(Step("convit_tiny", 32, 2, precision="fp16", optimizer="sgd"))
    inference = trace_envelope(Step("levit_128s", 224, 2, precision="fp16", training=False))
    for envelope in (training, inference):
        assert len(envelope.needed) > 1
        assert envelope.live_bytes(256) > 1.5 * envelope.live_bytes(16)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "nadamw", "lion"])
@pytest.mark.parametrize("accumulates", [False, True])
def test_every_optimizer_can_be_traced(optimizer, accumulates):
    events = trace(optimizer=optimizer, nesterov=optimizer == "sgd", accumulates=accumulates)
    assert peak_live_bytes(events) > 2 * PARAMETER_BYTES


def test_a_fused_step_needs_no_memory_and_the_others_need_copies():
    stretches = {
        kernel: trace(optimizer="adamw", nesterov=False, kernel=kernel) for kernel in ("fused", "foreach", "loop")
    }
    assert len({left(events) for events in stretches.values()}) == 1
    in_step = {
        kernel: sum(change for storage, change in events if storage >= 10**8 and change > 0)
        for kernel, events in stretches.items()
    }
    assert in_step["fused"] == 0
    assert in_step["foreach"] >= PARAMETER_BYTES
    peaks = {kernel: peak_live_bytes(events) for kernel, events in stretches.items()}
    assert peaks["fused"] <= peaks["loop"] <= peaks["foreach"]


def test_a_frozen_backbone_keeps_no_activations_and_no_state():
    def timm_model():
        return build_on_meta("test_vit", {"img_size": 64}, num_classes=2)[0]

    of = Step("test_vit", 64, 2, optimizer="adamw")
    frozen, whole = (trace_batches(timm_model(), replace(of, frozen=flag), 16)[0] for flag in (True, False))
    weights = sum(p.nbytes for p in timm_model().parameters())
    head = sum(p.nbytes for p in timm_model().get_classifier().parameters())
    assert weights + 3 * head <= left(frozen) < weights + 4 * head  # its gradients and two moments
    assert peak_live_bytes(frozen) < peak_live_bytes(whole) / 3


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_gradient_checkpointing_takes_less(precision):
    of = Step("vit_tiny_patch16_224", 224, 2, precision=precision)
    plain, checkpointing = (
        trace_envelope(replace(of, grad_checkpointing=flag)).needed_bytes(64) for flag in (False, True)
    )
    assert checkpointing < plain / 2


def test_a_model_that_cannot_checkpoint_is_told():
    with pytest.raises(RecipeError, match="checkpointing not supported"):
        trace_envelope(Step("dla34", 64, 2, grad_checkpointing=True))


def test_inference_keeps_weights_and_little_else():
    of = Step("resnet10t", 64, 2)
    training, inference = (trace_envelope(replace(of, training=flag)) for flag in (True, False))
    model, _ = build_on_meta("resnet10t", {}, num_classes=2)
    weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert weights < inference.live_bytes(1) < 1.2 * weights
    assert inference.live_bytes(64) < training.live_bytes(64) / 2
    assert inference.smallest_batch == 1


def test_several_precisions_at_once_are_as_one_by_one():
    of = Step("test_convnext", 64, 2)
    with build_meta_model(of) as model:
        together = trace_model_envelopes(model, of, ("fp16", "fp32", "bf16"))
    assert together == {name: trace_envelope(replace(of, precision=name)) for name in ("fp16", "fp32", "bf16")}


def test_the_average_adds_exactly_parameters_and_buffers():
    with_average, without = trace(ema=True), trace()
    assert peak_live_bytes(with_average) - peak_live_bytes(without) == PARAMETER_BYTES + BUFFER_BYTES
    assert left(with_average) - left(without) == PARAMETER_BYTES + BUFFER_BYTES


def test_optimizers_keep_their_own_states():
    bare = left(trace(momentum=False, nesterov=False))
    counters = 4 * len(list(Small().parameters()))
    assert left(trace(momentum=True)) - bare == PARAMETER_BYTES
    assert left(trace(optimizer="lion", nesterov=False)) - bare == PARAMETER_BYTES
    assert left(trace(optimizer="adamw", nesterov=False)) - bare == 2 * PARAMETER_BYTES + counters


def test_half_precision_takes_less():
    full, half = (peak_live_bytes(trace(batch=32, precision=p)) for p in ("fp32", "fp16"))
    assert 0.4 * full < half < 0.9 * full


def test_accumulated_gradients_are_there_during_the_forward_pass():
    plain, accumulating = (peak_live_bytes(trace(batch=64, accumulates=flag)) for flag in (False, True))
    assert plain < accumulating <= plain + PARAMETER_BYTES


def test_a_traced_timm_model_needs_more_memory_for_more_images():
    envelope = trace_envelope(Step("resnet10t", image_size=64, classes=2, precision="fp16"))
    needed = [envelope.needed_bytes(batch) for batch in range(1, 200, 7)]
    assert needed == sorted(needed)
    assert envelope.smallest_batch == 2


def test_torch_is_left_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    trace_envelope(Step("vit_tiny_patch16_224", image_size=32, classes=2, precision="bf16", drop_path=True))
    assert torch.equal(torch.rand(4), expected)
    model = Small()
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    assert not any(p.is_meta or p.grad.is_meta for p in model.parameters())
    assert torch.is_grad_enabled()


def test_a_model_is_built_for_its_image_size():
    with build_meta_model(Step("vit_tiny_patch16_224", image_size=32, classes=5)) as model:
        assert model.pos_embed.shape == (1, 5, 192)
    with build_meta_model(Step("mobilenetv2_100", image_size=32, classes=5, drop_path=True)) as model:
        assert model.classifier.out_features == 5


def test_an_unknown_backbone_is_answered_with_the_nearest_names():
    with pytest.raises(RecipeError, match=r"no backbone 'resnet10x'.*resnet10t"):
        trace_envelope(Step("resnet10x", image_size=64, classes=2))


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18", "local-dir:/tmp", "../resnet18", ""])
def test_only_names_of_timm_are_built(name):
    with pytest.raises(RecipeError, match="no backbone"):
        trace_envelope(Step(name, image_size=64, classes=2))


def test_an_image_size_that_cannot_be_built_is_explained():
    with pytest.raises(RecipeError, match=r"mixer_s32_224.*16 px: .*32 x 32.*choose another"):
        trace_envelope(Step("mixer_s32_224", image_size=16, classes=2))
