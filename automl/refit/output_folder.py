"""The folder that a training writes to: never over something else, and taken up again where it is the same training."""

import json
import shutil
from pathlib import Path
from typing import Any

from automl.errors import WeightsError
from automl.files import write_text
from automl.refit.plan import differences

_RECORD, _FINISHED = "training.json", ("model.safetensors", "ensemble.json")
_MODEL = ("recipe.yaml", "preprocessing.json", "labels.json", "metrics.json", "README.md", "fusion.json")


class Place:
    """An output folder.

    While a training is under way it holds `training.json` (what is trained: only the same training goes on here),
    `checkpoint.pt` and `kept/` (weights for a soup or for early stopping). They are gone when the model is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / "checkpoint.pt"
        self.kept = folder / "kept"

    @property
    def finished(self) -> bool:
        """Whether a whole model is there."""
        return any((self.folder / name).is_file() for name in _FINISHED)

    def check(self, *, overwrite: bool) -> None:
        """Makes sure, before hours of work, that `begin` will not refuse the folder; raises what it would raise."""
        begun = self._record() is not None
        if self.finished and not begun and not overwrite:
            raise self._holds_a_model()
        if not self.finished and not begun:
            self._check_empty()

    def begin(self, record: dict[str, Any], *, overwrite: bool) -> bool:
        """Takes the folder for a training, or finds that it is taken.

        Args:
            record: What makes it this training, as plain data.
            overwrite: Whether a model or training of automl that is there is deleted first.

        Returns:
            Whether this very training was finished, and only its leftovers had to be removed.

        Raises:
            WeightsError: If something else is there, or the folder cannot be written.
        """
        begun = self._record()
        if overwrite and (begun is not None or self.finished):
            self._clear()
            begun = None
        if self.finished:
            if begun is not None and not differences(begun, record):
                self.end()
                return True
            raise self._holds_a_model()
        if begun is not None and (differing := differences(begun, record)):
            raise WeightsError(
                f"{self.folder} holds an unfinished training of something else (it differs in {', '.join(differing)}); "
                "choose another --out, or --overwrite it"
            )
        if begun is None:
            self._check_empty()
        try:
            write_text(self.folder / _RECORD, json.dumps(record, indent=2) + "\n")
        except OSError as exc:
            raise self._cannot_write(exc) from exc
        return False

    def end(self) -> None:
        """Removes what only an unfinished training needs; its record last."""
        self.checkpoint.unlink(missing_ok=True)
        shutil.rmtree(self.kept, ignore_errors=True)
        (self.folder / _RECORD).unlink(missing_ok=True)

    def _check_empty(self) -> None:
        try:
            if self.folder.exists() and any(self.folder.iterdir()):
                raise WeightsError(f"{self.folder} is not empty and holds no model of automl; choose another --out")
        except OSError as exc:
            raise self._cannot_write(exc) from exc

    def _holds_a_model(self) -> WeightsError:
        return WeightsError(f"{self.folder} holds a finished model; choose another --out, or --overwrite it")

    def _cannot_write(self, exc: OSError) -> WeightsError:
        return WeightsError(f"cannot write {self.folder}: {exc.strerror or exc}; choose another --out")

    def _record(self) -> dict[str, Any] | None:
        path = self.folder / _RECORD
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise WeightsError(f"cannot read {path}: {exc}; delete it to begin anew") from exc
        return found if isinstance(found, dict) else {}

    def _clear(self) -> None:
        """Deletes what automl wrote, and nothing else; the weights first, so that no half model looks whole."""
        for name in (*_FINISHED, *_MODEL):
            (self.folder / name).unlink(missing_ok=True)
        self.end()
        for part in self.folder.iterdir():  # the members of an ensemble
            if any((part / name).is_file() for name in (_RECORD, *_FINISHED)):
                Place(part)._clear()
                if not any(part.iterdir()):
                    part.rmdir()
