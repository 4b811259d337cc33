import json
from dataclasses import replace

import pytest
import torch

from automl.backbones.capabilities import (
    check_image_size,
    correct_tuning,
    examine_backbones,
    find_capabilities,
    without_unsupported,
)
from automl.backbones.capability_table import SIZES, Capabilities, load_capabilities, shipped_capabilities
from automl.backbones.examine import examine_backbone
from automl.backbones.table import load_table
from automl.backbones.tuning import name_changed
from automl.backbones.weights import make_model
from automl.errors import RecipeError, SpecError
from automl.files import cache_dir
from automl.recipe import Recipe
from tests.fixtures.faults import Faults


@pytest.mark.parametrize(
    ("backbone", "tried", "runs", "loads"),
    [
        ("resnet10t", (64, 96, 128), (64, 96, 128, 176), (64, 96, 128, 176)),
        ("levit_128s", (96, 224), (96, 224), (224,)),  # its weights have an attention bias for each position
        ("crossvit_9_240", (128, 224), (240,), (240,)),
        ("efficientformer_l1", (128, 256), (224,), (224,)),
        ("vit_tiny_patch16_224", (96, 128), (96, 128, 224), (96, 128, 224)),  # timm resizes its position embedding
        ("mixer_s32_224", (64, 128), (64, 128, 224), (224,)),
        ("test_vit", (64,), (64, 160), (64, 160)),
    ],
)
def test_sizes_that_run_and_those_at_which_weights_load(backbone, tried, runs, loads):
    found = examine_backbone(backbone, tried)
    assert (found.runs, found.loads) == (runs, loads)
    assert bool(found.why_not) == (set(loads) != {*tried, found.weights_size})
    assert found.trainable_sizes(pretrained=True) == loads
    assert found.trainable_sizes(pretrained=False) == runs


def test_why_a_size_is_missing_names_the_first_tensor():
    assert examine_backbone("levit_128s", (96,)).why_not.startswith(
        "96 px: size mismatch for stages.0.blocks.0.attn.attention_bias"
    )


@pytest.mark.parametrize(
    ("backbone", "drop_path", "checkpointing", "takes_size", "plain_head"),
    [
        ("vgg11", False, False, False, True),
        ("densenet121", False, True, False, True),
        ("caformer_s18", True, True, False, False),
        ("nest_tiny_jx", True, True, True, True),
        ("levit_128s", True, True, True, False),
        ("test_resnet", True, True, False, True),
    ],
)
def test_what_else_a_backbone_can_do(backbone, drop_path, checkpointing, takes_size, plain_head):
    found = examine_backbone(backbone, (224,))
    assert found.drop_path is drop_path
    assert found.grad_checkpointing is checkpointing
    assert found.takes_size is takes_size
    assert found.plain_head is plain_head
    assert found.layer_groups > 1


def test_without_the_table_a_backbone_is_examined_and_the_result_kept():
    first = find_capabilities("test_vit", (64, 96), shipped=False)
    assert first.runs == (64, 96, 160)
    (kept,) = (cache_dir() / "capabilities").glob("*.json")
    kept.write_text(kept.read_text().replace('"layer_groups": ', '"layer_groups": 9'))
    again = find_capabilities("test_vit", (64, 96), shipped=False)
    assert again == replace(first, layer_groups=int(f"9{first.layer_groups}"))  # read, not examined again


def test_a_damaged_cache_is_no_error():
    found = find_capabilities("test_vit", (64,), shipped=False)
    (kept,) = (cache_dir() / "capabilities").glob("*.json")
    for text in ("", "[]", json.dumps({"backbone": "x"})):
        kept.write_text(text)
        assert find_capabilities("test_vit", (64,), shipped=False) == found


def test_a_lack_of_memory_is_nothing_that_a_backbone_cannot_do():
    with Faults(("aten.native_layer_norm", 1)), pytest.raises(torch.OutOfMemoryError):
        find_capabilities("test_vit", (64,), shipped=False)
    assert find_capabilities("test_vit", (64,), shipped=False).runs == (64, 160)


def test_an_unknown_backbone_is_an_error():
    with pytest.raises(RecipeError, match="timm has no backbone 'resnet81'"):
        find_capabilities("resnet81", shipped=False)


def test_another_file_is_refused_with_the_command_that_makes_the_table(tmp_path):
    (tmp_path / "table.csv").write_text("backbone\nx\n")
    with pytest.raises(SpecError, match=r"is not a table of capabilities .*studies/leaderboard/capabilities\.py"):
        load_capabilities(tmp_path / "table.csv")


