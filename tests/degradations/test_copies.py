import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automl.degradations import copies, encoding
from automl.degradations.copies import degrade_file, degrade_files
from automl.degradations.degradation import choose_degradations
from automl.errors import DataError, SpecError
from automl.media.images import read_rgb
from tests.fixtures.clips import tone, write_sound, write_video


def choose(name):
    (item,) = choose_degradations([name])
    return item


@pytest.fixture
def photos(tmp_path):
    """Twelve images in two folders, of the same names in both."""
    paths = []
    for folder in ("real", "fake"):
        for number in range(6):
            path = tmp_path / folder / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), (len(folder), 40 * number, 9)).save(path)
            paths.append(path)
    return paths


def test_each_source_has_its_copy_in_order(photos, tmp_path):
    steps = []
    results = degrade_files(photos, choose("darker"), tmp_path / "copies", lambda *step: steps.append(step))
    assert len(set(results)) == 12
    assert steps == [(done, 12) for done in range(13)]
    for source, copy in zip(photos, results, strict=True):
        assert copy.parent == tmp_path / "copies"
        assert copy.name.startswith(f"{source.stem}-")
        red, green, blue = read_rgb(source).getpixel((3, 3))
        assert read_rgb(copy).getpixel((3, 3)) == (int(0.6 * red), int(0.6 * green), int(0.6 * blue))
        assert degrade_file(source, choose("darker"), tmp_path / "alone").read_bytes() == copy.read_bytes()


def test_what_is_there_is_not_made_again(photos, tmp_path):
    folder = tmp_path / "copies"
    first = degrade_files(photos[:5], choose("darker"), folder)
    before = [path.stat().st_mtime_ns for path in first]
    steps = []
    everything = degrade_files(photos, choose("darker"), folder, lambda *step: steps.append(step))
    assert everything[:5] == first
    assert [path.stat().st_mtime_ns for path in first] == before
    assert steps[0] == (5, 12)
    assert steps[-1] == (12, 12)
    assert len(list(folder.iterdir())) == 12


def test_a_copy_of_another_file_or_other_steps_is_not_taken(photos, tmp_path):
    folder = tmp_path / "copies"
    source = photos[0]
    (first,) = degrade_files([source], choose("darker"), folder)
    (other,) = degrade_files([source], choose("darker").model_copy(update={"steps": choose("brighter").steps}), folder)
    Image.new("RGB", (8, 8)).save(source)
    (changed,) = degrade_files([source], choose("darker"), folder)
    assert len({first, other, changed}) == 3
    assert read_rgb(changed).size == (8, 8)


def test_one_file_twice_is_one_copy(photos, tmp_path):
    first, second = degrade_files([photos[0], photos[0]], choose("jpeg-50"), tmp_path / "copies")
    assert first == second
    assert [path.name for path in (tmp_path / "copies").iterdir()] == [first.name]


def test_what_cannot_be_read_is_one_error_and_the_others_have_copies(photos, tmp_path):
    broken, empty, missing, text = (tmp_path / name for name in ("broken.jpg", "empty.png", "missing.png", "a.txt"))
    broken.write_bytes(b"\xff\xd8\xff\xe0 this is no JPEG")
    empty.touch()
    text.write_text("hello")
    results = degrade_files(
        [broken, photos[0], empty, missing, text, photos[1]], choose("jpeg-50"), tmp_path / "copies"
    )
    kinds = [type(result) for result in results]
    assert [isinstance(result, Path) for result in results] == [False, True, False, False, False, True], results
    assert all(issubclass(kind, Path | DataError) for kind in kinds)
    for result, path in zip(results, [broken, None, empty, missing, text], strict=False):
        assert path is None or str(result).startswith(f"cannot read {path}: ")
    assert "no such file" in str(results[3]).lower()
    assert "neither an image, a video nor a sound" in str(results[4])
    assert len(list((tmp_path / "copies").iterdir())) == 2  # nothing half-written either


