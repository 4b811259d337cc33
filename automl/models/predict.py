"""Predictions of a trained model: a DataFrame for a notebook, a CSV file for a competition."""

import csv
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.data.layouts.text_table import TABLES
from automl.errors import DataError
from automl.files import write_atomically
from automl.media.kinds import Medium
from automl.models.folder import Labels, ModelFolder, read_members
from automl.models.fused import join_of
from automl.models.inputs import Inputs, Item, open_inputs
from automl.models.scorer import Join, Member, Score, Scorer, media_of
from automl.recipe import Recipe
from automl.reporter import Reporter

if TYPE_CHECKING:
    import pandas as pd

_NAMED = 5  # unreadable files that are named


@dataclass(frozen=True)
class Predicted:
    """What `predict` wrote."""

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

    def __init__(self, path: Path, members: Sequence[Member], join: Join | None = None) -> None:
        """`load` makes one."""
        self.path, self._members, self._join = path, tuple(members), join

    def __repr__(self) -> str:
        backbones = ", ".join(member.folder.recipe.backbone for member in self._members)
        return f"Model({str(self.path)!r}: {backbones}; classes {', '.join(self.classes)})"

    @property
    def labels(self) -> Labels:
        """What the outputs mean."""
        return self._first.labels

    @property
    def media(self) -> tuple[Medium, ...]:
        """The kinds of files it looks at: of a video, a model of sound looks at the sound."""
        return media_of(member.folder.recipe.view for member in self._members)

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
        if len(self._members) == 1:
            return self._first.metrics
        return {member.folder.path.name: member.folder.metrics for member in self._members}

    def predict(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        tta: str = "none",
        batch_size: int | None = None,
    ) -> "pd.DataFrame":
        """Predicts images, or clips where that is what the model looks at.

        Args:
            paths: A folder (all such files below it), a label file, one file, or any number of files.
            tta: Test-time augmentation: none, flip or 5crop (`automl.models.tta`).
            batch_size: Images in a forward pass, at most; None: what fits.

        Returns:
            One row per file, in order: `path`; one column per class, named as it, with its probability; and for two
            classes `y_pred`, the probability of the positive one. A file that cannot be read has the training
            prior, and a warning tells of it.

        Raises:
            DataError: If there is nothing to predict.
            SpecError: If an argument cannot be.
        """
        import pandas as pd

        scorer = self.scorer(tta, batch_size)
        table, unreadable = [], []
        for score in scorer.score(_items(paths, self.labels, self.media)):
            table.append([score.item.path or score.item.name, *score.probabilities.tolist()])
            if score.problem:
                unreadable.append(_told(score))
        if unreadable:
            shown = "; ".join(unreadable[:_NAMED]) + (" …" if len(unreadable) > _NAMED else "")
            warnings.warn(f"{_prior_given(len(unreadable), len(table))}: {shown}", stacklevel=2)
        frame = pd.DataFrame(table, columns=["path", *self.classes])
        if len(self.classes) == 2:
            frame["y_pred"] = frame[self.classes[self.labels.positive]]
        return frame

    def scorer(self, tta: str = "none", batch_size: int | None = None) -> Scorer:
        """What scores a stream of files; arguments as in `predict`."""
        return Scorer(self._members, tta, batch_size, self._join)

    @property
    def _first(self) -> ModelFolder:
        return max(self._members, key=lambda member: member.weight).folder


