"""The folder that a training writes to: never over something else, and continued where it is the same training."""

import json
import shutil
from pathlib import Path
from typing import Any

from automl.errors import WeightsError
from automl.files import explain_write_errors, write_text
from automl.models.trained_on import TRAINED_ON_FILE

_RECORD, _FINISHED = "training.json", ("model.safetensors", "ensemble.json")
_MODEL = (
    *("recipe.yaml", "preprocessing.json", "labels.json", "metrics.json", "validation.json", "README.md"),
    *("fusion.json", TRAINED_ON_FILE),
)


class OutputFolder:
    """An output folder.

    While a training is under way it holds `training.json` (what is trained: only the same training goes on here),
    `checkpoint.pt` and `kept/` (weights for a mean or for early stopping). They are gone when the model is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / "checkpoint.pt"
        self.kept = folder / "kept"

    @property
    def finished(self) -> bool:
        """Whether a whole model is there."""
        return any((self.folder / name).is_file() for name in _FINISHED)

    def check_free(self, *, overwrite: bool) -> None:
        """Makes sure, before hours of work, that `start_training` will take the folder; raises what it would raise."""
        unfinished = self._read_record() is not None
        if self.finished and not unfinished and not overwrite:
            raise self._holds_model()
        if not self.finished and not unfinished:
            self._check_empty()

    def start_training(self, record: dict[str, Any], *, overwrite: bool) -> bool:
        """Takes the folder for a training, given what makes it this training, as plain data.

        Returns:
            Whether this very training was finished before, and only its leftovers had to be removed.

        Raises:
            WeightsError: If something else is there, or the folder cannot be written.
        """
        earlier = self._read_record()
        if overwrite and (earlier is not None or self.finished):
            self._delete_model()
            earlier = None
        differing = [] if earlier is None else find_differences(earlier, record)
        if self.finished:
            if earlier is None or differing:
                raise self._holds_model()
            self.end_training()
            return True
        if differing:
            raise WeightsError(
                f"{self.folder} holds an unfinished training of something else (it differs in {', '.join(differing)}); "
                "choose another --out, or --overwrite it"
            )
        if earlier is None:
            self._check_empty()
        with explain_write_errors(self.folder, WeightsError):
            write_text(self.folder / _RECORD, json.dumps(record, indent=2) + "\n")
        return False

    def end_training(self) -> None:
        """Removes what only an unfinished training needs; its record last."""
        self.checkpoint.unlink(missing_ok=True)
        shutil.rmtree(self.kept, ignore_errors=True)
        (self.folder / _RECORD).unlink(missing_ok=True)

    def _check_empty(self) -> None:
        with explain_write_errors(self.folder, WeightsError):
            if self.folder.exists() and any(self.folder.iterdir()):
                raise WeightsError(f"{self.folder} is not empty and holds no model of automl; choose another --out")

    def _holds_model(self) -> WeightsError:
        return WeightsError(f"{self.folder} holds a finished model; choose another --out, or --overwrite it")

    def _read_record(self) -> dict[str, Any] | None:
        path = self.folder / _RECORD
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise WeightsError(f"cannot read {path}: {exc}; delete it to begin anew") from exc
        return record if isinstance(record, dict) else {}

    def _delete_model(self) -> None:
        """Deletes what automl wrote, and nothing else; the weights first, so that no half model looks whole."""
        for name in (*_FINISHED, *_MODEL):
            (self.folder / name).unlink(missing_ok=True)
        self.end_training()
        for part in self.folder.iterdir():  # the members of an ensemble
            if any((part / name).is_file() for name in (_RECORD, *_FINISHED)):
                OutputFolder(part)._delete_model()
                if not any(part.iterdir()):
                    part.rmdir()


def find_differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Lists what differs between two records of trainings, recipes key by key, but for the micro-batch.

    A memory budget decides the micro-batch; a training may go on within another one.
    """

    def drop_micro_batch(values: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key != "micro_batch_size"}

    flat = []
    for record in (one, other):
        plain = json.loads(json.dumps(record), object_hook=drop_micro_batch)  # tuples become lists
        recipe = plain.pop("recipe", {})
        flat.append(plain | {f"recipe's {name}": value for name, value in recipe.items()})
    return sorted(name for name in flat[0].keys() | flat[1].keys() if flat[0].get(name) != flat[1].get(name))
