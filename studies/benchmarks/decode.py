"""Speed of reading video and sound: automl against OpenCV, which reads every frame, and against librosa.

    python studies/benchmarks/decode.py --data ../shared/data/ffdv_videos ../shared/data/audio_voices

Videos: K frames of each clip, evenly spread, at full size as RGB. `cv2` reads and converts every frame with
`cv2.VideoCapture` and keeps K of them, which is what is usually written; `automl` is `read_frames(count=K)`. Each
clip is read by both, one after the other, the order turning every clip, and the ratio is that of the two times: a
machine that is slower for a while does not decide. One clip is also repeated to `--long-seconds`, without encoding it
again, to show what seeking gives when a clip has many keyframes.

Threads: all clips are read in three ways, `files` (a thread per core, one decoder thread each: as automl's processes
have it), `decoder` (one clip after the other, FFmpeg's own threads in each) and `one` (a single thread). The seconds of
work are processor time: they stay the same when others use the machine too.

Sound: `read_sound` against `librosa.load` at the same sample rate, each file whole.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

__all__ = ["main", "read_every_frame", "repeat_clip"]

_SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def read_every_frame(path: Path, count: int) -> list[Any]:
    """Reads all frames with OpenCV and returns those in the middle of `count` equal parts, as RGB."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = {(2 * i + 1) * frames // (2 * count) for i in range(count)}
    kept, number = [], 0
    while True:
        there, frame = capture.read()
        if not there:
            break
        if number in wanted:
            kept.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        number += 1
    capture.release()
    return kept


def repeat_clip(source: Path, target: Path, seconds: float) -> None:
    """Writes the packets of a clip's video track again and again until it lasts so long."""
    import av

    with av.open(str(target), "w") as output:
        stream, shift, base = None, 0, Fraction(1)
        while stream is None or shift * base < seconds:
            with av.open(str(source)) as container:
                track = container.streams.video[0]
                if stream is None:
                    stream = output.add_stream_from_template(track)
                    base = Fraction(track.time_base or 1)
                length = track.duration or 0
                for packet in container.demux(track):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    packet.time_base = base
                    output.mux(packet)
                shift += length
                if shift * base >= seconds:
                    break


def _timed(function: Callable[[], Any]) -> float:
    """Seconds of wall clock."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _compare(what: str, paths: list[Path], theirs: Callable[[Path], Any], ours: Callable[[Path], Any]) -> str:
    """Reads each file both ways; one line with the medians and the ratios."""
    theirs(paths[0])  # imports, and the first file from the disk
    ours(paths[0])
    seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
    for number, path in enumerate(paths):
        ways = [("theirs", theirs), ("ours", ours)]
        for name, way in ways if number % 2 == 0 else ways[::-1]:
            seconds[name].append(_timed(lambda way=way, path=path: way(path)))  # type: ignore[misc]
    ratios = sorted(a / b for a, b in zip(seconds["theirs"], seconds["ours"], strict=True))
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    return (
        f"{what}: {medians['theirs']:.1f} ms, automl {medians['ours']:.1f} ms a file (medians of {len(paths)}); "
        f"times as fast: {statistics.median(ratios):.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"
    )


def _threads(paths: list[Path], count: int) -> Iterable[str]:
    """Reads all clips in the three ways of using the cores; one line each."""
    from automl.media import video
    from automl.media.video import read_frames
    from automl.processes import cpu_threads, in_threads

    def read(path: Path) -> None:
        read_frames(path, count=count)

    def in_files() -> None:
        for _ in in_threads(read, paths, ahead=2 * cpu_threads()):
            pass

    def one_by_one() -> None:
        for path in paths:
            read(path)

    for name, threads, way in (("files", 1, in_files), ("decoder", 0, one_by_one), ("one", 1, one_by_one)):
        video.THREADS = threads
        worked = time.process_time()
        seconds = _timed(way)
        worked = time.process_time() - worked
        yield f"threads={name}: {seconds:.2f} s, {worked:.2f} s of work, {len(paths)} clips, {cpu_threads()} cores"
    video.THREADS = 1


def _find(folders: list[Path], endings: frozenset[str], limit: int) -> list[Path]:
    """At most `limit` files with such endings, spread over all there are."""
    files = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in endings)
    return files[:: max(1, -(-len(files) // limit))]


def main(arguments: list[str] | None = None) -> None:
    """Reads the files and prints a line for each comparison."""
    from automl.media.opening import SOUND_ENDINGS, VIDEO_ENDINGS, require
    from automl.media.sound import read_sound
    from automl.media.video import read_frames

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [_SHARED / "ffdv_videos", _SHARED / "audio_voices"]
    parser.add_argument("--data", type=Path, nargs="+", default=default, help="folders of videos and sounds")
    parser.add_argument("--count", type=int, default=8, help="frames of each clip (default 8)")
    parser.add_argument("--limit", type=int, default=100, help="files of each kind at most (default 100)")
    parser.add_argument("--long-seconds", type=float, default=180, help="length of the repeated clip; 0: none")
    parser.add_argument("--sample-rates", type=int, nargs="+", default=[16_000, 22_050])
    args = parser.parse_args(arguments)
    clips, sounds = _find(args.data, VIDEO_ENDINGS, args.limit), _find(args.data, SOUND_ENDINGS, args.limit)
    if clips:

        def cv2_way(path: Path) -> Any:
            return read_every_frame(path, args.count)

        def our_way(path: Path) -> Any:
            return read_frames(path, count=args.count)

        print(_compare(f"{args.count} frames, cv2 reading all", clips, cv2_way, our_way), flush=True)
        if args.long_seconds:
            with tempfile.TemporaryDirectory() as folder:
                long = Path(folder) / "long.mp4"
                repeat_clip(min(clips, key=lambda path: path.stat().st_size), long, args.long_seconds)
                print(_compare(f"the same of {args.long_seconds:.0f} s", [long], cv2_way, our_way), flush=True)
        for line in _threads(clips, args.count):
            print(line, flush=True)
    for rate in args.sample_rates if sounds else ():
        librosa = require("librosa")
        what = f"sound at {rate} Hz, librosa"
        print(_compare(what, sounds, lambda p: librosa.load(p, sr=rate), lambda p: read_sound(p, rate)), flush=True)  # noqa: B023


if __name__ == "__main__":
    main()
