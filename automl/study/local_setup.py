"""What of a study is a machine's own: where its copy of the data and of the weights lies, and what its card holds.

The storage knows the paths of the machine that began the study. Another one keeps its own in its folder of the study.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from automl.backbones.weights import Weights, digest_weights, find_weights, hub_reachable, locate_file
from automl.errors import StudyError
from automl.files import write_text
from automl.schema import Part
from automl.study.folder import StudyFolder

if TYPE_CHECKING:
    from automl.study.pool import Pool, PoolEntry  # which imports torch


class OwnWeights(Part):
    """Where a backbone's weights are on this machine."""

    source: Literal["file", "cache", "hub"]
    path: str | None = None


class LocalSetup(Part):
    """What of a study is this machine's own.

    Attributes:
        root: The folder or the label file of its copy of the data.
        face_model: Its YuNet file; None: the study's, if it is there.
        artifacts: The URL under which it reaches the artifacts; None: the study's.
        joined: Whether the study began on another machine: its timings are not of this one.
        memory_bytes: What training may take of its card, where that is less than the study's; None: the study's.
        weights: Of the pool's backbones whose weights lie elsewhere here.
        unusable: Why it cannot train some of the pool's backbones, by their names.
    """

    root: str
    face_model: str | None = None
    artifacts: str | None = None
    joined: bool = False
    memory_bytes: int | None = None
    weights: dict[str, OwnWeights] = Field({})
    unusable: dict[str, str] = Field({})

    @classmethod
    def load(cls, folder: StudyFolder) -> "LocalSetup | None":
        """Reads what `save` wrote; None where there is nothing: the study's own paths are valid.

        Raises:
            StudyError: If the file is damaged.
        """
        try:
            return cls.model_validate_json(folder.local.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, ValidationError) as exc:
            raise StudyError(f"{folder.local} is damaged; delete it, and join the study again") from exc

    def save(self, folder: StudyFolder) -> None:
        """Writes it into the study's folder."""
        text = json.dumps(self.model_dump(mode="json"), indent=1) + "\n"
        write_text(folder.local, text, mode=0o600)  # a URL may hold a password

    def adapt_pool(self, pool: "Pool", memory_bytes: int | None) -> "Pool":
        """Returns the same pool with this machine's weights; what was measured elsewhere is not trusted.

        `memory_bytes` is the budget here.
        """
        return replace(pool, entries=tuple(self._adapt_entry(entry, memory_bytes) for entry in pool.entries))

    def _adapt_entry(self, entry: "PoolEntry", memory_bytes: int | None) -> "PoolEntry":
        if own := self.weights.get(entry.backbone):
            entry = replace(entry, weights=own.source, weights_path=own.path)
        if not self.joined:
            return entry
        fits_all = entry.memory.fits_all and (memory_bytes is None or entry.memory.peak_bytes <= memory_bytes)
        return replace(
            entry, memory=replace(entry.memory, fits_all=fits_all), timing=replace(entry.timing, measured=False)
        )


def find_own_weights(pool: "Pool", weights_dir: Path | None) -> tuple[dict[str, OwnWeights], dict[str, str]]:
    """Finds the weights of a pool's backbones on this machine.

    Returns:
        Where they are, and why those of some cannot be had; both by backbone.

    Raises:
        WeightsError: If the folder is none, or a file in it is not to be read.
    """
    weights, missing = dict[str, OwnWeights](), dict[str, str]()
    pretrained = [entry for entry in pool.entries if entry.weights is not None]
    reach = bool(pretrained) and hub_reachable()
    for entry in pretrained:
        own = find_weights(entry.backbone, weights_dir, hub=reach)
        if own is None:
            where = f"in {weights_dir}" if weights_dir else "on this machine (--weights-dir)"
            missing[entry.backbone] = f"no weights {where}"
        elif not has_weights_of(entry, own):
            missing[entry.backbone] = f"other weights than the study's: {locate_file(entry.backbone, own)}"
        else:
            weights[entry.backbone] = OwnWeights(source=own.source, path=str(own.path.absolute()) if own.path else None)
    return weights, missing


def has_weights_of(entry: "PoolEntry", own: Weights) -> bool:
    """Returns whether weights of this machine are those of an entry, as far as their files are here and known."""
    digest = digest_weights(entry.backbone, own) if entry.weights_digest else ""
    return not digest or digest == entry.weights_digest
