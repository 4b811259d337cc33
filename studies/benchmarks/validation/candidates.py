"""The candidates of the studies of this folder: frozen features and logistic regressions, each trained in milliseconds.

36 of them: four backbones, three sets of layers and three strengths of an L2 penalty. The features are standardised and
rotated to their 128 main axes, by means of the samples that a search may see, without their labels.
"""

import itertools
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]

LAYERS = {"middle": ("blocks.2",), "last": ("pre_logits",), "all": None}
STRENGTHS = (0.01, 1.0, 100.0)
"""L2 penalties as in `automl.features.probe`, relative to the number of features."""
CLUSTER_BACKBONE = "mobilenetv2_100"
"""The fastest one, by which a search with `--validation hard` clusters."""
_AXES = 128


@dataclass(frozen=True)
class Candidate:
    """A recipe that a search may choose."""

    backbone: str
    layers: str
    strength: float

    @property
    def name(self) -> str:
        """A short name."""
        return f"{self.backbone} {self.layers} {self.strength:g}"


DEFAULT = Candidate(CLUSTER_BACKBONE, "last", 1.0)
"""What one takes without a search."""


@dataclass(frozen=True)
class World:
    """A set of samples with features of every backbone, as `worlds.py` writes them.

    Attributes:
        table: Columns name, group, domain, copy, fake; a row a sample.
        folder: Where the features are.
        name: Of the set.
    """

    table: pd.DataFrame
    folder: Path
    name: str

    @classmethod
    def load(cls, folder: Path, name: str) -> "World":
        """Reads a set."""
        table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
        return cls(table, folder, name)

    @cached_property
    def candidates(self) -> list[Candidate]:
        """All candidates, in a fixed order."""
        return [Candidate(*values) for values in itertools.product(sorted(self._layers), LAYERS, STRENGTHS)]

    @cached_property
    def labels(self) -> Rows:
        """1 for fakes, (N,) int64."""
        return self.table["fake"].to_numpy(np.int64)

    @cached_property
    def _layers(self) -> dict[str, dict[str, NDArray[np.float16]]]:
        """Reads the features of each backbone, layer by layer."""
        paths = sorted(self.folder.glob(f"{self.name}-*.npz"))
        read = {}
        for path in paths:
            with np.load(path, allow_pickle=False) as file:
                read[path.stem.removeprefix(f"{self.name}-")] = dict(file)
        return read

    def read_features(self, backbone: str, layers: str, rows: Rows) -> NDArray[np.float32]:
        """Reads features of some samples, (n, D)."""
        of_layer = self._layers[backbone]
        names = LAYERS[layers] or tuple(of_layer)
        return np.concatenate([of_layer[name][rows] for name in names], axis=1).astype(np.float32)

    def rotate_features(self, known: Rows, rows: Rows) -> dict[tuple[str, str], NDArray[np.float32]]:
        """Rotates the features of some samples to the main axes of the known ones: (n, axes) by backbone and layers."""
        rotated = {}
        for backbone, layers in itertools.product(sorted(self._layers), LAYERS):
            reference = self.read_features(backbone, layers, known)
            mean, deviation = reference.mean(0), reference.std(0)
            deviation[deviation < 1e-6] = 1
            reference = (reference - mean) / deviation
            width = reference.shape[1]
            values, vectors = np.linalg.eigh(
                reference @ reference.T if len(reference) < width else reference.T @ reference
            )
            values, vectors = values[::-1][:_AXES], vectors[:, ::-1][:, :_AXES]
            if len(reference) < width:
                kept = values > 1e-5 * values[0]
                vectors = reference.T @ (vectors[:, kept] / np.sqrt(values[kept]))
            # divided so that one strength suits few features and many
            z = (self.read_features(backbone, layers, rows) - mean) / deviation @ vectors / width**0.5
            rotated[backbone, layers] = z.astype(np.float32)
        return rotated


def train_candidate(features: NDArray[np.float32], labels: Rows, train: Rows, strength: float) -> Scores:
    """Trains on some rows (positions in `features`), and returns the logits of all rows."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations: the AUC has stood still long before
        model = LogisticRegression(C=1 / strength, tol=1e-3, max_iter=100)
        model.fit(features[train], labels[train])
    return np.asarray(features @ model.coef_[0] + model.intercept_[0], np.float64)


def compute_auc(labels: Rows, scores: Scores) -> float:
    """Computes the AUC by ranks; NaN if one class alone is there."""
    hits = labels == 1
    positives, negatives = int(hits.sum()), int((~hits).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)[hits].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))
