"""The recipe as a whole."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from automl.errors import RecipeError
from automl.files import find_line, load_yaml, write_text
from automl.recipe.augmentation import Augmentation
from automl.recipe.learning import AdamW, CrossEntropy, Loss, Mixing, NoMixing, OneCycle, Optimizer, Schedule
from automl.recipe.tuning import Head, LinearHead, Pooling, Tune, TuneAll
from automl.schema import Keys, Part, describe_errors
from automl.views.aggregate import Aggregate, Mean
from automl.views.base import WholeImage
from automl.views.registry import View

AUGMENTED_MEDIA = {
    **dict.fromkeys(("time_mask", "frequency_mask", "time_shift", "noise", "gain"), "sound"),
    "codec": "video",
}
"""The media of whose views an augmentation is."""

WITHOUT_EFFECT = {
    ("tune", "head"): ("layer_decay", "freeze_epochs"),  # there is no layer below the head that learns
    ("view", "image"): ("aggregate",),  # a sample has one score
}
"""What a choice leaves nothing to do: fields by the field and the name of the choice."""

_CHOICES = frozenset({"view", "aggregate", "tune", "head", "mixing", "loss", "optimizer", "schedule"})
"""The fields that are one of several classes, each with a name."""


class Numerics(Part):
    """How the arithmetic is done on one device; timed, not searched."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Images per forward pass; the effective batch is reached by accumulation. None: the whole batch at once."""
    grad_checkpointing: bool = False
    """Whether activations are computed again in the backward pass (Chen et al. 2016): less memory, a third more time.
    Some of timm's models cannot, which is an error."""


class Recipe(Part):
    """Every hyperparameter of one training run. Fractions of the run are of its optimizer steps."""

    backbone: Annotated[str, Field(min_length=1)]
    pretrained: bool = True
    view: View = WholeImage()
    aggregate: Aggregate = Mean()
    """How a clip's score follows from those of its images."""
    image_size: Annotated[int, Field(ge=16, le=2048)] = 224
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0
    tune: Tune = TuneAll()
    head: Head = LinearHead()
    pooling: Pooling = "default"
    """What the head sees of a transformer: the class token, the mean of the patches, or both side by side. default: as
    its weights were trained. A backbone without a class token, such as a CNN, has its own pooling in any case."""
    augmentation: Augmentation = Augmentation()
    mixing: Mixing = NoMixing()
    loss: Loss = CrossEntropy()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = OneCycle()
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    head_lr_factor: Annotated[float, Field(gt=0, le=100)] = 1.0
    clip_norm: Annotated[float, Field(ge=0)] = 0
    """Largest gradient norm; 0: no clipping."""
    freeze_epochs: Annotated[float, Field(ge=0)] = 0
    """Epochs at the start in which only the head learns."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0
    """Decay of the exponential moving average of the weights; 0: none."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images per optimizer step (the effective batch)."""
    epochs: Annotated[float, Field(gt=0)] = 5
    restarts: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Fractions of the run at which the schedule begins anew, at half the learning rate (SGDR, Loshchilov & Hutter
    2017): a search continues a run that ended well for longer, and this is the whole run."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    numerics: Numerics = Numerics()

    @model_validator(mode="before")
    @classmethod
    def _expand_names(cls, values: Any) -> Any:
        """Takes a name alone for a choice of that name with its defaults, as spaces do: `tune: head`."""
        if not isinstance(values, dict):
            return values
        return {
            key: {"name": value} if isinstance(value, str) and key in _CHOICES else value
            for key, value in values.items()
        }

    @field_validator("restarts")
    @classmethod
    def _check_restarts_ascend(cls, restarts: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in pairwise(restarts)):
            raise ValueError(f"restarts are ascending fractions of the run, got {', '.join(map(str, restarts))}")
        return restarts

    @model_validator(mode="after")
    def _check_augmentation_fits_view(self) -> Self:
        """Refuses augmentations that the view's images cannot have."""
        for name, media in AUGMENTED_MEDIA.items():
            if self.view.media != media and getattr(self.augmentation, name):
                raise ValueError(f"augmentation.{name} is for views of {media}, and the view is {self.view.name}")
        return self

    @model_validator(mode="after")
    def _check_head_pools(self) -> Self:
        """Refuses a pooling that a head with its own would pass over."""
        if self.head.pools and self.pooling != "default":
            raise ValueError(f"head {self.head.name} pools by itself: pooling must be default, got {self.pooling}")
        return self

    @classmethod
    def from_mapping(
        cls,
        values: dict[str, Any],
        source: str = "recipe",
        find_line: Callable[[Keys], int | None] = lambda _: None,
    ) -> "Recipe":
        """Validates a nested mapping; an error calls it `source` (a file, a trial), where `find_line` finds values.

        Raises:
            RecipeError: With every mistake, one a line.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            raise RecipeError(describe_errors(exc, source, model=cls, find_line=find_line)) from exc

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Reads a recipe from a YAML file, or from the JSON that `automl export` writes, which is YAML as well.

        Raises:
            RecipeError: If the file cannot be read or has a mistake.
        """
        values, above = load_yaml(path, RecipeError), tuple[str, ...]()
        if isinstance(values, dict) and "recipe" in values:  # beside it: what the input and the outputs are
            values, above = values["recipe"], ("recipe",)
        if not isinstance(values, dict):
            raise RecipeError(f"{path}: a recipe is a mapping of names to values, got {type(values).__name__}")
        return cls.from_mapping(values, str(path), lambda keys: find_line(path, (*above, *keys)))

    def describe_trained(self) -> str:
        """Describes how much of the network is trained, and its head: `lora 16, l2`; "" for all with its own head."""
        tune, head = self.tune, self.head
        size = str(getattr(tune, "rank", getattr(tune, "blocks", "")))
        size += " on all layers" if getattr(tune, "targets", "") == "all" else ""
        parts = [f"{tune.name} {size}".strip() if tune.name != "all" or head.name != "linear" else ""]
        parts += [head.name if head.name != "linear" else "", self.pooling if self.pooling != "default" else ""]
        return ", ".join(filter(None, parts))

    def list_unused(self) -> list[str]:
        """Lists what is set and has no effect: `layer_decay 0.8 has no effect beside tune head`."""
        return [
            f"{key} {getattr(value, 'name', value)} has no effect beside {owner} {taken}"
            for (owner, taken), keys in WITHOUT_EFFECT.items()
            for key in keys
            if getattr(self, owner).name == taken
            and (value := getattr(self, key)) != type(self).model_fields[key].default
        ]

    def with_numerics(self, **changes: Any) -> Self:
        """Returns a copy with other values of some fields of `numerics`."""
        return self.model_copy(update={"numerics": self.numerics.model_copy(update=changes)})

    def to_yaml(self) -> str:
        """Writes the recipe as YAML that `load` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    def save(self, path: Path, header: str = "") -> None:
        """Writes the recipe to a YAML file; each line of `header` becomes a comment above it."""
        comment = "".join(f"# {line}\n" for line in header.splitlines())
        write_text(path, comment + self.to_yaml())
