import pytest
import torch

from automl.backbones.timm_model import build_on_meta, create_model, has_drop_path, summarize_error


def test_arguments_that_an_architecture_refuses_are_left_out_and_named():
    model, refused = create_model("test_resnet", {"img_size": 64, "drop_path_rate": 0.5}, num_classes=3)
    assert refused == {"img_size"}
    assert has_drop_path(model)
    assert create_model("vgg11", {"drop_path_rate": 0.0, "img_size": 64})[1] == {"img_size", "drop_path_rate"}


def test_an_argument_that_must_be_taken_is_an_error():
    with pytest.raises(TypeError, match="no_such_argument"):
        create_model("test_resnet", {"img_size": 64}, no_such_argument=1)


def test_a_model_on_meta_has_shapes_alone():
    model, refused = build_on_meta("test_vit", {"img_size": 64}, num_classes=5)
    assert refused == frozenset()
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 5)


def test_the_first_mismatch_is_named_and_the_others_are_counted():
    try:
        torch.nn.Linear(3, 2).load_state_dict({"weight": torch.ones(4, 4), "bias": torch.ones(4)})
    except RuntimeError as exc:
        line = summarize_error(exc)
    assert line.startswith("size mismatch for weight: copying a param with shape torch.Size([4, 4])")
    assert line.endswith("(and 1 more)")
    assert summarize_error(ValueError("plain\nmore")) == "plain"
    assert summarize_error(ValueError()) == "ValueError"
