"""What an evaluation writes: `metrics.json`, `predictions.csv` and `index.html`, in a folder of their own."""

import json
from dataclasses import replace
from pathlib import Path

from automl.errors import DataError
from automl.evaluation.evaluation import Evaluation
from automl.evaluation.page import render_page
from automl.files import explain_write_errors, write_atomically, write_text

METRICS_FILE, PREDICTIONS_FILE, PAGE_FILE = "metrics.json", "predictions.csv", "index.html"


def check_folder(folder: Path, *, overwrite: bool) -> Path:
    """Makes sure, before the work, that a folder may be written to, and returns it.

    Raises:
        DataError: If it is a file, holds an evaluation that may not be replaced, or holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"cannot write into {folder}: it is a file; name another folder with --out")
    with explain_write_errors(folder, DataError):
        there = [path.name for path in folder.iterdir()] if folder.exists() else []
    if PREDICTIONS_FILE in there:  # not by metrics.json, which a model folder has as well
        if not overwrite:
            raise DataError(f"{folder} holds an evaluation; choose another --out, or --overwrite it")
    elif there:
        raise DataError(f"{folder} is not empty and holds no evaluation; choose another --out")
    return folder


def write_report(evaluation: Evaluation, folder: Path) -> Evaluation:
    """Writes the three files, and returns the evaluation with its folder."""
    page = render_page(evaluation)
    text = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    with explain_write_errors(folder, DataError):
        with write_atomically(folder / PREDICTIONS_FILE) as temporary:
            evaluation.predictions.to_csv(temporary, index=False, lineterminator="\n")
        write_text(folder / METRICS_FILE, f"{text}\n")
        write_text(folder / PAGE_FILE, page)
    return replace(evaluation, folder=folder)
