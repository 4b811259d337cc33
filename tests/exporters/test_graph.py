import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from automl.errors import AutomlError, DataError, WeightsError
from automl.exporters.graph import TOLERANCE, export_onnx, export_torch, list_constants, read_check_images
from automl.recipe.augmentation import Augmentation, NativeCrop, SquashCrop
from tests.fixtures.models import SIZE, write


def images(count):
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def expected(model, batch):
    with torch.no_grad():
        return model.load()(batch).softmax(1)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    random = np.random.default_rng(0)
    for k, name in enumerate(("a.png", "b.jpg", "deep/c.png", "d.png")):
        Image.fromarray(random.integers(0, 256, (50 + k, 60, 3), dtype=np.uint8)).save(folder / name)
    (folder / "bad.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model and its ONNX file, for everything that is asked of one: an export takes seconds."""
    folder = tmp_path_factory.mktemp("onnx")
    model = write(folder / "model")
    return model, export_onnx(model, folder / "out.onnx")


@pytest.mark.parametrize("backbone", ["test_byobnet.r160_in1k", "test_vit"])
def test_onnx_gives_the_models_probabilities_at_any_batch_size(written, tmp_path, backbone):
    model, found = written
    if backbone != model.recipe.backbone:
        model = write(tmp_path / "m", backbone, classes=("a", "b", "c"))
        found = export_onnx(model, tmp_path / "out.onnx")
    assert found.difference < TOLERANCE
    assert (found.images, found.real) == (9, False)
    session = onnxruntime.InferenceSession(found.path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        (out,) = session.run(None, {"images": images(count).numpy()})
        assert np.allclose(out, expected(model, images(count)), atol=TOLERANCE)
        assert np.allclose(out.sum(1), 1, atol=1e-5)


@pytest.mark.slow
def test_onnx_of_attention_in_five_dimensions(tmp_path):
    """torch translates the fused attention in four dimensions alone, and said so in three coloured paragraphs."""
    model = write(tmp_path / "m", "nest_tiny_jx")
    assert export_onnx(model, tmp_path / "out.onnx").difference < TOLERANCE


TUNED = {
    "lora": {"tune": {"name": "lora", "rank": 2}, "head": {"name": "l2"}},
    "tokens": {"tune": {"name": "norms"}, "pooling": "cls_avg", "head": {"name": "mlp", "hidden": 8}},
    "attention": {"tune": {"name": "last"}, "head": {"name": "attention"}},
    "layers": {"tune": {"name": "head"}, "head": {"name": "layers"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TUNED)
def test_what_was_tuned_in_part_is_exported_whole(tmp_path, name):
    model = write(tmp_path / "m", "test_vit", **TUNED[name])
    assert export_onnx(model, tmp_path / "out.onnx").difference < TOLERANCE
    assert export_torch(model, tmp_path / "out.pt2").difference < TOLERANCE


def test_torch_gives_the_models_probabilities_at_any_batch_size(model, tmp_path):
    found = export_torch(model, tmp_path / "out.pt2")
    assert found.difference < TOLERANCE
    extra = {"preprocessing.json": ""}
    program = torch.export.load(found.path, extra_files=extra).module()
    assert json.loads(extra["preprocessing.json"]) == constants_of(model)
    for count in (1, 5):
        assert torch.allclose(program(images(count)), expected(model, images(count)), atol=TOLERANCE)


def constants_of(model):
    return json.loads(json.dumps(list_constants(model)))


def test_the_constants_go_along(written):
    model, found = written
    inside = {prop.key: json.loads(prop.value) for prop in onnx.load(found.path).metadata_props}
    assert inside == json.loads(found.path.with_name("out.onnx.json").read_text()) == constants_of(model)
    assert inside["classes"] == ["real", "fake"]
    assert (inside["positive"], inside["image_size"], inside["decode_size"]) == (1, SIZE, 40)
    assert (inside["input"], inside["output"], inside["crop"]) == ("images", "probabilities", "square")
    assert str(found.path.parent).encode() not in found.path.read_bytes()
    assert b"site-packages" not in found.path.read_bytes()


def test_of_many_classes_none_is_positive_and_a_native_crop_is_told(tmp_path):
    model = write(tmp_path / "m", classes=("a", "b", "c"), augmentation=Augmentation(crop=NativeCrop()))
    assert (list_constants(model)["positive"], list_constants(model)["crop"]) == (None, "native")


def test_compared_on_real_images(model, tmp_path, pictures):
    found = export_torch(model, tmp_path / "out.pt2", pictures)
    assert (found.images, found.real) == (4, True)
    assert found.difference < TOLERANCE


@pytest.mark.parametrize("name", ["empty", "nowhere"])
def test_no_images_to_compare_on(model, tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"no image files in .*{name}"):
        export_torch(model, tmp_path / "out.pt2", tmp_path / name)
    assert not (tmp_path / "out.pt2").exists()


def test_no_readable_image_to_compare_on(model, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "pictures" / name).write_text("no image")
    with pytest.raises(DataError, match=r"none of the 2 files of .*pictures can be read.*\n.*a.png: not an image"):
        export_torch(model, tmp_path / "out.pt2", tmp_path / "pictures")
    assert not (tmp_path / "out.pt2").exists()


@pytest.mark.parametrize("wrong", [2e-4, float("nan")])
def test_a_file_that_differs_is_not_left_behind(model, tmp_path, monkeypatch, wrong):
    out = tmp_path / "out.pt2"
    out.write_text("the last good one")
    network = model.load()

    class Wrong:
        def module(self):
            return lambda batch: network(batch).softmax(1) + wrong

    monkeypatch.setattr(torch.export, "load", lambda _file: Wrong())
    with pytest.raises(WeightsError, match="differ by up to"):
        export_torch(model, out)
    assert out.read_text() == "the last good one"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_extra_is_named_when_it_is_missing(model, tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else there(name))
    with pytest.raises(AutomlError, match=r"onnxruntime; install with: pip install 'automl-timm\[onnx\]'"):
        export_onnx(model, tmp_path / "out.onnx")


def test_a_network_that_cannot_be_traced(model, tmp_path, monkeypatch):
    def refuse(*_arguments, **_more):
        raise RuntimeError("data-dependent\nand a long story")

    monkeypatch.setattr(torch.export, "export", refuse)
    with pytest.raises(WeightsError, match=r"test_byobnet.*cannot be exported.*: data-dependent$"):
        export_torch(model, tmp_path / "out.pt2")


def test_a_file_that_cannot_be_written(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AutomlError, match="cannot write"):
        export_torch(model, tmp_path / "file" / "out.pt2")


def test_squashed_images_are_told_and_compared_whole(tmp_path):
    (tmp_path / "pictures").mkdir()
    marked = np.full((480, 80, 3), 90, dtype=np.uint8)
    marked[:80] = 255
    Image.fromarray(marked).save(tmp_path / "pictures/x.png")
    model = write(tmp_path / "m", augmentation=Augmentation(crop=SquashCrop()))
    assert list_constants(model)["crop"] == "squash"
    export_torch(model, tmp_path / "x.pt2")
    assert json.loads((tmp_path / "x.pt2.json").read_text())["crop"] == "squash"
    (batch,) = read_check_images(model, tmp_path / "pictures")
    mean, std = (torch.tensor(values)[:, None] for values in (model.input.mean, model.input.std))
    assert torch.allclose(batch[0, :, 0], ((1 - mean) / std).expand(3, SIZE), atol=0.01)
