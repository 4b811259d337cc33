"""What `--json` prints: each object is a dataclass here, and docs/agents.md is made of their fields.

An object of a command is in `RESULTS`, the events of one that takes long are in `EVENTS`. What is not known is null.
"""

import datetime
from dataclasses import dataclass, field
from typing import Any


def _read_clock() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


# --- parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a command ended without its result."""

    message: str
    """What is wrong, and what would be right."""
    exit_code: int
    """2: a mistake that you can mend; 130: it was stopped; 1: an error of the program."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that may come next."""

    argv: list[str]
    """Its words; `DIR` stands for a folder of yours."""
    purpose: str
    """What it gives."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A metric with its interval of 95 %."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial of a study."""

    number: int
    state: str
    """`complete`, `pruned`, `failed`, `running`, or `unfinished` where nobody trains it now."""
    value: float | None
    """The metric at its end or, if it did not get there, at its last validation."""
    best_value: float | None
    """The best of its validations."""
    backbone: str
    """Empty where it ended before one was drawn."""
    view: str
    """What it sees of a sample: `image`, `faces`, `frames`, …"""
    trained: str
    """How much of the network is trained; empty for all of it."""
    image_size: int | None
    """Pixels per side."""
    epochs: float | None
    """Of its whole recipe."""
    epochs_done: float
    seconds: float | None
    """From its start to its end."""
    reason: str
    """Why it was pruned or failed."""
    known_good: str
    """The tier of a known-good recipe; empty for one that was proposed."""
    continues: int | None
    """The trial that it trained for longer."""
    out_of_memory: int
    """How often memory ran out."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Trials that ended alike."""

    state: str
    """`pruned` or `failed`."""
    reason: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe that was trained again with fresh seeds."""

    trial: int
    backbone: str
    seeds: list[int]
    validation: list[float]
    """The metric with each seed."""
    mean: float
    """Over the seeds."""
    search_value: float
    """The metric in the search."""
    robust: list[float]
    """The mean AUC on degraded copies with each seed; empty where none were measured."""
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The best recipes, trained again with fresh seeds, and the scores of the chosen one."""

    metric: str
    trial: int
    """The trial whose recipe was chosen."""
    recipe_path: str
    candidates: list[Candidate]
    """Best of the search first."""
    validation: Interval
    validation_samples: int
    validation_metrics: dict[str, float]
    """Every metric, by name."""
    holdout: Interval | None
    """On samples that no trial saw; null where none were set aside."""
    holdout_samples: int
    holdout_metrics: dict[str, float]
    holdout_note: str
    """Why there is no score on the holdout."""
    times_scored: int
    """How often the holdout was scored; after the first time it is no longer unseen."""
    optimism: float | None
    """By how much the search's value was too good."""
    interval_method: str


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A backbone of a study's pool."""

    rank: int
    """0 is the best of the leaderboard."""
    backbone: str
    score: float | None
    """Of the leaderboards; null of an encoder."""
    params_m: float
    """Millions of parameters."""
    weights: str | None
    """`file`, `cache` or `hub`; null: from scratch."""
    peak_bytes: int
    """GPU memory of its largest step or, if that does not fit, of the smallest."""
    fits: bool
    """Whether its largest step fits the budget without accumulation."""
    measured: bool
    """Whether memory was measured; else it is predicted."""
    epoch_seconds: float
    """Of training, at `image_size`."""
    image_size: int
    precision: str


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """What a worker does."""

    device: str
    """`cpu`, `cuda-0`."""
    trial: int
    backbone: str
    epoch: float
    epochs: float | None
    doing: str
    """What it does beside training: decoding, features, a fold; empty if nothing."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study in a list."""

    study: str
    folder: str
    trials_ended: int
    trials_wanted: int
    metric: str
    best_value: float | None
    backbone: str
    """Of the best trial."""
    data: str


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model of an ensemble."""

    name: str
    trial: int
    backbone: str
    view: str
    weight: float
    seen: int
    """Samples that its view sees something of."""
    search_value: float
    validation: Interval
    holdout: Interval | None


@dataclass(frozen=True, kw_only=True)
class UnreadableFile:
    """A file that cannot be read."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CopiedFiles:
    """Files of the same, or nearly the same, content."""

    names: list[str]
    splits: list[str]
    labels: list[str]
    """Empty where labels were not compared."""
    similarity: float
    """1: the same bytes; else the correlation of the pictures."""


