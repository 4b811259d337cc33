import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from automl.backbones.weights import make_model
from automl.recipe import Recipe
from automl.reports.mistake_maps import draw_mistake_maps
from automl.reports.predictions import read_winner
from automl.reports.study_summary import summarise_study
from automl.study.confirm import load_confirmation, store_confirmation
from tests.fixtures.reports import make_result, store_confirmed

RECIPE = Recipe(backbone="test_resnet.r160_in1k", pretrained=False, image_size=64)


@pytest.fixture
def confirmed(tmp_path):
    """A study that was confirmed with a network that can be drawn maps of, and pictures of its samples."""
    result = make_result(tmp_path, trials=6)
    best = store_confirmed(result)
    confirmation = load_confirmation(result.folder)
    store_confirmation(
        result.folder,
        confirmation.model_copy(update={"candidates": (confirmation.best.model_copy(update={"recipe": RECIPE}),)}),
    )
    pictures = tmp_path / "photos"
    pictures.mkdir()
    samples = result.setup.dataset.samples
    paths = [str(pictures / name) for name in samples["name"]]
    dataset = replace(result.setup.dataset, samples=samples.assign(path=paths), root=pictures)
    return replace(result, setup=replace(result.setup, dataset=dataset)), best.row.number


def test_each_mistake_that_can_be_read_has_a_map(confirmed):
    result, number = confirmed
    summary = summarise_study(result)
    winner = read_winner(summary)
    mistakes = winner.evaluation.models[winner.middle].mistakes[:3]
    assert draw_mistake_maps(summary, winner, mistakes) == {}  # its weights are not kept
    weights = result.folder.replicate_folder(number, winner.seed) / "weights.safetensors"
    state = make_model(RECIPE, 2).state_dict()
    state["fc.weight"] = torch.randn(state["fc.weight"].shape, generator=torch.Generator().manual_seed(0))
    save_file(state, weights)  # a new head is zero, and nothing would speak for a class
    noise = np.random.default_rng(0)
    for mistake in mistakes[:2]:
        Image.fromarray(noise.integers(0, 255, (80, 70, 3), np.uint8)).save(mistake.path)
    drawn = draw_mistake_maps(summary, winner, mistakes)
    assert list(drawn) == [mistake.path for mistake in mistakes[:2]]
    for uri in drawn.values():
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
            assert image.size == (64, 64)
    weights.write_bytes(b"torn")
    assert draw_mistake_maps(summary, winner, mistakes) == {}
