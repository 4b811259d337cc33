"""Scores of the joined views or backbones of a study, as they lie in its folder: `ensemble.json`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from automl.models.combine import Fusion
from automl.models.folder import ValidationScores
from automl.recipe import Recipe
from automl.training.intervals import Interval

Kind = Literal["view", "backbone"]
"""What members differ in."""


class Record(BaseModel):
    """A record in a JSON file of a study's folder."""

    model_config = ConfigDict(frozen=True)


class SplitScores(Record):
    """How recipes of a study that were trained again were scored."""

    metric: str
    interval_method: str
    """Of the intervals of both splits; where they differ, each one's."""
    validation_samples: int
    holdout_samples: int
    holdout_note: str = ""
    """Why there is no score on the holdout."""
    validation_kind: str = ""
    """How the validation split was drawn, if not at random or as given."""
    times_scored: int
    """How often such recipes were scored on the holdout; after the first time it is no longer unseen."""


class Scored(Record):
    """A model on a split."""

    interval: Interval
    """The study's metric, with its interval over samples."""
    metrics: dict[str, float]
    """Every metric."""


class FusedMember(Record):
    """The best recipe of a view or of a backbone, trained once more on the training split."""

    name: Annotated[str, Field(validation_alias=AliasChoices("name", "view"))]
    """Of the view or the backbone."""
    trial: int
    """The trial it comes from."""
    search_value: float
    """The metric on the validation split in that trial: the best of many, so it is too good."""
    recipe: Recipe
    """With the seed of this training."""
    seen: int
    """Samples of the study that its view sees something of."""
    train_samples: int
    """Those of them that it was trained on."""
    validation: Scored
    holdout: Scored | None


class FusedEnsemble(SplitScores):
    """The best recipes of the views or the backbones, and what joins their scores."""

    by: Kind = "view"

    members: Annotated[tuple[FusedMember, ...], Field(min_length=1)]
    """By what they scored in the search, best first."""
    fusion: Fusion
    validation: Scored
    """Of all together, on the samples that the weights were learned on: too good."""
    holdout: Scored | None
    """On samples that neither chose nor taught anything; None where none were set aside."""
    samples: int
    """Of the study."""
    validation_scores: ValidationScores | None = None
    """Of all together, for a threshold; None where models were joined before these were kept."""
    folder: Annotated[Path | None, Field(exclude=True)] = None
    """The model that was written; not stored."""

    @model_validator(mode="after")
    def _check_weights(self) -> "FusedEnsemble":
        """Makes sure that each member has a weight."""
        names = [member.name for member in self.members]
        if names != list(self.fusion.weights):
            raise ValueError(f"the members are {names}, but there are weights of {list(self.fusion.weights)}")
        return self

    @property
    def _unit(self) -> str:
        """What samples are called."""
        return "images" if self.members[0].recipe.view.media == "image" else "clips"

    def rows(self) -> list[tuple[str, ...]]:
        """Lists the scores for people: a header, a row for each member, then one of all together."""
        header = ("view", "trial", "backbone", "weight", f"{self._unit} seen of {self.samples}")
        rows = [
            (
                member.recipe.view.name,
                str(member.trial),
                member.recipe.backbone,
                f"{self.fusion.weights[member.name]:.3f}",
                str(member.seen),
                *_format_scores(member.validation, member.holdout),
            )
            for member in self.members
        ]
        fused = ("fused", "", "", "", "", *_format_scores(self.validation, self.holdout))
        return [(*header, f"validation {self.metric}", f"holdout {self.metric}", "95 % interval"), *rows, fused]

    def lines(self) -> list[str]:
        """Explains in a few lines what the scores are worth."""
        learned = (
            f"the weights were learned from the {self.validation_samples} validation {self._unit}, "
            "so the fused validation score is too good"
        )
        if self.holdout is None:
            return [f"{learned}; there is no {self.holdout_note}"]
        unseen = f"the {self.holdout_samples} holdout {self._unit} were used for nothing else"
        if self.times_scored > 1:
            unseen = f"the holdout was scored {self.times_scored} times: it is no longer unseen"
        return [learned, unseen, self.interval_method]


def _format_scores(validation: Scored, holdout: Scored | None) -> tuple[str, str, str]:
    value = f"{validation.interval.value:.4f}"
    if holdout is None:
        return value, "–", "–"
    interval = holdout.interval
    return value, f"{interval.value:.4f}", f"{interval.low:.4f} – {interval.high:.4f}"
