import socket

import pytest

from automl.errors import StudyError
from automl.study.folder import StudyFolder
from automl.study.joined_worker import join_as_begun
from automl.study.setup import load_setup


def test_a_machine_with_data_under_the_same_path_joins_with_a_folder_of_its_own(new_study, tmp_path):
    study, folder = new_study()
    elsewhere = StudyFolder(tmp_path / "node" / "tones")
    join_as_begun(study, elsewhere, "cpu")
    there, here = load_setup(study, elsewhere).dataset.samples, load_setup(study, folder).dataset.samples
    assert there[["path", "label", "split"]].equals(here[["path", "label", "split"]])
    assert len(there) == 48


def test_a_machine_without_the_data_is_named(new_study, images, tmp_path):
    study, _ = new_study()
    away = images.rename(images.with_name("away"))
    try:
        with pytest.raises(StudyError, match=f"^{socket.gethostname()} cannot join the study: .*{images}"):
            join_as_begun(study, StudyFolder(tmp_path / "node" / "tones"), "cpu")
    finally:
        away.rename(images)
