import hashlib

import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner

from automl.cli.weights import weights
from automl.errors import PoolError, WeightsError

NAME = "vit_base_patch16_dinov3.lvd1689m"

app = typer.Typer()
app.command()(weights)


@pytest.fixture(autouse=True)
def _empty_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_it_says_what_to_fetch_and_where_to_put_it():
    printed = call(NAME)
    assert f"on the hub:  model.safetensors of timm/{NAME}" in printed
    assert "size:        about 343MB (342,560,000 bytes; computed, 4 a weight)" in printed
    assert "licence:     dinov3-license" in printed
    assert f"put it:      DIR/{NAME}.safetensors, and give --weights-dir DIR" in printed
    assert f"or:          DIR/models--timm--{NAME}/snapshots/REVISION/model.safetensors" in printed
    assert "here:        no" in printed


def test_a_file_that_is_here_is_named_with_its_digest(tmp_path):
    path = tmp_path / f"{NAME}.safetensors"
    save_file({}, path)
    assert f"{path} (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()})" in call(NAME, "--weights-dir", tmp_path)


def test_wildcards_give_a_paragraph_each():
    paragraphs = call("*tipsv2*", "resnet50.a1_in1k").split("\n\n")
    assert len(paragraphs) == 5
    assert paragraphs[-1].startswith("resnet50.a1_in1k\n")


def test_mistakes_are_told(tmp_path):
    with pytest.raises(PoolError, match="names nosuchnet"):
        call("nosuchnet*")
    (tmp_path / f"{NAME}.pth").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match="is a pickle"):
        call(NAME, "--weights-dir", tmp_path)