def load(path: str | Path, device: str = "auto") -> Model:
    """Loads what `automl train` wrote: a model folder, or an ensemble of them.

    Args:
        path: The folder.
        device: auto (a GPU where there is one), cpu, cuda or cuda:N.

    Raises:
        WeightsError: If it is no model folder, or damaged; a pickle is refused.
        StudyError: If there is no such device.
    """
    from automl.devices import find_devices

    folder = Path(path).expanduser()
    found = read_members(folder)
    wanted = find_devices(device)[0]
    members = [Member(member, weight, wanted) for member, weight in found]
    return Model(folder, members, join_of(folder, members))


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
    The file appears when it is complete.

    Args:
        model: From `load`.
        data: As in `export.inputs.open_inputs`.
        out: The CSV file to write.
        tta: Test-time augmentation: none, flip or 5crop.
        batch_size: Images in a forward pass, at most; None: what fits.
        column: Name of the prediction's column; None: the sample submission's, or `y_pred`.
        file_column: As in `open_inputs`.
        reporter: Is told what is done.

    Raises:
        DataError: If there is nothing to predict, or the file cannot be written there.
        SpecError: If a flag cannot be.
        OSError: If the disk is full.
    """
    scorer = model.scorer(tta, batch_size)
    _check_out(data, out)
    with open_inputs(data, model.labels, file_column, model.media) as inputs:
        columns = _columns(model, inputs, column)
        for line in inputs.told:
            reporter.print_line(f"note: {line}")
        for problem in inputs.problems:
            reporter.print_line(f"warning: {problem}")
        reporter.print_line(f"predicting {len(inputs)} rows of {inputs.source} with {model!r}")
        with _writing(out) as writer, reporter.show_progress("predicting") as progress:
            writer.writerow(columns)
            only = model.labels.positive if len(model.classes) == 2 else None
            unreadable = 0
            for done, score in enumerate(scorer.score(inputs), start=1):
                chosen = score.probabilities if only is None else score.probabilities[only : only + 1]
                writer.writerow([score.item.name, *chosen.tolist()])
                unreadable += bool(score.problem)
                if score.problem and unreadable <= _NAMED:
                    reporter.print_line(f"warning: gets the training prior: {_told(score)}")
                progress(done, len(inputs))
    if unreadable:
        reporter.print_line(f"warning: {_prior_given(unreadable, len(inputs))}")
    return Predicted(out, columns, len(inputs), unreadable)


def _items(paths: str | Path | Iterable[str | Path], labels: Labels, media: tuple[Medium, ...]) -> Iterator[Item]:
    """Lists what a notebook asks for."""
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


def _columns(model: Model, inputs: Inputs, column: str | None) -> tuple[str, ...]:
    """The header of the CSV file."""
    if len(model.classes) == 2:
        columns: tuple[str, ...] = (inputs.file_column, column or inputs.prediction_column)
    elif column:
        raise DataError(
            f"--column names the one column of two classes; this model has {len(model.classes)}, with a column each"
        )
    else:
        columns = (inputs.file_column, *model.classes)
    if len(set(columns)) < len(columns):
        raise DataError(f"two columns would be called {columns[0]!r}; give another name with --column or --file-column")
    return columns


def _check_out(data: Path, out: Path) -> None:
    """Refuses, before the work, a place where nothing can be written or something would be lost."""
    if out.is_dir():
        raise DataError(f"{out} is a folder; --out names the CSV file to write, such as {out / 'submission.csv'}")
    if data.is_file() and out.exists() and os.path.samefile(data, out):  # noqa: PTH121
        raise DataError(f"--out {out} is the file that names what to predict; give another name")


@contextmanager
def _writing(out: Path) -> Iterator[Any]:
    """Yields a csv writer for a file that appears when the block ends well."""
    try:
        with write_atomically(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
            yield csv.writer(handle, lineterminator="\n")
    except OSError as exc:
        if exc.errno in (28, 122):  # no space, no quota: the command line says it for every command
            raise OSError(exc.errno, exc.strerror, str(out)) from exc
        raise DataError(f"cannot write {out}: {exc.strerror or exc}") from exc


def _told(score: Score) -> str:
    return f"{score.item.name} ({score.problem})"


def _prior_given(unreadable: int, rows: int) -> str:
    return f"{unreadable} of {rows} files cannot be read, or show nothing, and have the training prior as prediction"