@dataclass(frozen=True, kw_only=True)
class AuditedProperty:
    """A property of the files that was tried."""

    name: str
    auc: Interval
    """Of predicting the label by it alone."""
    by_class: str
    """What the classes have."""
    finding: bool
    """Whether a network could clearly learn it in place of the content."""
    sentence: str
    remedy: str
    """What takes it away: `copy` (`--normalise DIR`), a flag beside it, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Properties of the files that may give the label away."""

    properties: list[AuditedProperty]
    """Those that tell most first."""
    constant: list[str]
    """The same in all files."""
    missing: list[str]
    """Most files have none."""
    files_read: int
    files: int
    unreadable: int
    reason: str
    """Why nothing was tried."""


@dataclass(frozen=True, kw_only=True)
class LabelIssue:
    """A label that is likely wrong."""

    name: str
    label: str
    likelier_label: str
    probability: float
    """Of the likelier label."""


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """Labels that are likely wrong."""

    judge: str
    """What predicted them."""
    checked: int
    agreement: float
    """The share of labels that are as predicted; where it is low, many right labels are named."""
    issues: list[LabelIssue]
    """The likeliest first; all of them."""
    page: str | None


@dataclass(frozen=True, kw_only=True)
class NormalisedCopy:
    """A copy of the data whose files are encoded alike."""

    folder: str
    written: int
    kept: int
    """Files that an earlier call had written."""
    unreadable: list[UnreadableFile]
    audit: Audit | None
    """Of the copy."""


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """The published weights of a backbone."""

    backbone: str
    repository: str
    """On the hub; empty where timm names none."""
    file: str
    size_bytes: int
    """Computed, 4 bytes a weight."""
    licence: str
    places: list[str]
    """Where it may lie below `--weights-dir`; `*` stands for a revision."""
    path: str | None
    """The file on this machine."""
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """A training step of a backbone; sizes are bytes, CUDA's own memory included."""

    backbone: str
    image_size: int
    batch_size: int
    precision: str
    memory_format: str
    whole_bytes: int
    """Predicted for the undivided batch."""
    budget_bytes: int | None
    micro_batch: int
    """The most images at once that fit; 0: not even the fewest."""
    predicted_bytes: int
    """For that micro-batch."""
    measured_bytes: int | None
    error_percent: float | None
    """By how much the prediction is above what was measured."""
    reserved_bytes: int | None
    process_bytes: int | None
    """As NVML has it."""
    margin_bytes: int | None
    """What the budget leaves."""
    images_per_second: float | None
    why_predicted: str | None
    """Why nothing was measured."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A line about this machine."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem of this machine and what to do about it."""

    text: str
    fatal: bool
    """Whether no search is possible before it is mended."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a search space."""

    name: str
    kind: str
    """`float`, `int`, `choice`, `ordered`, `branches`, `pool`."""
    values: list[Any]
    """The choices or, of a range, its ends."""
    log: bool
    """Whether a range is drawn from by its logarithm."""
    step: float | None


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened."""

    event: str = ""
    time: str = field(default_factory=_read_clock)
    """UTC, ISO 8601."""


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """The command begins: the first event."""

    event: str = "started"
    command: str
    version: str
    """Of automl."""
    argv: list[str]
    """The command; called again, it continues."""
    pid: int


@dataclass(frozen=True, kw_only=True)
class StepReported(Event):
    """A piece of work beside the search, such as decoding: at its begin, once a minute, and at its end."""

    event: str = "step"
    label: str
    done: int
    total: int | None
    """Null at its begin."""
    ended: bool


@dataclass(frozen=True, kw_only=True)
class StudyOpened(Event):
    """The study is created, or opened again, and its workers begin."""

    event: str = "study"
    study: str
    folder: str
    metric: str
    maximize: bool
    """Whether a larger metric is better."""
    trials_wanted: int
    trials_ended: int
    """In earlier calls."""
    timeout_seconds: float | None
    data: str
    media: str
    """`image`, `video` or `sound`."""
    classes: list[str]
    samples: dict[str, int]
    """By split."""


@dataclass(frozen=True, kw_only=True)
class PoolChosen(Event):
    """The backbones that trials may take."""

    event: str = "pool"
    memory_bytes: int | None
    """The budget; null: no limit."""
    backbones: list[Backbone]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class TrialEnded(Trial, Event):
    """A trial ended: complete, pruned or failed."""

    event: str = "trial"


@dataclass(frozen=True, kw_only=True)
class BestChanged(Event):
    """A trial is the best one so far."""

    event: str = "best"
    number: int
    value: float
    backbone: str


@dataclass(frozen=True, kw_only=True)
class ProgressReported(Event):
    """Where the search is: once a minute."""

    event: str = "progress"
    trials_ended: int
    trials_wanted: int
    seconds_left: float | None
    """Of the timeout."""
    best_value: float | None
    best_trial: int | None
    running: list[RunningTrial]
    stopping: bool


@dataclass(frozen=True, kw_only=True)
class Stopping(Event):
    """Ctrl-C or SIGTERM was received; what happens next. A second one ends the command at once."""

    event: str = "stopping"
    message: str


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Failed:
    """In place of a result: why there is none."""

    error: Failure


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What came of a study: `best`."""

    study: str
    folder: str
    metric: str
    maximize: bool
    """Whether a larger metric is better."""
    validation: str
    """What `value` was measured on."""
    value: float | None
    """Of the best trial; null while none is complete."""
    best: Trial | None
    recipe: dict[str, Any] | None
    """The best trial's, as in `recipe_path`."""
    recipe_path: str | None
    top: list[Trial]
    """The five best."""
    trials_wanted: int
    trials_by_state: dict[str, int]
    endings: list[Ending]
    """Why trials did not complete, the most frequent first."""
    degraded: dict[str, float]
    """The best trial's AUC on degraded copies, where trials are compared by that."""
    trials_path: str
    """Every trial, with its parameters and metrics: a CSV file."""
    confirmation: Confirmation | None
    next: list[Command]