def test_alike_weights_are_examined_once(monkeypatch):
    examined = []

    def find_out(name):
        examined.append(name)
        return Capabilities(name, 224)

    monkeypatch.setattr("automl.backbones.capabilities._examine_all_sizes", find_out)
    found = examine_backbones(["resnet50.a1_in1k", "resnet50.a2_in1k", "resnet50.a3_in1k"])
    assert [row.backbone for row in found] == ["resnet50.a1_in1k", "resnet50.a2_in1k", "resnet50.a3_in1k"]
    assert [row.default_weights for row in found] == [True, False, False]
    assert len(examined) == 2  # a3 was trained at 160 px


def test_what_a_backbone_lacks_is_taken_out_of_a_recipe():
    recipe = Recipe.from_mapping({"backbone": "vgg11", "drop_path": 0.2, "numerics": {"grad_checkpointing": True}})
    plain, without = without_unsupported(recipe)
    assert (plain.drop_path, plain.numerics.grad_checkpointing) == (0.0, False)
    assert without == (
        "drop_path 0.2 (vgg11 has no stochastic depth)",
        "numerics.grad_checkpointing (vgg11 has none)",
    )
    kept = Recipe(backbone="resnet18", drop_path=0.2)
    assert without_unsupported(kept) == (kept, ())


@pytest.mark.parametrize(
    ("backbone", "tune", "targets"),
    [
        ("test_resnet", "lora", "all"),
        ("test_vit", "lora", "attention"),
        ("test_vit", {"name": "lora", "targets": "all"}, "all"),
    ],
)
def test_a_recipe_says_which_layers_lora_changes(backbone, tune, targets):
    recipe = Recipe.from_mapping({"backbone": backbone, "tune": tune, "image_size": 32})
    corrected, without = correct_tuning(recipe)
    assert corrected.tune.targets == targets
    assert corrected.describe_trained() == ("lora 16 on all layers" if targets == "all" else "lora 16")
    why = "tune.targets attention (test_resnet has none: LoRA changes all layers)"
    assert without == ((why,) if backbone == "test_resnet" else ())
    assert correct_tuning(corrected) == (corrected, ())
    layers = [sorted(name_changed(make_model(one, 2))) for one in (recipe, corrected)]
    assert layers[0] == layers[1]


def test_what_is_not_lora_has_no_targets_to_correct():
    recipe = Recipe.from_mapping({"backbone": "no such", "tune": "norms"})
    assert correct_tuning(recipe) == (recipe, ())


@pytest.mark.parametrize(
    ("backbone", "size", "pretrained", "message"),
    [
        ("crossvit_9_240", 64, False, "image_size 64: crossvit_9_240 runs at 240 px: set image_size"),
        (
            "crossvit_9_240",
            64,
            True,
            "image_size 64: the weights of crossvit_9_240 load at 240 px only: set image_size",
        ),
        (
            "levit_128s",
            64,
            True,
            "image_size 64: the weights of levit_128s load at 224 px only: set image_size, or pretrained: false",
        ),
    ],
)
def test_an_image_size_that_cannot_be_trained_at_names_those_that_can(backbone, size, pretrained, message):
    with pytest.raises(RecipeError) as caught:
        check_image_size(Recipe(backbone=backbone, image_size=size, pretrained=pretrained))
    assert str(caught.value) == message
    check_image_size(Recipe(backbone=backbone, image_size=240 if "crossvit" in backbone else 224))
    check_image_size(Recipe(backbone="levit_128s", image_size=64, pretrained=False))


# --- the shipped table -----------------------------------------------------------------------------------------------


def test_the_shipped_table_has_the_whole_leaderboard():
    rows = load_capabilities()
    assert {row.backbone for row in rows} == set(load_table()["model"])
    assert not [row.backbone for row in rows if row.problem]
    assert all(row.weights_size in row.loads for row in rows)  # every backbone loads its weights at their own size


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["levit_128s.fb_dist_in1k", "resnet50.a1_in1k", "volo_d1_224.sail_in1k"])
def test_the_shipped_table_says_what_is_found_out_now(backbone):
    shipped = shipped_capabilities(backbone)
    if shipped is None:
        pytest.skip("the table was made with another timm")
    assert examine_backbone(backbone, SIZES) == shipped


def test_an_architecture_alone_stands_for_its_default_weights():
    shipped = shipped_capabilities("resnet50")
    if shipped is None:
        pytest.skip("the table was made with another timm")
    assert shipped.backbone == "resnet50.a1_in1k"
    assert find_capabilities("resnet50", (128, 256)).runs == (128, 224, 256)


def test_a_network_without_tokens_pools_as_it_always_does():
    recipe = Recipe(backbone="test_resnet", pooling="cls")
    corrected, without = correct_tuning(recipe)
    assert corrected == Recipe(backbone="test_resnet")
    assert without == ("pooling cls (test_resnet has no tokens: it pools as it always does)",)
    vit = Recipe(backbone="test_vit", pooling="cls")
    assert correct_tuning(vit) == (vit, ())
