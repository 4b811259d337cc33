"""A study's storage as optuna-dashboard reads it: the study itself, and over it what is made for people.

Nothing is written to the study but the notes that people write, so that a search pays nothing for being watched: names,
notes and lists of pictures are made from what the storage holds, and a picture when a browser asks for it.
"""

import copy
import io
import json
import secrets
from collections import OrderedDict
from typing import Any, BinaryIO, NoReturn

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial

from automl.dashboard.description import Describer
from automl.dashboard.pictures import Pictures
from automl.errors import AutomlError, StudyError, first_line
from automl.study.trial_record import best_trial

_NOTE_VERSION, _NOTE_TEXT = "dashboard:{}note_ver", "dashboard:{}note_str:0"
"""Names under which optuna-dashboard reads a note; between the braces stands the trial."""

_TYPES = {"svg": "image/svg+xml", "jpg": "image/jpeg", "csv": "text/csv"}
_KEPT = 200
"""Pictures in memory; the largest are some 100 kB."""


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise StudyError("the dashboard only looks at a study")


_REFUSED: Any = _refuse


class ShownStorage(BaseStorage):
    """Shows one study of a storage."""

    def __init__(self, study: optuna.Study, describer: Describer, pictures: Pictures) -> None:
        self._study, self._describer, self._pictures = study, describer, pictures
        self._storage = study._storage
        self._ended: dict[int, tuple[FrozenTrial, str]] = {}  # as they are shown, with their notes
        self.token = secrets.token_hex(8)
        """What the addresses of pictures begin with: other web pages may ask for addresses that they can guess."""

    create_new_study = delete_study = set_study_user_attr = create_new_trial = set_trial_param = _REFUSED
    set_trial_state_values = set_trial_intermediate_value = set_trial_user_attr = set_trial_system_attr = _REFUSED

    # --- the study --------------------------------------------------------------------------------------------------

    def get_all_studies(self) -> list[FrozenStudy]:
        """Returns the one study."""
        study = self._study
        attributes = self.get_study_user_attrs(study._study_id), self.get_study_system_attrs(study._study_id)
        return [FrozenStudy(study.study_name, study.direction, *attributes, study._study_id)]

    def get_study_id_from_name(self, study_name: str) -> int:
        """Returns what the storage holds."""
        return self._storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Returns what the storage holds."""
        return self._storage.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Returns what the storage holds."""
        return self._storage.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:  # noqa: ARG002
        """Returns attributes for people, in place of what workers read."""
        return dict(self._describer.list_study_attributes(self._study))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Returns the notes, those that people wrote before ours, and the name of the metric."""
        kept = self._storage.get_study_system_attrs(study_id)
        kept = {name: value for name, value in kept.items() if not name.startswith("automl:")}
        notes = {"": self._describer.write_study_note(self._study)}
        notes |= {f"{trial._trial_id}:": note for trial, note in self._list_shown()}
        shown: dict[str, Any] = {"study:metric_names": [self._describer.setup.objective]}
        for whose, note in notes.items():
            if _NOTE_VERSION.format(whose) not in kept:
                shown |= {_NOTE_VERSION.format(whose): 1, _NOTE_TEXT.format(whose): note}
        return shown | kept

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Writes a note to the storage."""
        self._storage.set_study_system_attr(study_id, key, value)

    # --- trials -----------------------------------------------------------------------------------------------------

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:  # noqa: ARG002
        """Returns the trials with attributes for people and their pictures."""
        shown = [trial for trial, _ in self._list_shown() if states is None or trial.state in states]
        return copy.deepcopy(shown) if deepcopy else shown

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Returns a trial with attributes for people and its pictures."""
        return self._show_trial(self._storage.get_trial(trial_id))[0]

    def _list_shown(self) -> list[tuple[FrozenTrial, str]]:
        return [self._show_trial(trial) for trial in self._study.get_trials(deepcopy=False)]

    def _show_trial(self, trial: FrozenTrial) -> tuple[FrozenTrial, str]:
        """Returns a trial as it is shown, and its note; of one that has ended they are made once."""
        if trial._trial_id in self._ended:
            return self._ended[trial._trial_id]
        shown = copy.copy(trial)
        shown.user_attrs = dict(self._describer.list_trial_attributes(trial))
        pictures = {}
        for name in self._pictures.list_names(trial):
            mimetype = _TYPES[name.partition(".")[2]]
            artifact = {"artifact_id": self._address(trial, name), "filename": name, "mimetype": mimetype}
            pictures[f"artifacts:{artifact['artifact_id']}"] = json.dumps(artifact | {"encoding": None})
        shown._system_attrs = trial._system_attrs | pictures
        both = shown, self._describer.write_trial_note(trial)
        if trial.state.is_finished():
            self._ended[trial._trial_id] = both
        return both

    def _address(self, trial: FrozenTrial, name: str) -> str:
        """Returns the address of a picture: hexadecimal digits and `-`, as optuna-dashboard reads it."""
        return f"{self.token}-{trial.number:x}-{name.encode().hex()}"


class PictureStore:
    """Draws pictures when they are asked for, as optuna-dashboard asks a store of artifacts for files."""

    def __init__(self, storage: ShownStorage, study: optuna.Study, pictures: Pictures) -> None:
        self._storage, self._study, self._pictures = storage, study, pictures
        self._drawn: OrderedDict[str, bytes] = OrderedDict()

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Returns a picture.

        Raises:
            ArtifactNotFound: If there is none of this address, or it cannot be drawn.
        """
        if artifact_id in self._drawn:
            return io.BytesIO(self._drawn[artifact_id])
        token, _, rest = artifact_id.partition("-")
        number, _, coded = rest.partition("-")
        try:
            trial = self._study.get_trials(deepcopy=False)[int(number, 16)]
            name = bytes.fromhex(coded).decode()
        except (ValueError, IndexError) as exc:
            raise ArtifactNotFound(artifact_id) from exc
        if token != self._storage.token or name not in self._pictures.list_names(trial):
            raise ArtifactNotFound(artifact_id)
        try:
            drawn = self._pictures.draw(name, trial, best_trial(self._study))
        except AutomlError as exc:
            raise ArtifactNotFound(f"trial {trial.number}, {name}: {first_line(exc)}") from exc
        if trial.state.is_finished() and name != "curve.svg":  # it is drawn with the best trial, which may change
            self._drawn[artifact_id] = drawn
            while len(self._drawn) > _KEPT:
                self._drawn.popitem(last=False)
        return io.BytesIO(drawn)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:  # noqa: ARG002
        """Refuses: the dashboard only looks."""
        raise ArtifactNotFound(artifact_id)

    def remove(self, artifact_id: str) -> None:
        """Refuses: the dashboard only looks."""
        raise ArtifactNotFound(artifact_id)
