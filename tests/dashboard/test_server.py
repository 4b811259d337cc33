"""The dashboard as a browser gets it: over HTTP, from a study whose trials nobody had to train."""

import json
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from optuna.trial import TrialState

from automl.dashboard.server import make_dashboard
from automl.errors import StudyError
from automl.recipe import Recipe
from automl.study.validation import FoldResult, write_predictions

BACKBONE = "test_byobnet.r160_in1k"
RECIPE = Recipe(backbone=BACKBONE, learning_rate=0.002, batch_size=8, epochs=2, optimizer={"name": "sgd"})
SPENT = {
    "epochs_done": 2.0,
    "train_seconds": 4.0,
    "validation_seconds": 1.0,
    "fit_seconds": 6.0,
    "peak_bytes": 3 * 2**30,
}


def add_trial(study, state=TrialState.COMPLETE, value=None, **attributes):
    trial = study.ask()
    given = {"recipe": RECIPE.model_dump_json(), "backbone": BACKBONE, "epochs": 2.0, "image_size": 32} | attributes
    for name, content in given.items():
        trial.set_user_attr(name, content)
    trial.report(0.6, 4)
    if state != TrialState.RUNNING:
        study.tell(trial, value, state=state)
    return trial.number


@pytest.fixture
def served(new_study):
    """Serves a study of a complete, a pruned and a running trial → (study, address, folder)."""
    study, folder = new_study()
    numerics = RECIPE.with_numerics(micro_batch_size=2).model_dump_json()
    metrics = {"auc": 0.9, "accuracy": 0.75}
    add_trial(study, value=0.9, spent=SPENT, metrics=metrics, recipe=numerics, known_good="quick")
    add_trial(study, TrialState.PRUNED, reason="auc 0.6 after 1 of 2 epochs is <b>behind</b>")
    add_trial(study, TrialState.RUNNING)
    with make_dashboard(study, folder, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield study, f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


def save_predictions(study, folder):
    """Saves predictions of the first trial: of 8 samples, the first and the fifth are wrong."""
    from automl.study.setup import load_setup

    labels = load_setup(study, folder).dataset.samples["label"].to_numpy(np.int64)
    rows = np.flatnonzero(labels == 0)[:4].tolist() + np.flatnonzero(labels == 1)[:4].tolist()
    light = np.array([0.95, 0.2, 0.3, 0.1, 0.4, 0.8, 0.9, 0.7])
    result = FoldResult({}, np.stack([1 - light, light], axis=1), np.array(rows))
    write_predictions(folder.predictions_file(0), [result], labels)


def read(address, method="GET", body=None):
    request = urllib.request.Request(address, method=method, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def read_study(address, study):
    return json.loads(read(f"{address}/api/studies/{study._study_id}?after=0"))


def test_trials_have_names_for_people_and_notes(served):
    study, address, _ = served
    shown = read_study(address, study)
    complete, pruned, running = shown["trials"]
    attributes = {item["key"]: item["value"] for item in complete["user_attrs"]}
    assert attributes == {
        "backbone": BACKBONE, "image size (px)": "32", "micro-batch × accumulation": "2 × 4", "epochs trained": "2.0",
        "epochs planned": "2.0", "images a second": "17.0", "peak GiB": "3.0", "minutes of training": "0.1",
        "known-good recipe": "quick", "accuracy": "0.75",
    }  # fmt: skip
    note = complete["note"]["body"]
    assert note.startswith("**Complete: auc 0.9000.** It trained to its end, and was scored on validation.")
    assert "| cost | 2 of 2 epochs, 4.0s of training steps, 1.0s of validations," in note
    assert "| GPU memory | 3.22GB at most, measured |" in note
    recipe = note.partition("```yaml\n")[2].removesuffix("\n```")
    assert recipe.startswith(f"backbone: {BACKBONE}\n")
    assert "optimizer:\n  name: sgd" in recipe
    assert "dropout" not in recipe
    assert r"It ended because: auc 0.6 after 1 of 2 epochs is \<b\>behind\</b\>." in pruned["note"]["body"]
    assert running["note"]["body"].startswith("**Running: auc 0.6000 so far.**")


def test_the_recipe_of_a_note_is_a_recipe(served):
    study, address, _ = served
    from yaml import safe_load

    text = read_study(address, study)["trials"][1]["note"]["body"].partition("```yaml\n")[2].removesuffix("\n```")
    assert Recipe.from_mapping(safe_load(text)) == RECIPE


def test_the_study_has_no_raw_texts_and_its_metric_has_a_name(served):
    study, address, _ = served
    shown = read_study(address, study)
    assert shown["objective_names"] == ["auc"]
    attributes = {item["key"]: item["value"] for item in shown["user_attrs"]}
    assert attributes["trials ended"] == "2 of 6 trials"
    assert attributes["best"] == "trial 0: 0.9000"
    assert max(map(len, attributes.values())) < 200
    assert "**Best: trial 0, auc 0.9000**" in shown["note"]["body"]


def test_pictures_are_drawn_when_asked_for(served):
    study, address, folder = served
    save_predictions(study, folder)
    pictures = {}
    for trial in read_study(address, study)["trials"]:
        for artifact in trial["artifacts"]:
            content = read(f"{address}/artifacts/{study._study_id}/{trial['trial_id']}/{artifact['artifact_id']}")
            pictures[trial["number"], artifact["filename"]] = content
    assert sorted(pictures) == [
        *((0, name) for name in ("confusion.svg", "curve.svg", "mistakes.csv", "mistakes.jpg", "roc.svg")),
        *[(1, "curve.svg"), (2, "curve.svg")],
    ]
    table = pictures[0, "mistakes.csv"].decode().splitlines()
    assert table[0] == "name,label,predicted,probability"
    assert [line.split(",", 1)[1] for line in table[1:]] == ["dark,light,0.9500", "light,dark,0.6000"]
    assert pictures[0, "mistakes.jpg"].startswith(b"\xff\xd8")
    assert b"Trial 0: 2 of 8 samples predicted wrong" in pictures[0, "confusion.svg"]
    assert b"auc 0.7500; 0.0% of light at a false-positive rate of 0.001" in pictures[0, "roc.svg"]
    assert b"trial 0, the best" in pictures[1, "curve.svg"]


def test_addresses_of_pictures_cannot_be_guessed(served):
    study, address, _ = served
    trial = read_study(address, study)["trials"][1]
    [known] = [artifact["artifact_id"] for artifact in trial["artifacts"]]
    for other in ("0" * 16 + known[16:], known.rpartition("-")[0] + "-" + b"../study.db".hex(), "zz", "abc"):
        with pytest.raises(urllib.error.HTTPError):
            read(f"{address}/artifacts/{study._study_id}/{trial['trial_id']}/{other}")


def test_a_note_of_a_person_is_kept_in_the_study(served):
    study, address, _ = served
    trial = read_study(address, study)["trials"][0]
    body = json.dumps({"version": trial["note"]["version"] + 1, "body": "mine"}).encode()
    read(f"{address}/api/studies/{study._study_id}/{trial['trial_id']}/note", "PUT", body)
    shown = read_study(address, study)
    assert [trial["note"]["body"][:4] for trial in shown["trials"]] == ["mine", "**Pr", "**Ru"]
    kept = study._storage.get_study_system_attrs(study._study_id)
    assert "mine" in kept.values()
    assert not any("**Pr" in str(value) for value in kept.values())  # ours are not written


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/api/studies/{}"), ("POST", "/api/studies/{}/rename"), ("POST", "/api/trials/3/tell"),
     ("POST", "/api/trials/1/user-attrs"), ("DELETE", "/artifacts/{}/1/abc")],
)  # fmt: skip
def test_nothing_else_can_be_changed(served, method, path):
    study, address, _ = served
    before = study.get_trials()
    body = json.dumps({"study_name": "x", "state": "fail", "user_attrs": {"a": 1}}).encode()
    with pytest.raises(urllib.error.HTTPError) as refused:
        read(address + path.format(study._study_id), method, body)
    assert refused.value.code == 403
    assert "only looks" in json.loads(refused.value.read())["reason"]
    assert study.get_trials() == before


def test_a_taken_port_is_a_mistake(served):
    study, address, folder = served
    port = int(address.rpartition(":")[2])
    with pytest.raises(StudyError, match=f"port {port} is taken; give another one with --port"):
        make_dashboard(study, folder, port)


@pytest.mark.slow
def test_a_browser_shows_a_trial_and_fetches_nothing(served, browser):
    study, address, folder = served
    save_predictions(study, folder)
    with browser(f"{address}/dashboard/studies/{study._study_id}/trials?numbers=0") as opened:
        opened.page.wait_for_selector("text=It trained to its end", timeout=60_000)
        opened.page.wait_for_function("document.querySelectorAll('img[src*=artifacts]').length == 4", timeout=60_000)
        opened.page.wait_for_function(
            "[...document.querySelectorAll('img[src*=artifacts]')].every(one => one.complete && one.naturalWidth)",
            timeout=60_000,
        )
        assert opened.errors == []
        assert [url for url in opened.requests if not url.startswith(address)] == []
