"""What a storage keeps of trials and studies: their attributes, by name, and trials as rows for people.

The names of the attributes stand here alone: each is a field of `TrialRecord` or `StudyRecord`. Those of a trial are
user attributes. Those of a study are system attributes, which programs that show studies leave out: they are texts for
workers, some of them long.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from automl.backbones.capabilities import without_unsupported
from automl.errors import StudyError
from automl.recipe import Recipe
from automl.spec import StudySpec

if TYPE_CHECKING:
    import pandas as pd

    from automl.space.space import Space

_OURS = "automl:"
"""What the names of a study's system attributes begin with."""

_SPENT = ("epochs_done", "train_seconds", "validation_seconds", "fit_seconds", "robust_seconds", "peak_bytes")
"""What `TrialRecord.spent` holds; studies of earlier versions hold each as an attribute of its own."""


# --- attributes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialRecord:
    """The user attributes of a trial."""

    backbone: str = ""
    view: str = "image"
    image_size: int | None = None
    epochs: float | None = None
    """Of the whole recipe."""
    recipe: str = ""
    """JSON; empty until it is drawn and adapted to budget and time."""
    known_good: str = ""
    """The tier of a recipe that the search space lists; empty for one that the sampler drew."""
    trained: str = ""
    """`describe_trained` of the recipe."""
    continues: int | None = None
    """The trial that it goes on from; None: it began with the pretrained weights."""
    host: str = ""
    """The machine that it trains on, or trained on last."""
    metrics: dict[str, float] = field(default_factory=dict)
    """On the validation split, at the end."""
    degraded: dict[str, float] = field(default_factory=dict)
    """The AUC on degraded copies, by the degradation; empty where the objective is another one."""
    spent: dict[str, float] = field(default_factory=dict)
    """`epochs_done`, the seconds of training steps (`train_seconds`), of validations (`validation_seconds`) and of
    scoring degraded copies (`robust_seconds`, outside `fit`), and all
    seconds inside `fit`, resumptions included (`fit_seconds`): up to its last validation or, once it ended, in all. And
    the most memory that its process took of a GPU (`peak_bytes`)."""
    out_of_memory: list[dict[str, Any]] = field(default_factory=list)
    resumed_at: list[float] = field(default_factory=list)
    """The epochs at which it was taken up again."""
    taken_up: int = 0
    """How often it was taken up again."""
    device_lost: int = 0
    """How often it left its worker with a device that cannot be used any more."""
    too_small_bytes: int | None = None
    """The largest memory budget of a machine that it did not fit, where that is less than the study's."""
    error: str = ""
    """Why it failed."""
    reason: str = ""
    """Why it was pruned."""


@dataclass(frozen=True)
class StudyRecord:
    """The attributes of a study; `automl.study.setup` writes and reads them."""

    spec: str = ""
    """JSON of the `StudySpec`, its paths absolute."""
    space: str = ""
    """YAML."""
    pool: str = "[]"
    """JSON of the pool's entries."""
    screening: str | None = None
    """JSON of the rows of the screening, in the pool's order; None: there was none."""
    samples: str = ""
    """The digest of the samples, which are in the study's folder and in its storage."""
    files: str = ""
    """The digest of what their files hold; empty of a study that an earlier version began."""
    artifacts: str = ""
    """The folder of the study among the artifacts; empty where there are none."""
    dataset: str = "{}"
    """JSON of the data set without its samples."""
    metric: str = ""
    cache_size: int = 0
    memory_bytes: int | None = None
    trial_seconds: float | None = None
    deadline: float | None = None
    """When the search that was called last ends, in seconds since 1970; None: when its trials are done."""
    stopped: str | None = None
    """Why the study ended before its budget."""
    checks: list[str] | None = None
    """What the checks for copies and shortcuts showed, one line each, before the first trial; None: not kept."""
    environment: dict[str, str] = field(default_factory=dict)
    """The versions and the machine with which it was created."""


def _pick_fields(record: type[TrialRecord | StudyRecord], values: Mapping[str, Any]) -> dict[str, Any]:
    """Keeps the values that are fields of a record."""
    return {item.name: values[item.name] for item in fields(record) if item.name in values}


def read_trial_record(trial: FrozenTrial | Trial) -> TrialRecord:
    """Reads the user attributes of a trial, also of one that an earlier version trained."""
    attributes = trial.user_attrs
    flat = attributes | attributes.get("spent", {})
    spent = {name: float(flat[name]) for name in _SPENT if name in flat}
    return TrialRecord(**(_pick_fields(TrialRecord, attributes) | {"spent": spent}))


def write_trial_record(trial: Trial, **values: Any) -> None:
    """Writes user attributes of a trial: fields of `TrialRecord`. Each is a transaction."""
    TrialRecord(**values)  # refuses a name that is none
    for name, value in values.items():
        trial.set_user_attr(name, value)


def has_study_record(study: optuna.Study) -> bool:
    """Returns whether a study was made by automl, to its end: the spec is written last."""
    return "spec" in _read_study_attributes(study)


def read_study_record(study: optuna.Study) -> StudyRecord:
    """Reads the attributes of a study, also of one that an earlier version made.

    Raises:
        StudyError: If the study was not made by automl.
    """
    attributes = _read_study_attributes(study)
    if "spec" not in attributes:
        raise StudyError(f"study {study.study_name!r} was not made by automl: it holds no spec")
    return StudyRecord(**_pick_fields(StudyRecord, attributes))


