"""What joining the views of a study found, as it lies in the study's folder: `ensemble.json`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from automl.models.fusion import Fusion
from automl.recipe import Recipe
from automl.training.intervals import Interval


class Scored(BaseModel):
    """A model on a split."""

    model_config = ConfigDict(frozen=True)

    interval: Interval
    """The study's metric, with its interval over samples."""
    metrics: dict[str, float]
    """Every metric."""


class ViewMember(BaseModel):
    """The best recipe of a view, trained once more on the training split."""

    model_config = ConfigDict(frozen=True)

    view: str
    trial: int
    """The trial it comes from."""
    search_value: float
    """The metric on the validation split in that trial: the best of many, so it flatters."""
    recipe: Recipe
    """With the seed of this training."""
    seen: int
    """Samples of the study that the view sees something of."""
    train_samples: int
    """Those of them that it was trained on."""
    validation: Scored
    holdout: Scored | None


class ViewEnsemble(BaseModel):
    """The best recipes of the views, and what joins their scores."""

    model_config = ConfigDict(frozen=True)

    metric: str
    members: Annotated[tuple[ViewMember, ...], Field(min_length=1)]
    """By what they scored in the search, best first."""
    fusion: Fusion
    validation: Scored
    """Of all views, on the samples that the weights were learned on: it flatters."""
    holdout: Scored | None
    """On samples that neither chose nor taught anything; None where none were set aside."""
    samples: int
    """Of the study."""
    validation_samples: int
    holdout_samples: int
    holdout_note: str = ""
    """Why there is no score on the holdout."""
    interval_method: str
    times_scored: int
    """How often ensembles of this study have looked at the holdout; after the first it is no longer unseen."""

    @model_validator(mode="after")
    def _weights_are_there(self) -> "ViewEnsemble":
        views = [member.view for member in self.members]
        if views != list(self.fusion.weights):
            raise ValueError(f"the members are {views}, but there are weights of {list(self.fusion.weights)}")
        return self

    def rows(self) -> list[tuple[str, ...]]:
        """A header and the scores, for people: a row a member, then one of all together."""
        header = ("view", "trial", "backbone", "weight", f"clips seen of {self.samples}", f"validation {self.metric}")
        rows = [
            (
                member.view,
                str(member.trial),
                member.recipe.backbone,
                f"{self.fusion.weights[member.view]:.3f}",
                str(member.seen),
                *_figures(member.validation, member.holdout),
            )
            for member in self.members
        ]
        fused = ("fused", "", "", "", "", *_figures(self.validation, self.holdout))
        return [(*header, f"holdout {self.metric}", "95 % interval"), *rows, fused]

    def lines(self) -> list[str]:
        """What the scores are worth."""
        flatters = f"the {self.validation_samples} validation clips taught the weights, so the fused figure flatters"
        if self.holdout is None:
            return [f"{flatters}, and nothing is honest: no {self.holdout_note}"]
        lines = [
            f"{flatters}; the {self.holdout_samples} holdout clips taught and chose nothing",
            self.interval_method,
        ]
        if self.times_scored > 1:
            lines.append(f"the holdout was looked at {self.times_scored} times: it is no longer unseen")
        return lines


def _figures(validation: Scored, holdout: Scored | None) -> tuple[str, str, str]:
    figure = f"{validation.interval.value:.4f}"
    if holdout is None:
        return figure, "–", "–"
    found = holdout.interval
    return figure, f"{found.value:.4f}", f"{found.low:.4f} – {found.high:.4f}"
