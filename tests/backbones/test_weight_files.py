import pytest
from safetensors.numpy import save_file

from automl.backbones.weight_files import find_weight_files
from automl.errors import PoolError, WeightsError

NAME = "vit_small_patch16_dinov3.lvd1689m"


@pytest.fixture(autouse=True)
def _empty_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_file_is_described_by_what_timm_says_of_it():
    (file,) = find_weight_files([NAME])
    assert (file.repository, file.file, file.licence) == (f"timm/{NAME}", "model.safetensors", "dinov3-license")
    assert file.size_bytes == pytest.approx(4 * 21.6e6, rel=0.01)
    assert file.places == (
        f"{NAME}.safetensors",
        "vit_small_patch16_dinov3.safetensors",
        f"{NAME}/model.safetensors",
        f"models--timm--{NAME}/snapshots/*/model.safetensors",
    )
    assert file.path is None


def test_ranked_backbones_have_files_too_and_wildcards_take_both():
    files = find_weight_files(["resnet50.a1_in1k", "convnext_nano*"])
    names = [file.backbone for file in files]
    assert names[0] == "resnet50.a1_in1k"
    assert {"convnext_nano.in12k", "convnext_nano.in12k_ft_in1k"} < set(names)
    assert len(names) == len(set(names))
    assert files[0].size_bytes == pytest.approx(4 * 25.56e6)


def test_a_file_that_is_here_is_found_in_a_folder_or_in_the_cache_of_the_hub(tmp_path, monkeypatch):
    path = tmp_path / f"{NAME}.safetensors"
    save_file({}, path)
    assert find_weight_files([NAME], tmp_path)[0].path == path
    cached = tmp_path / "cached"
    monkeypatch.setattr("automl.backbones.weights._in_hub_cache", lambda _: True)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(cached))
    assert find_weight_files([NAME])[0].path == cached


def test_the_hub_is_not_asked(monkeypatch):
    monkeypatch.setattr("automl.backbones.weights.hub_reachable", lambda *_: pytest.fail("asked"))
    assert find_weight_files([NAME])[0].path is None


def test_what_is_not_known_is_refused(tmp_path):
    with pytest.raises(PoolError, match="names resnet5000 keeps none; near: resnet50"):
        find_weight_files([NAME, "resnet5000"])
    with pytest.raises(WeightsError, match="is not a folder"):
        find_weight_files([NAME], tmp_path / "nowhere")