def write_study_record(study: optuna.Study, **values: Any) -> None:
    """Writes attributes of a study: fields of `StudyRecord`."""
    StudyRecord(**values)  # refuses a name that is none
    for name, value in values.items():
        study._storage.set_study_system_attr(study._study_id, f"{_OURS}{name}", value)


def _read_study_attributes(study: optuna.Study) -> dict[str, Any]:
    """Reads the attributes of a study by their names; earlier versions made them user attributes."""
    system = study._storage.get_study_system_attrs(study._study_id)
    ours = {name.removeprefix(_OURS): value for name, value in system.items() if name.startswith(_OURS)}
    return study.user_attrs | ours


def read_spec(study: optuna.Study) -> StudySpec:
    """Reads the spec a study has now; its budgets may be changed while a worker runs."""
    return _parse_spec(read_study_record(study).spec, study.study_name)


@lru_cache(maxsize=8)
def _parse_spec(text: str, name: str) -> StudySpec:
    """Validates a stored spec, once for each text."""
    return StudySpec.from_mapping(json.loads(text), f"study {name}")


def recipe_of(trial: FrozenTrial) -> Recipe:
    """Reads the recipe a trial trained; of a study of an earlier version without what the backbone had ignored."""
    text = read_trial_record(trial).recipe
    if not text:
        raise StudyError(f"trial {trial.number} has no recipe: it failed before it was resolved")
    return without_unsupported(Recipe.from_mapping(json.loads(text), f"trial {trial.number}"))[0]


# --- trials of a study --------------------------------------------------------------------------------------------


def list_finished(study: optuna.Study) -> list[FrozenTrial]:
    """Lists the trials that have ended, in the order they ended."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    ended = study.get_trials(deepcopy=False, states=states)
    return sorted(ended, key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete, trial.number))


def count_finished(study: optuna.Study) -> int:
    """Counts the trials that have ended."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def best_first(study: optuna.Study) -> list[FrozenTrial]:
    """Lists the complete trials, the best first; of equal ones the earlier."""
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Finds the best complete trial; None while there is none."""
    return next(iter(best_first(study)), None)


# --- rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialRow:
    """A trial, for people."""

    number: int
    state: str
    """`complete`, `pruned`, `failed`, `running` or `unfinished`."""
    backbone: str
    image_size: int | None
    epochs: float | None
    """Of the whole recipe."""
    epochs_done: float
    value: float | None
    """The metric at its end or, if it did not get there, at its last validation."""
    best_value: float | None
    """The best of its validations."""
    seconds: float | None
    """From its start to its end, pauses included."""
    reason: str
    known_good: str
    view: str = "image"
    out_of_memory: int = 0
    """How often memory ran out; up to two times the trial goes on with smaller micro-batches."""
    continues: int | None = None
    """The trial that it trained for longer."""
    trained: str = ""
    """How much of the network is trained, and which head: `lora 16, l2`; "" for all of it with its own."""


_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def trial_rows(trials: list[FrozenTrial], maximize: bool = True, running: str = "running") -> list[TrialRow]:
    """Makes one row for each trial of a study that has started, by number.

    Args:
        trials: Of one study.
        maximize: Whether a larger metric is better.
        running: What to call a trial that has not ended; where no worker is left, it is `unfinished`.
    """
    states, rows = _STATES | {TrialState.RUNNING: running}, []
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.state not in states:
            continue
        values = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
        value = trial.value if trial.state == TrialState.COMPLETE else (values[-1] if values else None)
        record = read_trial_record(trial)
        row = TrialRow(
            number=trial.number,
            state=states[trial.state],
            backbone=record.backbone,
            image_size=record.image_size,
            epochs=record.epochs,
            epochs_done=record.spent.get("epochs_done", 0.0),
            value=value,
            best_value=(max if maximize else min)(values) if values else value,
            seconds=trial.duration.total_seconds() if trial.duration else None,
            reason=record.error or record.reason,
            known_good=record.known_good,
            view=record.view,
            out_of_memory=len(record.out_of_memory),
            continues=record.continues,
            trained=record.trained,
        )
        rows.append(row)
    return rows


def describe_ending(row: TrialRow) -> str:
    """Writes how a trial ended, and why, without the figures that make each reason different."""
    return f"{row.state}: {explain_ending(row)}"


def explain_ending(row: TrialRow) -> str:
    """Writes why a trial ended, without the figures that make each reason different."""
    if row.state == "pruned" and row.reason.endswith("is behind"):
        return "behind the others at the same point of the run"
    return row.reason or "no reason given"


def trials_table(study: optuna.Study, space: "Space", running: str = "running") -> "pd.DataFrame":
    """Makes the table of all trials, as `trials.csv` holds it.

    A row a trial: what `TrialRow` has, the recipe's drop path (0 where the backbone has none), then `metric.*`, then
    `param.*` (as a recipe has them, not as indexes). `running` is as for `trial_rows`.
    """
    import pandas as pd

    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    rows = []
    for row in trial_rows(list(trials.values()), study.direction == StudyDirection.MAXIMIZE, running):
        trial = trials[row.number]
        record = read_trial_record(trial)
        values = vars(row) | {"drop_path": json.loads(record.recipe or "{}").get("drop_path")}
        values |= {f"metric.{name}": value for name, value in record.metrics.items()}
        rows.append(values | {f"param.{name}": value for name, value in space.decode_params(trial.params).items()})
    return pd.DataFrame(rows)
