"""Predictions of a trained model: a DataFrame for a notebook, a CSV file for a competition."""

import csv
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.data.layouts.text_table import TABLES
from automl.devices import find_devices
from automl.errors import DataError, shorten
from automl.files import explain_write_errors, write_atomically
from automl.media.kinds import Medium
from automl.models.combine import Combiner, average_members, read_combiner
from automl.models.folder import Labels, ModelFolder, read_members
from automl.models.inputs import Inputs, Item, open_inputs
from automl.models.scorer import Member, Scorer, list_media
from automl.recipe import Recipe
from automl.reporter import Reporter
from automl.units import format_count

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 5  # unreadable files that are named


@dataclass(frozen=True)
class Predicted:
    """The file that `predict` wrote."""

    path: Path
    columns: tuple[str, ...]
    rows: int
    unreadable: int
    """Rows that hold the training prior."""


class Model:
    """A trained model, or an ensemble of them, ready to predict.

    Example:
        import automl

        model = automl.load("models/ffdi")
        table = model.predict("ffdi/testset")              # a folder, a label file, one image or a list of them
        table.sort_values("y_pred", ascending=False).head()
        model.predict(["a.jpg", "b.jpg"], tta="flip")
    """

    def __init__(self, path: Path, members: Sequence[Member], combine: Combiner | None = None) -> None:
        """Takes what `load` reads; `combine` makes one score of the members' (None: their weighted mean)."""
        self.path, self.members = path, tuple(members)
        weights = np.array([member.weight for member in members])
        self.combine: Combiner = combine or partial(average_members, weights=weights)

    def __repr__(self) -> str:
        backbones = ", ".join(member.folder.recipe.backbone for member in self.members)
        return f"Model({str(self.path)!r}: {backbones}; classes {', '.join(self.classes)})"

    @property
    def labels(self) -> Labels:
        """What the outputs mean."""
        return self._first.labels

    @property
    def media(self) -> tuple[Medium, ...]:
        """The kinds of files it looks at: of a video, a model of sound looks at the sound."""
        return list_media(member.folder.recipe.view for member in self.members)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return self.labels.classes

    @property
    def recipe(self) -> Recipe:
        """How it was trained; of an ensemble, the member that counts most."""
        return self._first.recipe

    @property
    def metrics(self) -> dict[str, Any]:
        """What it scored when it was trained; of an ensemble, by the names of its members' folders."""
        if len(self.members) == 1:
            return self._first.metrics
        return {member.folder.path.name: member.folder.metrics for member in self.members}

    def predict(
        self, paths: str | Path | Iterable[str | Path], *, tta: str = "none", batch_size: int | None = None
    ) -> "pd.DataFrame":
        """Predicts images, or clips where that is what the model looks at.

        Args:
            paths: A folder (all such files below it), a label file, one file, or any number of files.
            tta: Test-time augmentation: none, flip or 5crop (`automl.models.tta`).
            batch_size: Images in a forward pass, at most; None: what fits.

        Returns:
            One row per file, in order: `path`; one column per class, named as it, with its probability; and for two
            classes `y_pred`, the probability of the positive one. A file that cannot be read has the training
            prior, and a warning names it.

        Raises:
            DataError: If there is nothing to predict.
            SpecError: If an argument has no meaning.
        """
        import pandas as pd

        scorer = self.make_scorer(tta, batch_size)
        table, unreadable = [], []
        for score in scorer.score_files(_list_items(paths, self.labels, self.media)):
            table.append([score.item.path or score.item.name, *score.probabilities.tolist()])
            if score.problem:
                unreadable.append(f"{score.item.name} ({score.problem})")
        if unreadable:
            shown = shorten(unreadable, _SHOWN, "; ")
            warnings.warn(f"{_count_unreadable(len(unreadable), len(table))}: {shown}", stacklevel=2)
        frame = pd.DataFrame(table, columns=["path", *self.classes])
        if len(self.classes) == 2:
            frame["y_pred"] = frame[self.classes[self.labels.positive]]
        return frame

    def make_scorer(self, tta: str = "none", batch_size: int | None = None) -> Scorer:
        """Makes what scores a stream of files; arguments as in `predict`."""
        return Scorer(self.members, self.combine, tta, batch_size)

    @property
    def _first(self) -> ModelFolder:
        return max(self.members, key=lambda member: member.weight).folder


