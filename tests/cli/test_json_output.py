"""`--json`: what stands on standard output, and nothing else."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import automl
from automl.cli import main
from automl.cli.json_objects import RESULTS, Failed, Failure, Interval
from automl.cli.json_output import make_plain, open_output, wants_json, write_result
from automl.cli.main import app, run
from automl.recipe import Recipe
from tests.fixtures.json_objects import run_json
from tests.fixtures.view_clips import tone, write_clip


def walk(command, path=()):
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
    for name, one in (inner or {}).items():
        yield from walk(one, (*path, name))


COMMANDS = dict(walk(typer.main.get_command(app)))


def test_every_command_has_the_flag_and_a_documented_object():
    assert set(COMMANDS) == set(RESULTS)
    assert [name for name, command in COMMANDS.items() if "json" not in {item.name for item in command.params}] == []


def test_what_json_cannot_hold():
    made = {
        "nan": math.nan,
        "inf": [math.inf, np.float64("-inf")],
        "array": np.array([[1.5, np.nan]]),
        "count": np.int64(3),
        "path": Path("a/b"),
        "bytes": os.fsdecode(b"caf\xe9.jpg"),
        "object": Failed(error=Failure(message="no", exit_code=2)),
        3: (True, None),
    }
    plain = {
        "nan": None,
        "inf": [None, None],
        "array": [[1.5, None]],
        "count": 3,
        "path": "a/b",
        "bytes": "caf\ufffd.jpg",
        "object": {"error": {"message": "no", "exit_code": 2}},
        "3": [True, None],
    }
    assert make_plain(made) == plain
    assert json.loads(json.dumps(make_plain(made), allow_nan=False)) == plain


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("best bees --runs nowhere --json", "no study 'bees' in nowhere"),
        ("search --json --trials abc", "--trials: must be a whole number (got 'abc')"),
        ("confirm --json --seeds 0", "--seeds: 0 is too small; give 1 or more"),
        ("backbones --json --nosuch", "no such option: --nosuch"),
        ("backbon --json", "no such command 'backbon'"),
        ("predict --json", "missing argument 'model'"),
        ("space --json show nosuch", "no such option: --json"),
        ("--json", "no such option: --json"),
        ("data /nowhere --json", "no such file or folder: /nowhere"),
    ],
)
def test_a_mistake_is_an_object_with_the_exit_code(words, message, capfd):
    with pytest.raises(SystemExit) as caught:
        run(words.split())
    printed = capfd.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert caught.value.code == lines[-1]["error"]["exit_code"] == 2
    assert lines[-1]["error"]["message"].startswith(message)
    assert printed.err == f"Error: {lines[-1]['error']['message']}\n"
    assert [line["event"] for line in lines[:-1]] == ["started"] * (len(lines) - 1)


def test_an_error_of_the_program_is_an_object_and_a_traceback(monkeypatch, capfd):
    def end(*_, **__):
        raise ZeroDivisionError("no number")

    monkeypatch.setattr(main, "app", end)
    with pytest.raises(ZeroDivisionError):
        run(["best", "--json"])
    assert json.loads(capfd.readouterr().out) == {"error": {"message": "ZeroDivisionError: no number", "exit_code": 1}}


def test_ctrl_c_is_an_object(monkeypatch, capfd):
    def end(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", end)
    with pytest.raises(SystemExit) as caught:
        run(["best", "--json"])
    assert caught.value.code == 130
    assert json.loads(capfd.readouterr().out) == {"error": {"message": "stopped", "exit_code": 130}}


def test_all_else_goes_to_standard_error():
    """Also of what is no Python, and of processes that are started."""
    code = (
        "import os, subprocess, sys\n"
        "from automl.cli.json_objects import Interval\n"
        "from automl.cli.json_output import open_output, write_result\n"
        "with open_output(['best', '--json']):\n"
        "    print('a line'); sys.stdout.write('words\\n'); sys.stdout.flush(); os.write(1, b'raw\\n')\n"
        "    subprocess.run(['echo', 'child'])\n"
        "    write_result(Interval(value=1.0, low=float('nan'), high=None))\n"
        "print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == '{"value": 1.0, "low": null, "high": null}\nafter\n'
    assert sorted(done.stderr.splitlines()) == ["a line", "child", "raw", "words"]


@pytest.mark.parametrize("words", [["best"], ["predict", "--", "--json"]])
def test_without_the_flag_there_is_no_object(words, capsys):
    with open_output(words):
        assert not wants_json()
        write_result(Interval(value=1.0, low=None, high=None))
        print("for people")
    assert capsys.readouterr() == ("for people\n", "")


@pytest.mark.slow
def test_a_closed_pipe_is_no_error():
    command = [sys.executable, "-m", "automl", "backbones", "--limit", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        assert process.wait() == 0


# --- the objects of the commands that need no study ------------------------------------------------------------------


def test_backbones(capfd):
    listed = run_json(capfd, "backbones", "resnet50*", "--gpu-mem", "16GB", "--limit", 2)
    assert len(listed["rows"]) == 2 < listed["matches"]
    assert {"model", "image_size", "score", "params_m", "gpu_gb"} <= set(listed["rows"][0])
    assert all(row["model"].startswith("resnet50") for row in listed["rows"])


def test_weights(capfd, tmp_path):
    (file,) = run_json(capfd, "weights", "resnet50.a1_in1k", "--weights-dir", tmp_path)["files"]
    assert (file["backbone"], file["repository"], file["path"]) == ("resnet50.a1_in1k", "timm/resnet50.a1_in1k", None)


def test_probe(capfd):
    words = ["test_byobnet.r160_in1k", "--image-size", 32, "--batch-size", 4, "--gpu-mem", "16GB", "--device", "cpu"]
    (step,) = run_json(capfd, "probe", *words)["steps"]
    assert (step["micro_batch"], step["measured_bytes"], step["budget_bytes"]) == (4, None, 16 * 10**9)
    assert step["margin_bytes"] == step["budget_bytes"] - step["predicted_bytes"]


def test_doctor(capfd):
    shown = run_json(capfd, "doctor")
    assert shown["can_search"] == (not any(problem["fatal"] for problem in shown["problems"]))
    assert "torch" in {one["name"] for one in shown["findings"]}


def test_spaces(capfd):
    shown = run_json(capfd, "space", "show", "demo")
    assert shown == run_json(capfd, "space", "validate", "demo")
    kinds = {one["name"]: (one["kind"], one["log"]) for one in shown["parameters"]}
    assert kinds["backbone"] == ("pool", False)
    assert kinds["learning_rate"] == ("float", True)
    assert run_json(capfd, "space", "schema")["schema"]["type"] == "object"


def test_data(capfd, images, tmp_path):
    (images / "light" / "damaged.png").write_bytes(b"no picture")
    try:
        words = ["--holdout-fraction", 0, "--normalise", tmp_path / "copy"]
        shown = run_json(capfd, "data", images, *words)
    finally:
        (images / "light" / "damaged.png").unlink()
    assert shown["classes"] == ["dark", "light"]
    assert sum(count for split in shown["counts"].values() for count in split.values()) == 49
    assert [one["name"] for one in shown["unreadable"]] == ["light/damaged.png"]
    assert shown["width"] == [32, 32, 32]
    assert shown["audit"]["files_read"] == 48
    assert shown["normalised"]["written"] == 48
    assert [one["name"] for one in shown["normalised"]["unreadable"]] == ["light/damaged.png"]
    assert shown["label_check"] is None


def test_studies_and_best(capfd, new_study, tmp_path):
    runs = tmp_path / "runs"
    assert run_json(capfd, "studies", "--runs", runs) == {"studies": [], "warnings": []}
    new_study(trials=3)
    (listed,) = run_json(capfd, "studies", "--runs", runs)["studies"]
    assert (listed["study"], listed["trials_ended"], listed["trials_wanted"]) == ("tones", 0, 3)
    shown = run_json(capfd, "best", "tones", "--runs", runs)
    assert (shown["study"], shown["metric"], shown["best"], shown["value"]) == ("tones", "auc", None, None)
    assert shown["next"][0]["argv"] == ["automl", "best", "tones", "--runs", str(runs)]


# --- the objects of models -------------------------------------------------------------------------------------------


def test_predict_and_evaluate(capfd, model, images, tmp_path):
    where = ["--device", "cpu", "--data", images]
    wrote = run_json(capfd, "predict", model.path, *where, "--out", tmp_path / "out.csv")
    assert (wrote["path"], wrote["rows"], wrote["unreadable"]) == (str(tmp_path / "out.csv"), 48, 0)
    renamed = ["--rename-label", "dark=real", "--rename-label", "light=fake"]
    measured = run_json(capfd, "evaluate", model.path, *where, *renamed, "--out", tmp_path / "report")
    written = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert measured == {"folder": str(tmp_path / "report")} | written
    assert measured["data"]["samples"] == 48


def test_export(capfd, model, tmp_path):
    text = run_json(capfd, "export", model.path, "--format", "json")
    assert (text["path"], json.loads(text["text"])["recipe"]["backbone"]) == (None, "test_byobnet.r160_in1k")
    file = run_json(capfd, "export", model.path, "--format", "torch", "--out", tmp_path / "out.pt2")
    assert (file["path"], file["text"], file["real"]) == (str(tmp_path / "out.pt2"), None, False)
    assert file["difference"] < 1e-3


def test_inspect(capfd, tmp_path):
    write_clip(tmp_path / "a.wav", sound=tone(0.3))
    shown = run_json(capfd, "inspect", tmp_path / "a.wav", "--out", tmp_path / "out")
    assert (shown["page"], shown["sheet"]) == (str(tmp_path / "out" / "inspect.html"), None)


def test_train(capfd, images, tmp_path):
    recipe = Recipe(backbone="test_vit", image_size=32, batch_size=8, epochs=0.5, pretrained=False)
    recipe.save(tmp_path / "recipe.yaml")
    words = ["--recipe", tmp_path / "recipe.yaml", "--data", images, "--out", tmp_path / "model", "--device", "cpu"]
    started, *steps, finished = run_json(capfd, "train", *words)
    assert started["argv"] == ["automl", "train", *map(str, words), "--json"]
    assert [step["done"] == step["total"] for step in steps if step["label"] == "training" and step["ended"]] == [True]
    assert finished["folder"] == str(tmp_path / "model")
    assert finished["metrics"] == json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert finished["next"][0]["argv"][:3] == ["automl", "predict", str(tmp_path / "model")]


def test_confirm(capfd, searched, untrained):
    folder = searched(0.9, 0.8)
    *_, finished = run_json(capfd, "confirm", "tones", "--seeds", 2, "--runs", folder.path.parent)
    confirmed = finished["confirmation"]
    assert [one["trial"] for one in confirmed["candidates"]] == [0, 1]
    assert [one["chosen"] for one in confirmed["candidates"]].count(True) == 1
    assert confirmed["holdout"]["low"] <= confirmed["holdout"]["value"] <= confirmed["holdout"]["high"]
    assert not finished["interrupted"]
    shown = run_json(capfd, "best", "tones", "--runs", folder.path.parent)
    assert shown["confirmation"] == confirmed
    assert (shown["value"], shown["best"]["number"], shown["trials_by_state"]) == (0.9, 0, {"complete": 2})
    assert [trial["value"] for trial in shown["top"]] == [0.9, 0.8]


def test_ensemble(capfd, joined, tmp_path):
    words = ["clips", "--out", tmp_path / "model", "--runs", joined.path.parent, "--device", "cpu"]
    *_, finished = run_json(capfd, "ensemble", *words)
    assert [member["view"] for member in finished["members"]] == ["frame", "mel"]
    assert sum(member["weight"] for member in finished["members"]) > 0
    assert finished["folder"] == str(tmp_path / "model")


@pytest.mark.parametrize("command", ["confirm", "ensemble"])
def test_a_stopped_training_ends_with_130(capfd, monkeypatch, searched, command):
    folder = searched(0.9)

    def stop(*_, reporter, **__):
        reporter.show_stop("stopping at the next checkpoint")

    monkeypatch.setattr(automl, command, stop)
    *_, stopping, finished = run_json(capfd, command, "tones", "--runs", folder.path.parent, code=130)
    assert (stopping["event"], stopping["message"]) == ("stopping", "stopping at the next checkpoint")
    assert finished["interrupted"]


def test_worker(capfd, new_study, tmp_path):
    _, folder = new_study(trials=1)
    storage = tmp_path / "tones.log"
    _, *events, finished = run_json(
        capfd, "worker", "--study", "tones", "--runs", folder.path.parent, "--storage", storage
    )
    assert [(one["event"], one["number"], one["state"]) for one in events] == [("trial", 0, "complete")]
    assert (finished["study"], finished["device"], finished["trials"]) == ("tones", "cpu", [0])
