import os
import pickle

import pytest
import torch

from automl.errors import WeightsError
from automl.training.checkpoint import load_checkpoint, save_checkpoint, weights_on_cpu


def test_what_was_saved_is_loaded(tmp_path):
    path = tmp_path / "deep" / "run.pt"
    state = {"model": {"w": torch.randn(3)}, "progress": [3, 1.5], "none": None, "history": [{"auc": 0.5}]}
    save_checkpoint(path, state)
    found = load_checkpoint(path)
    assert torch.equal(found["model"].pop("w"), state["model"].pop("w"))
    assert found == state
    assert [p.name for p in path.parent.iterdir()] == ["run.pt"]


def test_no_checkpoint_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "run.pt") is None


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_code_in_a_checkpoint_is_not_run(tmp_path, write):
    write({"model": Trap(tmp_path / "trapped")}, tmp_path / "run.pt")
    with pytest.raises(WeightsError, match=r"run\.pt is not a checkpoint that is safe to load"):
        load_checkpoint(tmp_path / "run.pt")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_torn_file_is_told(tmp_path, keep):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"w": torch.randn(5000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(WeightsError, match=r"run\.pt is not a checkpoint"):
        load_checkpoint(path)


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"step": 1})

    def full(state, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WeightsError, match=r"cannot write the checkpoint .*run\.pt.*is the disk full\?"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ""] == ["run.pt"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "run.pt", {})


def test_a_copy_of_the_weights_shares_no_memory():
    model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    model.register_parameter("twin", model.weight)
    copy = weights_on_cpu(model)
    assert copy.keys() == model.state_dict().keys()
    assert all(torch.equal(copy[name], value) for name, value in model.state_dict().items())
    assert len({value.data_ptr() for value in [*copy.values(), *model.state_dict().values()]}) == 3 + 2
    assert all(value.is_contiguous() and not value.requires_grad for value in copy.values())
