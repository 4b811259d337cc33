"""What commit 5aab889 wrote is still opened: `fixtures/made_by_5aab889/README.md` lists what, and how it was made."""

import csv
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import sqlite3
import wave
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

import automl
from automl.cli.main import app
from automl.study.supervisor import Supervisor

WRITTEN = Path(__file__).parent / "fixtures" / "made_by_5aab889"
ROOT = "/tmp/made_by_5aab889"
"""Where it was written: studies name their files from the root."""
MODIFIED = 1_700_000_000
"""Seconds since 1970, of every file of the data."""

NETWORK = ("--backbones", "test_efficientnet.*", "--pool-size", 1, "--pretrained", "never", "--device", "cpu")
TONES = ("--data", "tones", "--runs", "studies", "--space", "space.yaml", *NETWORK, "--gpu-mem", "4GB", "--seed", 5)
BEEPS = ("--data", "beeps", "--runs", "studies", "--space", "sound.yaml", *NETWORK, "--pruner", "none")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, one_process):
    """A copy of all of it, in the working folder, as 5aab889 would have written it there."""
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for file in data_files("tones", "beeps"):
        file.chmod(0o644)
        os.utime(file, (MODIFIED, MODIFIED))
    move_studies(tmp_path)
    move_cache(tmp_path / "cache")
    for view, training in (("mel", "0000-1"), ("audio_features", "0001-1")):
        weights = Path("models", "beeps", view, "model.safetensors")
        shutil.copy(weights, Path("studies", "beeps", "confirm", training, "weights.safetensors"))
    return tmp_path


def data_files(*names):
    return sorted(file.absolute() for name in names for file in Path(name).rglob("*.*"))


def move_studies(folder):
    """Has the studies name the files by where they lie now, and the trials this machine."""
    for name in ("tones", "beeps"):
        samples = Path("studies", name, "samples.csv")
        samples.write_text(samples.read_text().replace(ROOT, str(folder)))
        with closing(sqlite3.connect(f"studies/{name}/study.db")) as study:
            change = "UPDATE study_user_attributes SET value_json = replace(value_json, ?, ?)"
            study.execute(change, (ROOT, str(folder)))
            change = "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'host'"
            study.execute(change, (json.dumps(socket.gethostname()),))
            study.commit()


def move_cache(cache):
    """Gives everything in the cache the name that 5aab889 would have given it here."""
    import torch

    keys = json.loads(Path("cache_keys.json").read_text())
    for name, key in keys["images"].items():
        digest = hashlib.sha256(key["maker"].encode())
        for file in data_files(key["data"]):
            info = file.stat()
            digest.update(f"\0{file}\0{info.st_size} {info.st_mtime_ns} {info.st_mode}".encode())
        (cache / "images" / name).rename(cache / "images" / digest.hexdigest()[:32])
    for name, (method, _, *asked) in keys["capabilities"].items():
        rename(cache / "capabilities" / f"{name}.json", json.dumps([method, version("timm"), *asked]), 32)
    for name, (_, _, _, _, _, *step) in keys["timings"].items():
        machine = [f"{platform.machine()} {platform.processor()}", torch.get_num_threads(), os.cpu_count()]
        rename(cache / "timings" / f"{name}.json", json.dumps([*machine, version("torch"), version("timm"), *step]), 16)
    for path in (cache / "memory").iterdir():
        content = json.loads(path.read_text())
        content["key"] |= {"torch": version("torch"), "timm": version("timm")}
        path.write_text(json.dumps(content))
        rename(path, json.dumps(content["key"], sort_keys=True), 32)


def rename(path, key, length):
    path.rename(path.with_stem(hashlib.sha256(key.encode()).hexdigest()[:length]))


def run(*words):
    """What a command prints."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if result.exception is not None:
        raise result.exception
    return result.stdout


def holds(now, then):
    """Whether all that was written then is the same now; what came later has a default."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and holds(now[key], value) for key, value in then.items())
    return now == then


def load(path):
    return yaml.safe_load(Path(path).read_text())


def state(*folders):
    """When each file below some folders was last written."""
    files = [file for folder in folders for file in Path(folder).rglob("*") if file.is_file()]
    return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def break_data():
    """Makes files that cannot be decoded of the data, so that nothing but the cache has their content."""
    for file in data_files("tones", "beeps"):
        content, begin = file.read_bytes(), 41 if file.suffix == ".png" else 12  # the first bytes name the kind
        file.write_bytes(content[:begin] + bytes(len(content) - begin))
        os.utime(file, (MODIFIED, MODIFIED))
    with Image.open("tones/dark/00.png") as image, pytest.raises((OSError, SyntaxError)):
        image.load()
    with pytest.raises(wave.Error), wave.open("beeps/low/00.wav"):
        pass


def trials(name):
    return pd.read_csv(f"studies/{name}/trials.csv", index_col="number")


# --- studies ------------------------------------------------------------------------------------------------------


def test_studies_are_listed():
    listed = {line.split()[0]: line.split() for line in run("studies", "--runs", "studies").splitlines()}
    assert listed["tones"][1:6] == ["4", "of", "4", "auc", "0.8750"]
    assert listed["beeps"][1:6] == ["3", "of", "4", "auc", "1.0000"]


