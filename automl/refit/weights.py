"""Which weights of a training run become the model: the last, the mean of several, or the best evaluated.

What must survive a kill is written to the disk at an eighth of the run, before the checkpoint from which a killed run
goes on: a file is there whenever the run is past it, and is written again, the same, when it is not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from automl.errors import WeightsError
from automl.files import explain_write_errors, write_atomically
from automl.training.checkpoint import weights_on_cpu
from automl.training.metrics import metric_sign
from automl.training.schedule import EIGHTHS
from automl.training.types import Evaluation, Snapshot

State = Mapping[str, Tensor]


def average_weights(states: Sequence[State]) -> dict[str, Tensor]:
    """Averages weights: parameters and buffers, each in its own type.

    Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization" (SWA), average the
    weights along one run and then run the data through once more for BatchNorm's statistics; timm's `avg_checkpoints`
    averages the statistics as well, and so does this. Whole numbers (a count of batches) are the last state's.
    """
    mean = {}
    for name, last in states[-1].items():
        if last.is_floating_point():
            total = sum((state[name].double() for state in states[1:]), states[0][name].double())
            mean[name] = (total / len(states)).to(last.dtype)
        else:
            mean[name] = last
    return mean


class LastWeights:
    """The weights at the end of the run."""

    ended = False
    """Whether the run need not go on."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder for what must survive a kill; it is made when something must."""
        self.folder = folder
        self.last: Snapshot | Evaluation | None = None
        """The moment of the run that the weights are of."""

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Receives each evaluation, and again those that a resumed run has behind it."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Receives the run at each of its eighths."""
        self.last = snapshot

    def kept_weights(self, model: nn.Module | None) -> State:
        """Returns the weights that are kept, given the model at the end of the run (None: it ended before)."""
        if model is None:
            raise ValueError("the run has not ended")
        return weights_on_cpu(model)


class MeanWeights(LastWeights):
    """The mean of the weights at the last eighths of the run."""

    def __init__(self, folder: Path, size: int) -> None:
        """Takes the number of eighths, 1 … 8."""
        super().__init__(folder)
        self._size = size

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Keeps the weights, if it is one of the last eighths."""
        super().on_snapshot(snapshot)
        if snapshot.eighth > EIGHTHS - self._size:
            _write_weights(self._eighth_file(snapshot.eighth), weights_on_cpu(snapshot.model))

    def kept_weights(self, model: nn.Module | None) -> State:  # noqa: ARG002 - the last one is on the disk, too
        """Returns the mean; a run of fewer steps than eighths has fewer to average."""
        files = [self._eighth_file(eighth) for eighth in range(EIGHTHS - self._size + 1, EIGHTHS + 1)]
        return average_weights([load_file(file) for file in files if file.is_file()])

    def _eighth_file(self, eighth: int) -> Path:
        return self.folder / f"{eighth}.safetensors"


class BestWeights(LastWeights):
    """The weights with the best evaluation; the run ends when they have been the best for long enough."""

    def __init__(self, folder: Path, metric: str, patience: int) -> None:
        """Takes the number of evaluations without improvement that end the run."""
        super().__init__(folder)
        self._metric, self._patience = metric, patience
        self._sign = metric_sign(metric)
        self._evaluations: dict[int, Evaluation] = {}

    @property
    def ended(self) -> bool:  # type: ignore[override]
        """Whether the last evaluations brought nothing better."""
        return self.last is not None and sum(step > self.last.step for step in self._evaluations) >= self._patience

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Keeps it; an evaluation that comes twice counts once."""
        self._evaluations[evaluation.step] = evaluation
        self.last = max(self._evaluations.values(), key=lambda e: (self._sign * e.metrics[self._metric], -e.step))

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Keeps the weights, if no earlier ones are as good."""
        if snapshot.evaluation is None:
            return
        self.on_evaluation(snapshot.evaluation)
        if self.last is snapshot.evaluation:
            _write_weights(self._file, weights_on_cpu(snapshot.model))

    def kept_weights(self, model: nn.Module | None) -> State:  # noqa: ARG002 - they are on the disk
        """Returns the best ones."""
        return load_file(self._file)

    @property
    def _file(self) -> Path:
        return self.folder / "best.safetensors"


def _write_weights(path: Path, state: dict[str, Tensor]) -> None:
    with explain_write_errors(path, WeightsError), write_atomically(path) as temporary:
        save_file(state, temporary)
