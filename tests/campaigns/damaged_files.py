"""A thousand real files, damaged at random, through `data`, a two-trial search, `train` and `predict`.

    pytest tests/campaigns/damaged_files.py -m campaign -n 0 -s
    AUTOML_CAMPAIGN_FILES=100 AUTOML_CAMPAIGN_SEED=7 pytest tests/campaigns/damaged_files.py -m campaign -n 0 -s

For each kind of the shared sets (faces, photographs, voices, clips), damaged files lie beside whole ones, in two
classes. Nothing may crash or hang; every row of the table to predict must be in the submission; every file is read,
named with a reason, or counted. The tables that are printed say how each kind of damage ended. A seed that fails
becomes a test of the part that failed.
"""

import csv
import io
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import pytest
import soundfile
from PIL import Image

from automl.data.dataset import open_dataset
from automl.data.summary import summarise
from automl.media.images import read_rgb
from automl.media.info import probe_media
from automl.spec import DataSpec

pytestmark = [pytest.mark.campaign, pytest.mark.shared]

FILES = int(os.environ.get("AUTOML_CAMPAIGN_FILES", "1000"))
SEED = int(os.environ.get("AUTOML_CAMPAIGN_SEED", "0"))
SECONDS = 1500
"""For one command on a machine that does other things as well; a hang takes longer."""

SPACE = """
backbone: {{pool: {{}}}}
view: {view}
image_size: 32
batch_size: 8
epochs: 1
learning_rate: {{float: [1e-3, 1e-2], log: true}}
"""
FRAME, MEL = "{choice: {frame: {count: 2}}}", "{choice: {mel: {count: 1, seconds: 1.0}}}"


# --- damage


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    """Between one and a hundred bits, anywhere."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 3, 10, 100])):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def flip_header(content: bytes, rng: random.Random) -> bytes:
    """A few bytes of the first two hundred, any value."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 4])):
        found[rng.randrange(min(200, len(found)))] = rng.randrange(256)
    return bytes(found)


def cut(content: bytes, rng: random.Random) -> bytes:
    """The end is missing; now and then all of it."""
    return content[: rng.choice([0, 1, 17, *(rng.randrange(len(content)) for _ in range(9))])]