@pytest.mark.parametrize(("name", "trial", "value"), [("tones", 2, "0.8750"), ("beeps", 0, "1.0000")])
def test_the_best_recipe_is_the_same(name, trial, value):
    printed = run("best", name, "--runs", "studies")
    assert re.search(rf"\btrial {trial}\b.*\b{value}\b", printed)
    recipe = printed[printed.index("backbone: ") :].split("\n\n")[0]
    assert holds(yaml.safe_load(recipe), load(WRITTEN / "studies" / name / "best.yaml"))


def test_a_confirmation_is_read():
    printed = run("confirm", "tones", "--runs", "studies", "--device", "cpu")
    written = json.loads((WRITTEN / "studies" / "tones" / "confirm.json").read_text())
    assert re.search(r"\brecipe of trial 0\b", printed)
    for candidate in written["candidates"]:
        assert re.search(rf"\b{candidate['mean']:.4f} +{candidate['search_value']:.4f}\b", printed)
    assert re.search(rf"\bauc +{written['validation']['value']:.4f} +{written['holdout']['value']:.4f}\b", printed)


def test_a_study_is_exported():
    confirmed = load(WRITTEN / "studies" / "tones" / "confirmed.yaml")
    assert holds(yaml.safe_load(run("export", "tones", "--runs", "studies")), confirmed)
    compile(run("export", "tones", "--runs", "studies", "--format", "python"), "script.py", "exec")
    options = yaml.safe_load(run("export", "tones", "--runs", "studies", "--format", "timm"))
    assert options["lr"] == confirmed["learning_rate"]


def test_the_same_search_continues_a_study():
    before, cached = trials("tones"), state("cache")
    break_data()
    run("search", *TONES, "--confirm", 0, "--trials", 5)
    after = trials("tones")
    assert list(after.index) == [0, 1, 2, 3, 4]
    assert after["state"][4] in ("complete", "pruned")
    pd.testing.assert_frame_equal(after.loc[:3, before.columns], before)
    assert state("cache") == cached


def test_a_trial_that_was_killed_goes_on_from_its_checkpoint():
    cached = state("cache")
    break_data()
    run("search", *BEEPS, "--confirm", 0, "--trials", 4)
    after = trials("beeps")
    assert list(after.index) == [0, 1, 2, 3]
    assert after["state"][3] == "complete"
    with closing(sqlite3.connect("studies/beeps/study.db")) as study:
        look = "SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id) WHERE number = 3 AND key = ?"
        ((resumed_at,),) = study.execute(look, ("resumed_at",)).fetchall()
    assert json.loads(resumed_at)[0] > 0
    assert state("cache") == cached


def test_a_new_search_takes_images_and_predictions_from_the_cache(monkeypatch):
    class Worker(Exception):  # noqa: N818
        """All is decoded and chosen, and trials begin."""

    def watch(*_, **__):
        raise Worker

    cached = state("cache")
    assert len(cached) == 20
    break_data()
    monkeypatch.setattr(Supervisor, "watch_workers", watch)
    with pytest.raises(Worker):
        run("search", *TONES, "--name", "new", "--trials", 1)
    after = state("cache")
    assert cached.items() <= after.items()
    # what 5aab889 did not look at yet, or timed with other batches
    assert {Path(file).parts[1] for file in after.keys() - cached.keys()} <= {"audit", "near_copies", "timings"}


def test_joined_views_are_read():
    trained = state("studies/beeps/confirm")
    break_data()
    run("ensemble", "beeps", "--runs", "studies", "--out", "models/again", "--device", "cpu")
    assert holds(load("models/again/fusion.json"), load("models/beeps/fusion.json"))
    assert holds(load("models/again/ensemble.json"), load("models/beeps/ensemble.json"))
    assert state("studies/beeps/confirm") == trained
    for view in ("mel", "audio_features"):
        now, then = (safe_open(f"models/{name}/{view}/model.safetensors", "pt") for name in ("again", "beeps"))
        assert all(now.get_tensor(key).equal(then.get_tensor(key)) for key in then.keys())  # noqa: SIM118


# --- models -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
# The same libraries give the same digits. Others may draw a spectrogram in which a pixel is one of 255 brighter.
@pytest.mark.parametrize(("name", "tolerance"), [("tones", 1e-5), ("beeps", 1e-3)])
def test_a_model_predicts_the_same(name, tolerance):
    with (WRITTEN / f"{name}.csv").open() as file:
        names, scores = zip(*list(csv.reader(file))[1:], strict=True)
    predicted = automl.load(f"models/{name}", "cpu").predict([f"{name}/{file}" for file in names])["y_pred"]
    assert list(predicted) == pytest.approx([float(score) for score in scores], abs=tolerance)
    assert predicted.max() - predicted.min() > 0.5


def test_a_model_is_exported():
    recipe = load(WRITTEN / "models" / "tones" / "recipe.yaml")
    assert holds(yaml.safe_load(run("export", "models/tones")), recipe)
    compile(run("export", "models/tones", "--format", "python"), "script.py", "exec")
    assert yaml.safe_load(run("export", "models/tones", "--format", "timm"))["lr"] == recipe["learning_rate"]