@dataclass(frozen=True, kw_only=True)
class SearchFinished(StudyResult, Event):
    """The last event of `search`."""

    event: str = "finished"
    interrupted: bool
    """Whether it was stopped before its budget was spent; the exit code is then 130."""


@dataclass(frozen=True, kw_only=True)
class ConfirmFinished(Event):
    """The last event of `confirm`."""

    event: str = "finished"
    study: str
    folder: str
    confirmation: Confirmation | None
    """Null where it was stopped, or there was no time."""
    interrupted: bool
    next: list[Command]


@dataclass(frozen=True, kw_only=True)
class TrainFinished(Event):
    """The last event of `train`."""

    event: str = "finished"
    folder: str
    """Of the model."""
    members: list[str]
    """Folders of the models of an ensemble; empty for one model."""
    metrics: dict[str, Any]
    """As in the model's metrics.json; of an ensemble, by member."""
    next: list[Command]


@dataclass(frozen=True, kw_only=True)
class EnsembleFinished(Event):
    """The last event of `ensemble`."""

    event: str = "finished"
    folder: str | None
    """Of the model; null where it was stopped, or there was no time: all else is then null or empty, too."""
    interrupted: bool
    by: str | None
    """What the members differ in: `view` or `backbone`."""
    metric: str | None
    members: list[Member]
    validation: Interval | None
    """Of all together, on what the weights were learned on: too good."""
    validation_samples: int | None
    holdout: Interval | None
    holdout_samples: int | None
    holdout_note: str
    times_scored: int | None
    interval_method: str | None
    next: list[Command]


@dataclass(frozen=True, kw_only=True)
class WorkerFinished(Event):
    """The last event of `worker`."""

    event: str = "finished"
    study: str
    device: str
    trials: list[int]
    """That this worker ended."""


@dataclass(frozen=True, kw_only=True)
class PredictResult:
    """What `predict` wrote."""

    path: str
    rows: int
    columns: list[str]
    unreadable: int
    """Rows that hold the training prior, because the file cannot be read or shows nothing."""


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """What `evaluate` measured; all but `folder` is as in metrics.json ([evaluate.md](evaluate.md#files))."""

    folder: str | None
    """Of metrics.json, predictions.csv and index.html; null without `--out`."""
    data: dict[str, Any]
    positive: str | None
    metric: str
    interval_method: str | None
    models: dict[str, Any]
    """By name."""
    groups: dict[str, Any] | None
    by: dict[str, Any]
    """By column, a list of its values."""
    comparisons: list[dict[str, Any]] | None
    robustness: dict[str, Any] | None
    notes: list[str]
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What `export` wrote."""

    format: str
    path: str | None
    """Null without `--out` of a format that is text."""
    text: str | None
    """The recipe, where it was written to no file."""
    difference: float | None
    """The largest difference in probability from PyTorch, of a network."""
    images: int
    """Images it was compared on."""
    real: bool
    """Whether they were images; else noise."""


@dataclass(frozen=True, kw_only=True)
class StudiesResult:
    """The studies, the one that was worked on last at the end."""

    studies: list[Study]
    warnings: list[str]
    """Studies that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class DashboardResult:
    """Where `dashboard` serves; it is printed when that begins."""

    study: str
    url: str