def load(path: str | Path, device: str = "auto", weights_dir: str | Path | None = None) -> Model:
    """Loads what `automl train` wrote: a model folder, or an ensemble of them.

    Args:
        path: The folder.
        device: auto (a GPU where there is one), cpu, cuda or cuda:N.
        weights_dir: Where the pretrained weights are of a model that holds what was trained alone; None: in the hub's
            cache, or on the hub.

    Raises:
        WeightsError: If it is no model folder, or damaged, or its pretrained weights are out of reach; a pickle is
            refused.
        StudyError: If there is no such device.
    """
    folder = Path(path).expanduser()
    where = Path(weights_dir).expanduser() if weights_dir is not None else None
    folders, chosen = read_members(folder, where), find_devices(device)[0]
    members = [Member(member, weight, chosen) for member, weight in folders]
    return Model(folder, members, read_combiner(folder, [member.folder for member in members]))


def predict(
    model: Model,
    data: Path,
    out: Path,
    *,
    tta: str = "none",
    batch_size: int | None = None,
    column: str | None = None,
    file_column: str | None = None,
    reporter: Reporter,
) -> Predicted:
    """Predicts a folder or the rows of a label file into a CSV file, in bounded memory.

    With two classes it has the file column and the probability of the positive class, else one column per class.
    `column` is the name of the prediction's column (None: the sample submission's, or `y_pred`); `data` and
    `file_column` are as in `automl.models.inputs.open_inputs`, the rest as in `Model.predict`. The file appears when it
    is complete.
    """
    scorer = model.make_scorer(tta, batch_size)
    _check_out(data, out)
    with open_inputs(data, model.labels, file_column, model.media) as inputs:
        columns = _name_columns(model, inputs, column)
        for line in inputs.notes:
            reporter.print_line(f"note: {line}")
        for problem in inputs.problems:
            reporter.print_line(f"warning: {problem}")
        reporter.print_line(f"predicting {format_count(len(inputs), 'row')} of {inputs.source} with {model!r}")
        with (
            explain_write_errors(out, DataError),
            write_atomically(out) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as handle,
            reporter.show_progress("predicting") as progress,
        ):
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(columns)
            only = model.labels.positive if len(model.classes) == 2 else None
            unreadable = 0
            for done, score in enumerate(scorer.score_files(inputs), start=1):
                chosen = score.probabilities if only is None else score.probabilities[only : only + 1]
                writer.writerow([score.item.name, *chosen.tolist()])
                unreadable += bool(score.problem)
                if score.problem and unreadable <= _SHOWN:
                    reporter.print_line(f"warning: gets the training prior: {score.item.name} ({score.problem})")
                progress(done, len(inputs))
    if unreadable:
        reporter.print_line(f"warning: {_count_unreadable(unreadable, len(inputs))}")
    return Predicted(out, columns, len(inputs), unreadable)


def _list_items(paths: str | Path | Iterable[str | Path], labels: Labels, media: tuple[Medium, ...]) -> Iterator[Item]:
    """Yields what a notebook asks for."""
    if isinstance(paths, str | Path):
        path = Path(paths).expanduser()
        if path.is_dir() or path.suffix.lower() in TABLES:
            with open_inputs(path, labels, media=media) as inputs:
                for problem in inputs.problems:
                    warnings.warn(problem, stacklevel=2)
                yield from inputs
            return
        paths = [paths]
    for one in paths:
        yield Item(str(one), str(Path(one).expanduser()))


def _name_columns(model: Model, inputs: Inputs, column: str | None) -> tuple[str, ...]:
    """Chooses the header of the CSV file."""
    two = len(model.classes) == 2
    if column and not two:
        raise DataError(
            f"--column names the one column of two classes; this model has {len(model.classes)}, with a column each"
        )
    columns = (inputs.file_column, *([column or inputs.prediction_column] if two else model.classes))
    if len(set(columns)) < len(columns):
        raise DataError(f"two columns would be called {columns[0]!r}; give another name with --column or --file-column")
    return columns


def _check_out(data: Path, out: Path) -> None:
    """Refuses, before the work, an output path that cannot be written or would overwrite the input."""
    if out.is_dir():
        raise DataError(f"{out} is a folder; --out names the CSV file to write, such as {out / 'submission.csv'}")
    if data.is_file() and out.exists() and os.path.samefile(data, out):  # noqa: PTH121
        raise DataError(f"--out {out} is the file that names what to predict; give another name")


def _count_unreadable(unreadable: int, rows: int) -> str:
    """Writes how many files have no prediction of their own."""
    return f"{unreadable} of {rows} files cannot be read, or show nothing, and have the training prior as prediction"