@pytest.mark.parametrize(
    ("degradation", "make", "message"),
    [
        (
            "mp3-32",
            "photo.png",
            r"'mp3-32' is for sound and video files, and .*photo\.png is of the kind image.*jpeg-90",
        ),
        ("jpeg-90", "clip.mp4", r"'jpeg-90' is for image files, .* kind video, .*h264-28.*mp3-32"),
        ("h264-28", "voice.wav", r"'h264-28' is for video files, and .* kind sound, for which there are: mp3-32"),
    ],
)
def test_a_degradation_of_another_medium_is_refused_with_those_that_apply(degradation, make, message, tmp_path):
    path = tmp_path / make
    if path.suffix == ".png":
        Image.new("RGB", (8, 8)).save(path)
    elif path.suffix == ".mp4":
        write_video(path)
    else:
        write_sound(path, tone(0.2, 8000), 8000)
    for apply in (
        lambda: degrade_file(path, choose(degradation), tmp_path / "copies"),
        lambda: degrade_files([path], choose(degradation), tmp_path / "copies"),
    ):
        with pytest.raises(SpecError, match=message) as error:
            apply()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize(("name", "encoder"), [("mp3-32", "libmp3lame"), ("frames-half", "libx264")])
def test_an_encoder_that_is_missing_is_one_line(name, encoder, tmp_path, monkeypatch):
    import av

    def refuse(codec, mode):
        raise av.codec.codec.UnknownCodecError(codec)

    monkeypatch.setattr(av.codec, "Codec", refuse)
    path = write_video(tmp_path / "clip.mp4", sound=tone(1.0, 16_000))
    with pytest.raises(
        SpecError, match=rf"'{name}' needs the encoder {encoder}, which the installed PyAV .* was built without"
    ):
        degrade_files([path], choose(name), tmp_path / "copies")


def test_a_folder_that_cannot_be_written_is_one_line(photos, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SpecError, match=r"cannot write .*taken.*choose another folder"):
        degrade_files(photos, choose("darker"), tmp_path / "taken")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["h264-28", "mp3-32", "darker"])
def test_a_full_disk_is_one_line_about_the_copy(name, tmp_path, monkeypatch):
    if name == "darker":
        Image.new("RGB", (8, 8)).save(source := tmp_path / "photo.png")
    else:
        source = write_video(tmp_path / "clip.mp4", sound=tone(1.0, 16_000))

    class Full:
        def __enter__(self):
            return Path("/dev/full")

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(copies, "write_atomically", lambda _path: Full())
    with pytest.raises(SpecError, match=r"cannot write .*: No space left on device; the disk is full; choose another"):
        degrade_file(source, choose(name), tmp_path / "copies")


def test_what_was_left_half_written_is_removed_once_it_is_old(photos, tmp_path):
    folder = tmp_path / "copies"
    folder.mkdir()
    old, new = folder / ".a.png.x.tmp", folder / ".b.png.x.tmp"
    old.touch()
    new.touch()
    hour_ago = time.time() - 3600
    os.utime(old, (hour_ago, hour_ago))
    degrade_files(photos[:1], choose("darker"), folder)
    assert not old.exists()
    assert new.exists()


def test_a_long_or_odd_name_has_a_copy(tmp_path):
    for name in ("ж" * 120 + ".png", "a b;c'd.png", "-x.png"):
        path = tmp_path / name
        Image.new("RGB", (4, 4)).save(path)
        assert read_rgb(degrade_file(path, choose("darker"), tmp_path / "copies")).size == (4, 4)


def test_real_faces_and_their_copies(shared, tmp_path):
    faces = sorted((shared / "data" / "ffdi_faces" / "valset").glob("*.jpg"))[:8]
    results = degrade_files(faces, choose("jpeg-30"), tmp_path)
    for face, copy in zip(faces, results, strict=True):
        before, after = (np.asarray(read_rgb(path)).astype(float) for path in (face, copy))
        assert before.shape == after.shape
        assert 1 < np.sqrt(np.square(before - after).mean()) < 20


def test_the_containers_are_those_that_are_written():
    assert {item.steps[-1].ending for item in choose_degradations(["*"], medium="sound")} - {None} <= set(
        encoding._CONTAINERS
    )
