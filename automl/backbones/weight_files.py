"""Pretrained weights as files: where they are published, how large they are, and where they are looked for here.

The machine with the GPU often has no internet. What is fetched elsewhere is put where `automl.backbones.weights` looks.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.backbones.encoders import load_backbones
from automl.backbones.selection import build_filters, explain_no_rows, select_rows
from automl.backbones.weights import HUB_FILE, find_weights, list_places, locate_file
from automl.errors import PoolError

_BYTES_PER_NUMBER = 4
"""Of float32, in which nearly all of timm's weights are published."""


@dataclass(frozen=True)
class WeightFile:
    """The published weights of a backbone."""

    backbone: str
    repository: str
    """On the hub, such as `timm/resnet50.a1_in1k`; "" where timm names none."""
    file: str
    """Its name there."""
    size_bytes: int
    """Computed from the number of weights, in float32; not read anywhere."""
    licence: str
    """As timm writes it; "" where it says nothing."""
    places: tuple[str, ...]
    """Where it may lie below `--weights-dir`; `*` stands for a revision."""
    path: Path | None
    """The file on this machine, in `--weights-dir` or the hub's cache; None where it is in neither."""


def find_weight_files(names: Iterable[str], weights_dir: Path | None = None) -> list[WeightFile]:
    """Describes the published weights of the backbones that names and wildcards mean, in the order of the names.

    Raises:
        PoolError: If a name matches no backbone whose weights are known.
        WeightsError: If `weights_dir` is no folder, or a file in it is no safetensors file.
    """
    table = load_backbones().drop_duplicates("model")
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        if why := explain_no_rows(table, build_filters(table, [name])):
            raise PoolError(why)
        rows |= {row["model"]: row for row in select_rows(table, [name]).to_dict("records")}
    return [_describe_file(row, weights_dir) for row in rows.values()]


def _describe_file(row: dict[str, Any], weights_dir: Path | None) -> WeightFile:
    from timm.models import get_pretrained_cfg, is_model

    backbone = str(row["model"])
    known = is_model(backbone.partition(".")[0])  # the leaderboard has names that this timm may not
    cfg = get_pretrained_cfg(backbone, allow_unregistered=False) if known else None
    weights = find_weights(backbone, weights_dir, hub=False)
    millions = row["params_m"] if math.isnan(row["weights_m"]) else row["weights_m"]
    return WeightFile(
        backbone=backbone,
        repository=(cfg.hf_hub_id if cfg is not None else None) or "",
        file=(cfg.hf_hub_filename if cfg is not None else None) or HUB_FILE,
        size_bytes=round(1e6 * millions * _BYTES_PER_NUMBER),
        licence=row["licence"],
        places=tuple(list_places(backbone)),
        path=locate_file(backbone, weights) if weights else None,
    )
