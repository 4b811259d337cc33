"""The pictures of a trial, drawn when somebody looks: learning curve, ROC curve, confusion matrix, worst mistakes.

All but the curve are of the samples that the trial was validated on, from the predictions that a complete trial keeps.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState
from PIL import Image, ImageDraw, ImageFont

from automl.dashboard.charts import Line, draw_confusion, draw_lines
from automl.errors import DataError
from automl.media.decoding import decode_files
from automl.pages.thumbnails import encode_thumbnail
from automl.study.folder import StudyFolder
from automl.study.setup import StudySetup
from automl.study.trial_record import read_trial_record
from automl.study.validation import read_predictions
from automl.training.metrics import compute_metric
from automl.training.schedule import EIGHTHS
from automl.units import format_count

_CLASSES_SHOWN = 20
_MISTAKES_SHOWN, _COLUMNS = 12, 4
_LISTED = 200  # rows of the table of mistakes
_SIDE, _TEXT, _GAP = 160, 34, 10  # pixels of the sheet of mistakes
_PAPER, _INK = "#FFFFFF", "#222222"


@dataclass(frozen=True)
class Predicted:
    """What a trial predicted of the samples that it was validated on.

    Attributes:
        rows: (N,) int64: which samples of the study they are.
        labels: (N,) int64.
        probabilities: (N, C) float64.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each sample, (N,)."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    def list_mistakes(self) -> NDArray[np.int64]:
        """Lists the positions of the samples predicted wrong, the most confident first, (M,) int64."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        confidence = self.probabilities[wrong].max(axis=1)
        return wrong[np.argsort(-confidence, kind="stable")].astype(np.int64)


@dataclass(frozen=True)
class Pictures:
    """Draws the pictures of the trials of one study."""

    setup: StudySetup
    folder: StudyFolder

    def list_names(self, trial: FrozenTrial) -> list[str]:
        """Lists the file names of the pictures that a trial has; nothing is drawn yet."""
        names = ["curve.svg"] if trial.intermediate_values else []
        if trial.state != TrialState.COMPLETE or not self.folder.predictions_file(trial.number).exists():
            return names
        classes = len(self.setup.dataset.classes)
        names += ["roc.svg"] if classes == 2 else []
        names += ["confusion.svg"] if classes <= _CLASSES_SHOWN else []
        names += ["mistakes.jpg"] if self.setup.dataset.media == "image" else []
        return [*names, "mistakes.csv"]

    def draw(self, name: str, trial: FrozenTrial, best: FrozenTrial | None) -> bytes:
        """Draws one of a trial's pictures; `best` is the study's best trial, which curves are compared with.

        Raises:
            StudyError: If the trial's predictions cannot be read.
        """
        if name == "curve.svg":
            return self._draw_curve(trial, best).encode()
        samples, classes = self.setup.dataset.samples, len(self.setup.dataset.classes)
        rows, probabilities = read_predictions(self.folder.predictions_file(trial.number), len(samples), classes)
        of_trial = Predicted(rows, samples["label"].to_numpy(np.int64)[rows], probabilities)
        if name == "roc.svg":
            return self._draw_roc(trial, of_trial).encode()
        if name == "confusion.svg":
            return self._draw_confusion(trial, of_trial).encode()
        return self._draw_mistakes(of_trial) if name == "mistakes.jpg" else self._list_mistakes(of_trial).encode()

    def _draw_curve(self, trial: FrozenTrial, best: FrozenTrial | None) -> str:
        shown = [trial, *([best] if best is not None and best.number != trial.number else [])]
        lines = []
        for one in shown:
            steps = sorted(step for step in one.intermediate_values if step <= EIGHTHS)
            epochs = read_trial_record(one).epochs or 1.0
            name = f"trial {one.number}" + (", the best" if one is best else "")
            if steps:
                x = [epochs * step / EIGHTHS for step in steps]
                lines.append(Line(name, x, [one.intermediate_values[step] for step in steps], marked=True))
        title = f"Trial {trial.number}: {self.setup.metric} at each validation"
        return draw_lines(title, "epochs", self.setup.metric, lines)

    def _draw_roc(self, trial: FrozenTrial, of_trial: Predicted) -> str:
        from sklearn.metrics import roc_curve

        positive = self.setup.dataset.positive
        truth, scores = of_trial.labels == positive, of_trial.probabilities[:, positive]
        fpr, tpr, _ = roc_curve(truth, scores)
        # a logarithm has no 0: the first point is half a false positive
        fpr = np.maximum(fpr, 0.5 / max(1, int((~truth).sum())))
        labels, name = of_trial.labels, self.setup.dataset.classes[positive]
        auc = compute_metric("auc", labels, of_trial.probabilities, positive)
        rate = compute_metric("tpr_at_fpr", labels, of_trial.probabilities, positive)
        title = f"Trial {trial.number}: auc {auc:.4f}; {rate:.1%} of {name} at a false-positive rate of 0.001"
        line = Line(format_count(len(labels), "sample"), fpr.tolist(), tpr.tolist())
        return draw_lines(title, "false-positive rate", "true-positive rate", [line], x_log=True, y_shares=True)

    def _draw_confusion(self, trial: FrozenTrial, of_trial: Predicted) -> str:
        classes = self.setup.dataset.classes
        counts = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(counts, (of_trial.labels, of_trial.predicted), 1)
        wrong = int(counts.sum() - np.trace(counts))
        title = f"Trial {trial.number}: {wrong} of {format_count(int(counts.sum()), 'sample')} predicted wrong"
        return draw_confusion(title, classes, counts)

    def _draw_mistakes(self, of_trial: Predicted) -> bytes:
        """Draws the samples predicted wrong with the most confidence on one sheet, a JPEG."""
        shown = of_trial.list_mistakes()[:_MISTAKES_SHOWN]
        paths = [Path(path) for path in self.setup.dataset.samples["path"].iloc[of_trial.rows[shown]]]
        total = len(of_trial.list_mistakes())
        title = f"The {len(shown)} most confident of {format_count(total, 'mistake')}" if total else "No mistakes"
        lines = -(-len(shown) // _COLUMNS)
        width, height = _GAP + _COLUMNS * (_SIDE + _GAP), 40 + lines * (_SIDE + _TEXT + _GAP)
        sheet, font = Image.new("RGB", (width, height), _PAPER), ImageFont.load_default(14)
        draw = ImageDraw.Draw(sheet)
        draw.text((_GAP, 10), title, _INK, ImageFont.load_default(16))
        decoded = decode_files(encode_thumbnail, paths, _MISTAKES_SHOWN)
        for number, (position, data) in enumerate(zip(shown, decoded, strict=True)):
            left = _GAP + number % _COLUMNS * (_SIDE + _GAP)
            top = 40 + number // _COLUMNS * (_SIDE + _TEXT + _GAP)
            if isinstance(data, DataError):
                draw.text((left, top), "cannot be read", _INK, font)
            else:
                picture = Image.open(io.BytesIO(data))  # our own JPEG, at most 160 pixels wide and high
                sheet.paste(picture, (left + (_SIDE - picture.width) // 2, top + (_SIDE - picture.height) // 2))
            for line, text in enumerate(self._describe_mistake(of_trial, int(position))):
                draw.text((left, top + _SIDE + 2 + line * 16), text, _INK, font)
        out = io.BytesIO()
        sheet.save(out, format="JPEG", quality=85)
        return out.getvalue()

    def _describe_mistake(self, of_trial: Predicted, position: int) -> Iterator[str]:
        """Yields the two lines below a sample: what it is, and what it was taken for."""
        classes, predicted = self.setup.dataset.classes, of_trial.predicted[position]
        yield f"is {classes[of_trial.labels[position]]}"[:24]
        yield f"{of_trial.probabilities[position, predicted]:.3f} {classes[predicted]}"[:24]

    def _list_mistakes(self, of_trial: Predicted) -> str:
        """Writes the samples predicted wrong as CSV, the most confident first."""
        out, classes = io.StringIO(), self.setup.dataset.classes
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["name", "label", "predicted", "probability"])
        names = self.setup.dataset.samples["name"].to_numpy()
        for position in of_trial.list_mistakes()[:_LISTED]:
            label, predicted = of_trial.labels[position], of_trial.predicted[position]
            probability = f"{of_trial.probabilities[position, predicted]:.4f}"
            table.writerow([names[of_trial.rows[position]], classes[label], classes[predicted], probability])
        return out.getvalue()
