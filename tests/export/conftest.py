import pytest
import torch

from automl.export.folder import Input, Labels, write_model
from automl.recipe import Recipe
from automl.training.model import make_model, preprocessing

SIZE = 32


def write(path, backbone="test_byobnet.r160_in1k", classes=("real", "fake"), real_class=None, **values):
    """A model folder with random weights, whose classifier tells images apart."""
    recipe = Recipe(backbone=backbone, image_size=SIZE, **values)
    torch.manual_seed(0)
    network = make_model(recipe, len(classes))
    for parameter in network.get_classifier().parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    own = preprocessing(network)
    inputs = Input(40, SIZE, own.mean, own.std, own.interpolation)
    labels = Labels(classes, len(classes) - 1, (1 / len(classes),) * len(classes), "img_name", real_class)
    return write_model(path, network, recipe, inputs, labels, {"metric": "auc"}, "# card\n")


@pytest.fixture
def model(tmp_path):
    return write(tmp_path / "model")
