"""What joins the scores of a model folder's members, where they are not averaged."""

from collections.abc import Sequence
from pathlib import Path

from automl.errors import WeightsError
from automl.models.folder import read_fusion
from automl.models.scorer import Join, Member


def join_of(path: Path, members: Sequence[Member]) -> Join | None:
    """The `Join` of an ensemble that `automl ensemble` wrote; None for any other model.

    Args:
        path: The model folder, or the ensemble's.
        members: Its members.

    Raises:
        WeightsError: If `fusion.json` is damaged, or does not fit the members.
    """
    fusion = read_fusion(path)
    if fusion is None:
        return None
    labels = members[0].folder.labels
    if len(labels.classes) != 2:
        raise WeightsError(f"{path}: fusion.json joins models of two classes, and these have {len(labels.classes)}")
    names = [member.folder.path.name for member in members]
    return lambda scores: fusion.score(dict(zip(names, scores, strict=True)), labels.positive)
