"""A made-up FFDV set of videos muxed with voices, searched over views; the fused AUC beside that of each view.

    python studies/benchmarks/ffdv.py --videos ../shared/data/ffdv_videos --voices ../shared/data/audio_voices \
        --weights-dir ../shared/weights --out /tmp/ffdv --timeout 20m

Three-second pieces of each video get a voice: of real videos two in three a real one (label 0) and one in three a
cloned one (label 1); forged videos half real and half cloned voices (label 1). So no view sees all that is forged: a
face tells nothing of a cloned voice, nor a voice of a forged face. One piece in ten has no sound. The pieces of one
source, and the voices laid under them, are a group: neither a face nor a recording is on both sides of a split.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

SECONDS, RATE, SOUND_RATE_HZ, SIDE = 3.0, 25, 16_000, 480
PIECES = {0: 10, 1: 4}  # of a real and of a forged video
SILENT = 10  # one piece in so many has no sound


def main() -> None:
    """Makes the set, if it is not there, and searches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="FFDV layout, with groups.csv")
    parser.add_argument("--voices", type=Path, required=True, help="folders real/ and fake/")
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--timeout", default="20m", help="of the search")
    parser.add_argument("--only-make", action="store_true")
    args = parser.parse_args()
    began = time.monotonic()
    data = args.out / "data"
    if not (data / "groups.csv").exists():
        make(args.videos, args.voices, data)
        print(f"made in {time.monotonic() - began:.0f} s")
    if args.only_make:
        return
    runs, automl = args.out / "runs", [sys.executable, "-m", "automl"]
    common = ["--runs", str(runs)]
    search = ["--spec", "ffdv", "--data", str(data), "--name", "made", "--weights-dir", str(args.weights_dir)]
    budget = ["--trials", str(args.trials), "--timeout", args.timeout, "--confirm", "0", "--holdout-fraction", "0.25"]
    for command in (["search", *search, *budget, *common], ["ensemble", "made", *common]):
        started = time.monotonic()
        subprocess.run([*automl, *command], check=True)
        print(f"automl {command[0]}: {time.monotonic() - started:.0f} s", flush=True)
    print(json.dumps(json.loads((runs / "made" / "ensemble.json").read_text()), indent=1)[:4000])


def make(videos: Path, voices: Path, out: Path) -> None:
    """Writes the pieces in the FFDV layout, and which belong together."""
    (out / "trainset").mkdir(parents=True, exist_ok=True)
    pools = {0: sorted((voices / "real").iterdir()), 1: sorted((voices / "fake").iterdir())}
    clips = sorted(labelled(videos))
    groups = read_column(videos / "groups.csv")
    places = {name: number for number, name in enumerate(sorted(set(groups.values())))}
    used: dict[tuple[str, int], int] = defaultdict(int)
    rows = []
    for path, forged in clips:
        group = groups[path.name]
        for number in range(PIECES[forged]):
            cloned = number % 2 if forged else int(number % 3 == 2)
            # each group has voices of its own, every n-th of all
            own = pools[cloned][places[group] :: len(places)]
            voice = own[used[group, cloned] % len(own)]
            used[group, cloned] += 1
            silent = len(rows) % SILENT == SILENT - 1
            label = int(bool(forged or (cloned and not silent)))
            name = f"{len(rows):04d}.mp4"
            piece(path, number, PIECES[forged], None if silent else voice, out / "trainset" / name)
            rows.append((name, label, group))
    write(out / "trainset_label.txt", ("video_name", "target"), [row[:2] for row in rows])
    write(out / "groups.csv", ("video_name", "group"), [(name, group) for name, _, group in rows])
    print(f"{len(rows)} clips, {sum(label for _, label, _ in rows)} of them forged, {len(places)} groups")


def piece(video: Path, number: int, count: int, voice: Path | None, out: Path) -> None:
    """Writes one of `count` evenly placed pieces of a video, with a voice."""
    import av

    from automl.media.info import probe_media
    from automl.media.sound import read_sound
    from automl.media.video import read_frames

    length = probe_media(video).duration_seconds or SECONDS
    start = max(0.0, length - SECONDS) * number / max(1, count - 1)
    times = start + np.arange(int(SECONDS * RATE)) / RATE
    frames = read_frames(video, times_seconds=times.clip(0, length - 0.05).tolist(), size=SIDE)
    height, width = (side // 2 * 2 for side in frames.pixels.shape[1:3])
    with av.open(str(out), "w") as container:
        moving = container.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast"})
        moving.height, moving.width, moving.pix_fmt = height, width, "yuv420p"
        sound = None
        if voice is not None:
            sound = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono")
        for position, pixels in enumerate(frames.pixels):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
            picture.pts, picture.time_base = position, Fraction(1, RATE)
            container.mux(moving.encode(picture))
        container.mux(moving.encode())
        if sound is not None and voice is not None:
            wave = read_sound(voice, SOUND_RATE_HZ, 0.0, SECONDS)[None]
            samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = SOUND_RATE_HZ, 0, Fraction(1, SOUND_RATE_HZ)
            container.mux(sound.encode(samples))
            container.mux(sound.encode())


def labelled(videos: Path) -> Iterator[tuple[Path, int]]:
    """The videos and whether they are forged."""
    for name in ("trainset", "valset"):
        for file, target in read_column(videos / f"{name}_label.txt").items():
            yield videos / name / file, int(target)


def read_column(file: Path) -> dict[str, str]:
    """The second column of a table by the first."""
    with file.open(newline="") as handle:
        rows = list(csv.reader(handle))
    return {row[0]: row[1] for row in rows[1:]}


def write(file: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Writes a table."""
    with file.open("w", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
