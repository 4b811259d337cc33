"""What confirming a study found, as it lies in the study's folder: `confirmed.yaml` and `confirm.json`."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from automl.errors import StudyError
from automl.files import write_text
from automl.recipe import Recipe
from automl.schema import describe_errors
from automl.study.folder import StudyFolder
from automl.training.intervals import Interval

Found = TypeVar("Found", bound=BaseModel)


class Candidate(BaseModel):
    """A recipe that was trained again, once with each seed."""

    model_config = ConfigDict(frozen=True)

    trial: int
    """The trial it comes from."""
    search_value: float
    """The metric on the validation split in that trial: the best of many, so it flatters."""
    seeds: tuple[int, ...]
    validation: tuple[float, ...]
    """The metric on the validation split with each seed."""
    mean: float
    """Over the seeds."""
    recipe: Recipe
    """As the trial trained it, with the trial's seed."""
    predictions: tuple[str, ...]
    """For each seed, the file with the validation probabilities, relative to the study's folder: an `.npz` with
    `validation` (N, C) float64, `labels` (N,) int64 and the recipe with its seed as JSON."""


class Confirmation(BaseModel):
    """What confirming a study found."""

    model_config = ConfigDict(frozen=True)

    metric: str
    chosen: Annotated[int, Field(ge=0)]
    """Index of the candidate with the best mean."""
    validation: Interval
    """Of the chosen recipe: the metric, mean over the seeds, with its interval over samples."""
    holdout: Interval | None
    """The same on samples that no trial saw and that chose nothing; None where none were set aside."""
    validation_metrics: dict[str, float]
    """Every metric, mean over the seeds."""
    holdout_metrics: dict[str, float]
    search_value: float
    """The chosen recipe's, in its trial."""
    optimism: float | None
    """How much better the search's value looks than the holdout's; positive is too good, whatever the metric."""
    validation_optimism: float | None
    """How much better the mean validation of the fresh seeds looks than the holdout."""
    interval_method: str
    validation_samples: int
    holdout_samples: int
    holdout_note: str = ""
    """Why there is no score on the holdout."""
    times_scored: int
    """How often confirmations of this study have looked at the holdout; after the first it is no longer unseen."""
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _chosen_is_there(self) -> "Confirmation":
        if self.chosen >= len(self.candidates):
            raise ValueError(f"chosen is {self.chosen}, but there are {len(self.candidates)} candidates")
        return self

    @property
    def best(self) -> Candidate:
        """The chosen candidate."""
        return self.candidates[self.chosen]

    def describe(self) -> str:
        """The scores in two lines, without the recipe."""
        seeds = len(self.best.seeds)
        lines = [
            f"Trial {self.best.trial}, trained again with {seeds} fresh seed{'s' * (seeds > 1)}: "
            f"validation {self.metric} {_text(self.validation)}"
        ]
        lines.append(f"holdout {self.metric} {_text(self.holdout)}" if self.holdout else f"no {self.holdout_note}")
        return "\n".join([*lines, self.interval_method])


def load_confirmation(folder: StudyFolder) -> Confirmation | None:
    """Reads `confirm.json`; None if the study was not confirmed.

    Raises:
        StudyError: If the file is damaged.
    """
    return load_found(folder.confirmation, Confirmation, "confirm again")


def load_found(path: Path, kind: type[Found], again: str) -> Found | None:
    """Reads what was found about a study; None if there is no such file.

    Args:
        path: A JSON file in the study's folder.
        kind: What is in it.
        again: What to do when it is damaged, once it is deleted.

    Raises:
        StudyError: If it is damaged.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StudyError(f"cannot read {path}: {exc.strerror}") from exc
    except ValidationError as exc:
        raise StudyError(f"{describe_errors(exc, str(path))}\nit is damaged: delete it and {again}") from exc


def store_confirmation(folder: StudyFolder, confirmation: Confirmation) -> None:
    """Writes `confirmed.yaml` and, last, `confirm.json`: where that is, both are."""
    header = f"Study {folder.name}, confirmed.\n{confirmation.describe()}"
    confirmation.best.recipe.save(folder.confirmed, header)
    write_text(folder.confirmation, confirmation.model_dump_json(indent=2) + "\n")


def _text(interval: Interval) -> str:
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
