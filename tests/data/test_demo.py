import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from automl.data import demo
from automl.data.demo import PHOTOS, demo_dataset, make_patch
from automl.errors import DataError


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The demo with 24 pairs of each photograph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PAIRS", 24)
        return demo_dataset(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def tiny(monkeypatch):
    """Makes the demo quick to make."""
    monkeypatch.setattr(demo, "PAIRS", 3)
    monkeypatch.setattr(demo, "PHOTOS", PHOTOS[:2])


def test_classes_are_balanced_within_every_photo(small):
    table = pd.read_csv(small / "labels.csv")
    assert list(table.columns) == ["file", "label", "group"]
    counts = table.groupby(["group", "label"]).size()
    assert set(counts) == {24}
    assert len(counts) == 2 * len(PHOTOS)


def test_every_listed_file_is_a_patch_and_none_is_twice(small):
    table = pd.read_csv(small / "labels.csv")
    images = [Image.open(small / file) for file in table.file]
    assert {(image.size, image.mode, image.format) for image in images} == {((64, 64), "RGB", "PNG")}
    assert len({image.tobytes() for image in images}) == len(table)
    assert {path.relative_to(small).as_posix() for path in small.rglob("*.png")} == set(table.file)


def test_simple_statistics_do_not_tell_the_classes_apart(small):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = pd.read_csv(small / "labels.csv")
    pixels = np.stack([np.asarray(Image.open(small / file), np.float32) for file in table.file])
    gradient = np.abs(np.diff(pixels, axis=1)).mean((1, 2, 3))[:, None]
    file_bytes = np.array([[(small / file).stat().st_size] for file in table.file])
    features = np.concatenate([pixels.mean((1, 2)), pixels.std((1, 2)), gradient, file_bytes], axis=1)
    fake = (table.label == "fake").to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(model, features, fake, groups=table.group, cv=GroupKFold(5), method="decision_function")
    assert 0.38 < roc_auc_score(fake, scores) < 0.62


def test_gray_photos_stay_gray(small):
    for file in (small / "fake").glob("camera-*.png"):
        pixels = np.asarray(Image.open(file))
        assert (pixels == pixels[..., :1]).all()


def test_sources_and_licences_are_written(small):
    text = (small / "SOURCES.md").read_text(encoding="utf-8")
    assert all(photo.path in text and photo.licence in text for photo in PHOTOS)


def test_made_once(tiny, tmp_path, monkeypatch):
    folder = demo_dataset(tmp_path)
    before = digest(folder)
    monkeypatch.setattr(demo, "_write_patches", None)  # making it again would fail
    assert demo_dataset(tmp_path) == folder == tmp_path / "demo-v1"
    assert digest(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["demo-v1"]


def test_the_cache_folder_is_the_default(tiny, tmp_path):
    assert demo_dataset() == tmp_path / "cache" / "demo-v1"


def test_the_same_everywhere(tiny, tmp_path):
    assert digest(demo_dataset(tmp_path / "a")) == digest(demo_dataset(tmp_path / "b"))


def test_a_killed_making_is_made_again(tiny, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "make_patch", killed)
        with pytest.raises(KeyboardInterrupt):
            demo_dataset(tmp_path)
    assert not (tmp_path / "demo-v1").exists()
    assert (demo_dataset(tmp_path) / "labels.csv").is_file()


def test_two_at_once_make_one(tiny, tmp_path, monkeypatch):
    make = demo._write_patches

    def slower(folder):
        make(folder)
        monkeypatch.setattr(demo, "_write_patches", make)
        demo_dataset(tmp_path)  # another process was faster

    monkeypatch.setattr(demo, "_write_patches", slower)
    assert len(pd.read_csv(demo_dataset(tmp_path) / "labels.csv")) == 12


def test_a_missing_photo_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "PHOTOS", (demo.Photo("skimage", "data/none.png", "CC0", "nowhere"),))
    with pytest.raises(DataError, match=r"data/none\.png.*reinstall"):
        demo_dataset(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_says_what_to_do(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="AUTOML_CACHE"):
        demo_dataset(tmp_path / "file")


def test_generated_patches_carry_a_periodic_trace():
    photo = PHOTOS[0].read_image()

    def unevenness(kind):
        """Relative spread of the mean step between neighbours over the four positions of a 4 px grid."""
        found = []
        for seed in range(40):
            patch = make_patch(photo, kind, np.random.default_rng(seed)).astype(float).mean(-1)
            steps = np.abs(np.diff(patch, axis=1)).mean(0)[:60].reshape(-1, 4).mean(0)
            found.append(steps.std() / steps.mean())
        return np.mean(found)

    assert unevenness("generated") > 2 * unevenness("real")
