"""Which weights of a training run become the model: the last, the mean of several, or the best evaluated.

What must survive a kill is written to the disk at an eighth of the run, before the checkpoint from which a killed run
goes on: a file is there whenever the run is past it, and is written again, the same, when it is not.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from automl.errors import WeightsError
from automl.files import write_atomically
from automl.training.checkpoint import weights_on_cpu
from automl.training.metrics import direction
from automl.training.types import Evaluation, Snapshot
from automl.training.validation_schedule import EIGHTHS

State = Mapping[str, Tensor]


def average(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of weights: of parameters and of buffers, each in its own type.

    Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization" (SWA), average the
    weights along one run and then run the data through once more for BatchNorm's statistics; timm's `avg_checkpoints`
    averages the statistics as well, and so does this. Whole numbers (a count of batches) are the last one's.

    Args:
        states: State dicts of one network, the latest last; at least one.

    Returns:
        A state dict on the CPU.
    """
    mean = {}
    for name, last in states[-1].items():
        if last.is_floating_point():
            total = sum((state[name].double() for state in states[1:]), states[0][name].double())
            mean[name] = (total / len(states)).to(last.dtype)
        else:
            mean[name] = last
    return mean


class Last:
    """The weights at the end of the run."""

    ended = False
    """Whether the run need not go on."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds what must survive a kill; it is made when something must."""
        self.folder = folder
        self.last: Snapshot | Evaluation | None = None
        """The moment of the run that the weights are of."""

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Is told of each evaluation, and again of those that a resumed run has behind it."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Is shown the run at its eighths."""
        self.last = snapshot

    def weights(self, model: nn.Module | None) -> State:
        """The weights that are kept, given the model at the end of the run (None: it ended before)."""
        if model is None:
            raise ValueError("the run has not ended")
        return weights_on_cpu(model)

    def remove(self) -> None:
        """Deletes what is on the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Soup(Last):
    """The mean of the weights at the last eighths of the run."""

    def __init__(self, folder: Path, size: int) -> None:
        """`size` is the number of eighths, 1 … 8."""
        super().__init__(folder)
        self._size = size

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Keeps the weights, if it is one of the last eighths."""
        super().on_snapshot(snapshot)
        if snapshot.eighth > EIGHTHS - self._size:
            _write(self._file(snapshot.eighth), weights_on_cpu(snapshot.model))

    def weights(self, model: nn.Module | None) -> State:  # noqa: ARG002 - the last one is on the disk, too
        """The mean; a run of fewer steps than eighths has fewer to average."""
        files = [self._file(eighth) for eighth in range(EIGHTHS - self._size + 1, EIGHTHS + 1)]
        return average([load_file(file) for file in files if file.is_file()])

    def _file(self, eighth: int) -> Path:
        return self.folder / f"{eighth}.safetensors"


class Best(Last):
    """The weights with the best evaluation; the run ends when they have been the best for long enough."""

    def __init__(self, folder: Path, metric: str, patience: int) -> None:
        """`patience` is the number of evaluations without improvement that end the run."""
        super().__init__(folder)
        self._metric, self._patience = metric, patience
        self._sign = 1 if direction(metric) == "maximize" else -1
        self._told: dict[int, Evaluation] = {}

    @property
    def ended(self) -> bool:  # type: ignore[override]
        """Whether the last evaluations brought nothing better."""
        return self.last is not None and sum(step > self.last.step for step in self._told) >= self._patience

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Notes it; an evaluation that is told twice is one."""
        self._told[evaluation.step] = evaluation
        self.last = max(self._told.values(), key=lambda e: (self._sign * e.metrics[self._metric], -e.step))

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Keeps the weights, if no earlier ones are as good."""
        if snapshot.evaluation is None:
            return
        self.on_evaluation(snapshot.evaluation)
        if self.last is snapshot.evaluation:
            _write(self._file, weights_on_cpu(snapshot.model))

    def weights(self, model: nn.Module | None) -> State:  # noqa: ARG002 - they are on the disk
        """The best ones."""
        return load_file(self._file)

    @property
    def _file(self) -> Path:
        return self.folder / "best.safetensors"


def _write(path: Path, state: dict[str, Tensor]) -> None:
    try:
        with write_atomically(path) as temporary:
            save_file(state, temporary)
    except OSError as exc:
        raise WeightsError(f"cannot keep weights in {path}: {exc.strerror or exc}") from exc