@dataclass(frozen=True, kw_only=True)
class DataResult:
    """What `data` understands of a data set."""

    path: str
    format: str
    media: str
    """`image`, `video` or `sound`."""
    classes: list[str]
    positive_class: str | None
    real_class: str | None
    counts: dict[str, dict[str, int]]
    """Samples by split, then by class."""
    groups: dict[str, int]
    """Groups by split; empty where samples do not belong together."""
    width: list[int] | None
    """Pixels: smallest, median, largest."""
    height: list[int] | None
    clips: dict[str, Any] | None
    """Of videos and sounds: `count`, `seconds`, `frames_per_second`, `sample_rates_hz`, and how many have what."""
    remarks: list[str]
    """How it was read."""
    warnings: list[str]
    unreadable: list[UnreadableFile]
    leaks: list[CopiedFiles]
    """The same file in two splits."""
    near_copies: list[CopiedFiles]
    """Nearly the same in two splits."""
    conflicts: list[CopiedFiles]
    """The same file under two labels."""
    copies: int
    """Files that are a copy of another one of their class and split."""
    notes: list[str]
    audit: Audit | None
    """Null with `--no-audit`."""
    label_check: LabelCheck | None
    """Null without `--check-labels`."""
    normalised: NormalisedCopy | None
    """Null without `--normalise`."""


@dataclass(frozen=True, kw_only=True)
class InspectResult:
    """What `inspect` wrote."""

    page: str
    sheet: str | None
    """The frames of a video as a PNG."""
    lines: list[str]
    """What is most to be known."""


@dataclass(frozen=True, kw_only=True)
class PreviewResult:
    """What `preview` wrote."""

    page: str
    sheets: list[str]
    """A PNG for each view."""
    lines: list[str]
    """What is most to be known."""


@dataclass(frozen=True, kw_only=True)
class PageWritten:
    """The page that `report` or `compare` wrote."""

    page: str


@dataclass(frozen=True, kw_only=True)
class BackbonesResult:
    """What `backbones` lists; with `--check`, what differs from the shipped tables."""

    rows: list[dict[str, Any]]
    """With the columns of `--csv`."""
    matches: int
    """Rows there are; `--limit` cuts `rows`."""
    source: str
    notes: list[str]
    """What the order and the memory mean."""
    checked: int | None
    """Backbones that were examined; null without `--check`."""
    differences: list[str]
    """Of what was examined from the table."""


@dataclass(frozen=True, kw_only=True)
class WeightsResult:
    """Which files hold the weights of backbones."""

    files: list[WeightFile]


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Training steps, measured or predicted."""

    steps: list[Step]
    left_out: list[str]
    """Backbones that cannot be trained so, and why."""


@dataclass(frozen=True, kw_only=True)
class DoctorResult:
    """What a search would meet on this machine; the exit code is 1 where none is possible."""

    can_search: bool
    findings: list[Finding]
    problems: list[Problem]


@dataclass(frozen=True, kw_only=True)
class SpaceResult:
    """A search space: `space show` and, without mistakes, `space validate`."""

    source: str
    parameters: list[Parameter]
    outside_branches: int
    """How many of them every trial has."""
    known_good: int
    """Recipes that are tried first."""


@dataclass(frozen=True, kw_only=True)
class SchemaResult:
    """The JSON Schema of search spaces: `space schema`."""

    schema: dict[str, Any]


RESULTS: dict[str, type] = {
    "search": SearchFinished,
    "best": StudyResult,
    "confirm": ConfirmFinished,
    "ensemble": EnsembleFinished,
    "train": TrainFinished,
    "predict": PredictResult,
    "evaluate": EvaluateResult,
    "export": ExportResult,
    "studies": StudiesResult,
    "report": PageWritten,
    "compare": PageWritten,
    "dashboard": DashboardResult,
    "data": DataResult,
    "preview": PreviewResult,
    "inspect": InspectResult,
    "backbones": BackbonesResult,
    "weights": WeightsResult,
    "probe": ProbeResult,
    "doctor": DoctorResult,
    "space show": SpaceResult,
    "space validate": SpaceResult,
    "space schema": SchemaResult,
    "worker": WorkerFinished,
}
"""By command, its last object."""

_RETRAINING = (Started, StepReported, Stopping)
EVENTS: dict[str, tuple[type[Event], ...]] = {
    "search": (Started, StepReported, StudyOpened, PoolChosen, TrialEnded, BestChanged, ProgressReported, Stopping),
    "confirm": _RETRAINING,
    "ensemble": _RETRAINING,
    "train": _RETRAINING,
    "worker": (Started, TrialEnded, Stopping),
}
"""By command, the objects before its last one; all other commands print one."""
