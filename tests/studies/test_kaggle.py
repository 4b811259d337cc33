"""The notebook for a competitor runs from the data to the submission, and is committed without outputs."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell
from PIL import Image

from automl import StudySpec
from automl.data.demo import PHOTOS, make_patch

NOTEBOOK = Path(__file__).parents[2] / "studies" / "kaggle" / "ffdi.ipynb"
T4_BYTES = 15_360 * 2**20
T4_DRIVER_BYTES = 480 * 10**6  # what it keeps for itself: torch sees 14.56 to 14.74 GiB
SESSION_HOURS = 9
SETS = {"trainset": 24, "valset": 8, "testset": 6}  # images
SCRATCH_SEARCH = ["--pretrained", "never", "--backbones", "test_resnet.*", "--pool-size", "1", "--space", "demo"]


def read_notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def settings_cell(notebook):
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return cell


def settings_of(notebook):
    values = {}
    exec(settings_cell(notebook).source, values)
    return {name: value for name, value in values.items() if name.isupper()}


def write_ffdi(folder):
    """Patches of photographs in the FFDI layout: every other one is forged."""
    rng = np.random.default_rng(0)
    photos = [photo.read_image() for photo in PHOTOS[:3]]
    for name, count in SETS.items():
        (folder / name).mkdir(parents=True)
        rows = ["img_name,target"]
        for number in range(count):
            patch = make_patch(photos[number // 2 % len(photos)], ("real", "generated")[number % 2], rng)
            Image.fromarray(patch).save(folder / name / f"{number:03d}.png")
            rows.append(f"{number:03d}.png,{number % 2}")
        if name != "testset":
            (folder / f"{name}_label.txt").write_text("\n".join(rows) + "\n")
    return folder


def small_settings(folder):
    return {
        "DATA": str(folder / "ffdi"),
        "WEIGHTS": None,
        "PACKAGE": "",
        "EARLIER": None,
        "WORK": str(folder / "work"),
        "SCRATCH": str(folder / "scratch"),
        "STUDY": "ffdi",
        "DEVICE": "cpu",
        "GPU_MEM": "15GB",
        "IMAGES": 20,
        "TRIALS": 2,
        "SEARCH_TIME": "20m",
        "TRIAL_TIME": "1m",
        "CONFIRM_TIME": "20m",
        "TTA": "flip",
        "SEARCH_FLAGS": SCRATCH_SEARCH,
        "CONFIRM_FLAGS": ["--top", "1", "--seeds", "1"],
    }


def with_settings(values):
    """The notebook with other settings: all of them, so that one which is renamed fails here."""
    notebook = read_notebook()
    assert values.keys() == settings_of(notebook).keys()
    settings_cell(notebook).source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    return notebook


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """Jupyter's own files lie elsewhere than in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable.lower())))
        yield


def cell_of(notebook, name):
    (cell,) = [cell for cell in notebook.cells if cell.id == name]
    return cell


@pytest.fixture(scope="module")
def executed(jupyter, tmp_path_factory):
    """The notebook, executed, and the folder it worked in; at its end, another session whose settings differ."""
    folder = tmp_path_factory.mktemp("kaggle")
    write_ffdi(folder / "ffdi")
    (folder / "work").mkdir()
    (folder / "later").mkdir()
    notebook = with_settings(small_settings(folder))
    later = f"EARLIER, WORK, SEARCH_FLAGS = WORK, {str(folder / 'later')!r}, [*SEARCH_FLAGS, '--seed', '1']"
    notebook.cells.append(new_code_cell(f"{later}\n{cell_of(notebook, 'search').source}", id="later"))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    with pytest.raises(CellExecutionError):
        client.execute()
    (failed,) = [
        cell.id for cell in notebook.cells if any(out.output_type == "error" for out in cell.get("outputs", []))
    ]
    assert failed == "later", printed(notebook, failed)
    return notebook, folder


def printed(notebook, name):
    outputs = cell_of(notebook, name).outputs
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def shown(notebook, name, kind):
    """What a cell displays of one kind."""
    return [output.data[kind] for output in cell_of(notebook, name).outputs if kind in output.get("data", {})]