def zero_run(content: bytes, rng: random.Random) -> bytes:
    """A run of zeros, as a download that was resumed at the wrong place has it."""
    begin, length = rng.randrange(len(content)), rng.choice([16, 512, 4096, len(content) // 3])
    return content[:begin] + bytes(min(length, len(content) - begin)) + content[begin + length :]


def double_header(content: bytes, rng: random.Random) -> bytes:
    """The beginning comes twice."""
    size = rng.choice([12, 64, 512, 4096])
    return content[:size] + content


def swap_parts(content: bytes, rng: random.Random) -> bytes:
    """Two blocks change places."""
    size = max(1, len(content) // 8)
    one, two = sorted(rng.sample(range(max(2, len(content) // size)), 2))
    blocks = [content[i : i + size] for i in range(0, len(content), size)]
    if two < len(blocks):
        blocks[one], blocks[two] = blocks[two], blocks[one]
    return b"".join(blocks)


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flips": flip_bits,
    "header bytes": flip_header,
    "cut": cut,
    "zero run": zero_run,
    "doubled header": double_header,
    "swapped blocks": swap_parts,
    "swapped ending": lambda content, _: content,
}
ENDINGS = {
    "image": (".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff"),
    "sound": (".wav", ".flac", ".ogg", ".mp3"),
    "video": (".mp4", ".mkv", ".avi", ".webm"),
}
ANYTHING = (*(ending for endings in ENDINGS.values() for ending in endings), "", ".txt", ".jpg.1", ".heic")


# --- whole files of every kind


def as_image(path: Path, rng: random.Random) -> tuple[bytes, str]:
    """A photograph as one of the usual kinds."""
    ending = rng.choice(ENDINGS["image"])
    if ending == path.suffix:
        return path.read_bytes(), ending
    buffer = io.BytesIO()
    read_rgb(path, short_side=128).save(buffer, Image.registered_extensions()[ending])
    return buffer.getvalue(), ending


def as_sound(path: Path, rng: random.Random) -> tuple[bytes, str]:
    """A voice as one of the usual kinds."""
    ending = rng.choice(ENDINGS["sound"])
    if ending == path.suffix:
        return path.read_bytes(), ending
    samples, rate = soundfile.read(path)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples[: 2 * rate], rate, format=ending[1:].upper())
    return buffer.getvalue(), ending


def as_video(path: Path, rng: random.Random) -> tuple[bytes, str]:
    """A clip's first second in one of the usual containers, as it was coded."""
    ending = rng.choice((".mp4", ".mkv", ".mov"))
    buffer = io.BytesIO()
    with av.open(str(path)) as source, av.open(buffer, "w", format={".mkv": "matroska"}.get(ending, ending[1:])) as out:
        streams = [*source.streams.video[:1], *source.streams.audio[:1]]
        copies = {stream.index: out.add_stream_from_template(stream) for stream in streams}
        for packet in source.demux(streams):
            if packet.dts is None or packet.pts is None or packet.pts * packet.time_base > 1:
                continue
            packet.stream = copies[packet.stream.index]
            out.mux(packet)
    return buffer.getvalue(), ending


KINDS: dict[str, tuple[str, float, str, Callable[[Path, random.Random], tuple[bytes, str]], str]] = {
    "faces": ("ffdi_faces/trainset/*.jpg", 0.35, "", lambda path, _: (path.read_bytes(), path.suffix), "image"),
    "photographs": ("hymenoptera/train/*/*.jpg", 0.35, "", as_image, "image"),
    "voices": ("audio_voices/*/*.wav", 0.15, MEL, as_sound, "sound"),
    "clips": ("ffdv_videos/*/*.mp4", 0.15, FRAME, as_video, "video"),
}
"""By name: the files, their share of all, the view, how one is made, the medium."""


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    quiet = {"HF_HUB_OFFLINE": "1", "AUTOML_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "200"}
    return {**os.environ, **quiet}


def make_set(root: Path, sources: list[Path], make, medium: str, count: int, seed: int) -> dict[str, str]:
    """Whole and damaged files in two classes; returns what was done to each file, by its name."""
    rng, done = random.Random(seed), dict[str, str]()
    for number in range(24 + count):
        content, ending = make(sources[number % len(sources)], rng)
        what = "none" if number < 24 else rng.choice(list(DAMAGE))
        if what != "none":
            content = DAMAGE[what](content, rng)
        if what == "swapped ending":
            ending = rng.choice(ANYTHING)
        name = f"{'ab'[number % 2]}/{number:04d}{ending}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        done[name] = what
    return done


def run(line: list[str], surroundings, expect=(0,)) -> str:
    """Runs a command; fails on a traceback, a signal, a hang or another exit code."""
    words = [sys.executable, "-m", "automl", *map(str, line)]
    started = time.monotonic()
    done = subprocess.run(
        words, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
    )
    assert "Traceback" not in done.stdout, done.stdout[-4000:]
    assert done.returncode in expect, f"exit code {done.returncode}: {done.stdout[-4000:]}"
    print(f"{line[0]}: exit code {done.returncode} after {time.monotonic() - started:.0f} s")
    return done.stdout


def count_told(lines: tuple[str, ...]) -> int:
    """How many files the lines about what is left out account for."""
    counted = (r"(\d+) files? of kinds that are not read", r"(\d+) files are no ", r"(\d+) more files lie there")
    return sum(int(found[1]) for line in lines for one in counted if (found := re.match(one, line)))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_survived_and_told(kind, shared, tmp_path, surroundings, monkeypatch):
    monkeypatch.setenv("AUTOML_CACHE", surroundings["AUTOML_CACHE"])
    pattern, share, view, make, medium = KINDS[kind]
    root, count = tmp_path / "set", round(FILES * share)
    done = make_set(root, sorted((shared / "data").glob(pattern)), make, medium, count, SEED)

    # every file is read, named or counted
    dataset = open_dataset(DataSpec(path=root), 0)
    summary = summarise(dataset)
    unreadable = dict(summary.unreadable)
    told = count_told((*dataset.told, *dataset.problems))
    assert len(dataset.samples) + told == len(done), (dataset.told, dataset.problems)
    printed = run(["data", root, "--no-near-copies"], surroundings)
    assert printed.count("unreadable: ") >= min(len(unreadable), 10)

    rows = {what: Counter() for what in ("none", *DAMAGE)}
    samples = set(dataset.samples["name"])
    for name, what in done.items():
        rows[what]["files"] += 1
        rows[what]["left out" if name not in samples else "unreadable" if name in unreadable else "read"] += 1
    print(f"\n{kind}, seed {SEED}: {len(done)} files")
    print(f"{'damage':16} {'files':>6} {'read':>6} {'unreadable':>11} {'left out':>9}")
    for what, found in rows.items():
        print(f"{what:16} {found['files']:6} {found['read']:6} {found['unreadable']:11} {found['left out']:9}")
    for reason, times in Counter(re.sub(r"[\d.]+", "N", reason) for reason in unreadable.values()).most_common(12):
        print(f"  {times:4} × {reason[:110]}")
    assert rows["none"]["read"] == rows["none"]["files"]  # whole files stay whole

    # a search of two trials, the winner trained, and every row of a table predicted
    space = tmp_path / "space.yaml"
    text = SPACE.format(view=view) if view else SPACE.replace("view: {view}\n", "").format()
    space.write_text(text)
    search = ["search", "--data", root, "--runs", tmp_path / "runs", "--space", space, "--trials", 2, "--confirm", 0]
    search += ["--backbones", "test_byobnet*", "--pool-size", 1, "--pretrained", "never", "--device", "cpu"]
    told_by_search = run(search, surroundings)
    assert told_by_search.count("2 complete") == 1
    assert not unreadable or any(name in told_by_search for name in unreadable)
    model = tmp_path / "model"
    run(["train", "set", "--runs", tmp_path / "runs", "--out", model, "--device", "cpu"], surroundings)

    table = root / "to_predict.csv"
    names = list(done)
    with table.open("w", newline="") as handle:
        csv.writer(handle).writerows([["file"], *([name] for name in names)])
    submission = tmp_path / "submission.csv"
    printed = run(["predict", model, "--data", table, "--out", submission, "--device", "cpu"], surroundings)
    with submission.open() as handle:
        predicted = list(csv.DictReader(handle))
    assert [row["file"] for row in predicted] == names
    assert all(0 <= float(row["y_pred"]) <= 1 for row in predicted)
    found = re.search(r"(\d+) of \d+ files cannot be read", printed)
    told_lost = int(found[1]) if found else 0
    assert told_lost >= len(unreadable)
    print(f"predict: {len(predicted)} rows, {told_lost} with the training prior")

    table.unlink()
    printed = run(["predict", model, "--data", root, "--out", submission, "--device", "cpu"], surroundings)
    with submission.open() as handle:
        predicted_names = [row["file_name" if "file_name" in row else "img_name"] for row in csv.DictReader(handle)]
    assert predicted_names == sorted(predicted_names)
    assert samples <= set(predicted_names)
    told = count_told(tuple(line.removeprefix("note: ") for line in printed.splitlines()))
    assert len(predicted_names) + told == len(done)
    shutil.rmtree(tmp_path / "runs")


def test_whole_files_of_every_kind_are_made_as_they_should(shared):
    rng = random.Random(0)
    for pattern, _, _, make, medium in KINDS.values():
        source = sorted((shared / "data").glob(pattern))[0]
        content, ending = make(source, rng)
        file = Path(os.environ.get("TMPDIR", "/tmp")) / f"campaign-{os.getpid()}{ending}"
        file.write_bytes(content)
        try:
            if medium == "image":
                assert min(read_rgb(file).size) > 30
            else:
                assert (probe_media(file).duration_seconds or 0) > 0.5
        finally:
            file.unlink()