def test_committed_notebook_is_clean():
    notebook = read_notebook()
    nbformat.validate(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert cell.get("execution_count") is None, cell.id
        assert not cell.get("outputs"), cell.id


def test_settings_fit_two_t4_and_a_session():
    values = settings_of(read_notebook())

    def spec(timeout):
        budget = {"gpu_mem": values["GPU_MEM"], "timeout": timeout, "trial_time": values["TRIAL_TIME"]}
        return StudySpec.load("ffdi", {"data": {"path": values["DATA"]}, "budget": budget}).budget

    search, confirmation = spec(values["SEARCH_TIME"]), spec(values["CONFIRM_TIME"])
    assert search.gpu_mem <= T4_BYTES - T4_DRIVER_BYTES
    shipped = {StudySpec.load(name, {"data": {"path": values["DATA"]}}).budget.gpu_mem for name in ("ffdi", "ffdv")}
    assert shipped == {search.gpu_mem}
    # The final training has a third more images than a trial; half an hour to install, to decode and to predict.
    hours = (search.timeout + confirmation.timeout + search.trial_time * 4 / 3) / 3600 + 0.5
    assert hours <= SESSION_HOURS - 0.5


@pytest.mark.slow
def test_submission_has_a_probability_for_each_test_image(executed):
    _, folder = executed
    submission = pd.read_csv(folder / "work" / "submission.csv")
    assert list(submission.columns) == ["img_name", "y_pred"]
    assert submission["img_name"].tolist() == [f"{number:03d}.png" for number in range(SETS["testset"])]
    assert submission["y_pred"].between(0, 1).all()
    assert submission["y_pred"].nunique() == SETS["testset"]


@pytest.mark.slow
def test_every_step_did_its_work(executed):
    notebook, folder = executed
    work = folder / "work"
    study = work / "runs" / "ffdi"
    assert pd.read_csv(study / "samples.csv")["split"].value_counts().to_dict() == {
        "train": 18,  # of 20 (IMAGES), less the holdout
        "validation": 4,
        "holdout": 2,
    }
    states = pd.read_csv(study / "trials.csv")["state"].tolist()
    assert states[0] == "complete"
    assert states[1] in ("complete", "pruned")
    assert (study / "confirmed.yaml").is_file()
    assert (work / "models" / "ffdi" / "model.safetensors").is_file()
    assert f"submission.csv is fine: {SETS['testset']} rows" in printed(notebook, "check")
    assert printed(notebook, "extremes").split("\n") == ["most real", "most doubtful", "most fake", ""]


@pytest.mark.slow
def test_progress_is_readable_in_a_notebook(executed):
    notebook, _ = executed
    progress = printed(notebook, "search")
    assert re.search("trial 1 (complete|pruned)", progress)
    assert "\x1b" not in progress  # no control characters of a live table
    assert "\r" not in progress


@pytest.mark.slow
def test_pictures_and_figures_are_shown(executed):
    notebook, _ = executed
    assert len(shown(notebook, "images", "image/png")) == 2
    assert len(shown(notebook, "extremes", "image/png")) == 3
    (figure,) = shown(notebook, "figure", "application/vnd.plotly.v1+json")
    names = [trace["name"] for trace in figure["data"]]
    assert (names[0], names[-1]) == ("complete", "best so far")
    (histogram,) = shown(notebook, "check", "application/vnd.plotly.v1+json")
    assert histogram["data"][0]["type"] == "histogram"


@pytest.mark.slow
def test_another_session_finds_the_study_and_an_error_stops_the_notebook(executed):
    notebook, folder = executed
    assert (folder / "later" / "runs" / "ffdi" / "best.yaml").is_file()
    assert "seed" in printed(notebook, "later").partition("Error: ")[2]
    error = cell_of(notebook, "later").outputs[-1]
    assert error.ename == "RuntimeError"
    assert error.evalue == "automl search ended with code 2; its last lines say why"
