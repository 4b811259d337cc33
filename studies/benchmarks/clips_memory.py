"""That decoding a folder of long clips through a view needs no more memory than decoding a folder of few.

    python studies/benchmarks/clips_memory.py 2 10

For each number of hours a process of its own decodes so many hours of ten-minute videos with sound (one file, linked
under many names, 320 × 240 px, AAC) through the views `frame` and `mel`, and tells its peak resident memory.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

MINUTES, RATE, SOUND_RATE_HZ = 10, 5, 16_000


def main() -> None:
    """Runs one process for each number of hours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hours", type=int, nargs="+")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(args.child, args.hours[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "clip.mp4")
        for hours in args.hours:
            command = [sys.executable, __file__, str(hours), "--child", folder]
            environment = os.environ | {"AUTOML_CACHE": str(Path(folder) / f"cache{hours}")}
            subprocess.run(command, check=True, env=environment)


def measure(folder: Path, hours: int) -> None:
    """Decodes, and prints the time and the peak."""
    from automl.data.cache import build_cache
    from automl.data.dataset import open_dataset
    from automl.spec import DataSpec
    from automl.views.frame import Frame
    from automl.views.mel import Mel

    root = folder / f"hours{hours}"
    for number in range(hours * 60 // MINUTES):
        name = root / ("real", "fake")[number % 2] / f"{number}.mp4"
        name.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / "clip.mp4", name)
    dataset = open_dataset(DataSpec(path=root, holdout_fraction=0, validation_fraction=0.4), 0)
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for view in (Frame(count=8), Mel(count=8)):
        began = time.monotonic()
        cache = build_cache(dataset, 256, view=view)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took, images = time.monotonic() - began, int(cache.counts.sum())
        memory = f"peak {peak / 1024:.0f} MiB ({imports / 1024:.0f} MiB before)"
        print(f"{hours:3} h, {len(cache)} clips, {view.name:5}: {took:5.1f} s, {memory}, {images} images", flush=True)


def write(path: Path) -> None:
    """Ten minutes of noise that moves, and of a tone that rises."""
    import av

    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (60, 400, 3), dtype=np.uint8).repeat(4, axis=0)
    with av.open(str(path), "w") as container:
        moving = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "g": "25"})
        moving.width, moving.height, moving.pix_fmt = 320, 240, "yuv420p"
        sound = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono")
        for number in range(MINUTES * 60 * RATE):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:, number % 80 :][:, :320]), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(moving.encode(frame))
        container.mux(moving.encode())
        times = np.arange(MINUTES * 60 * SOUND_RATE_HZ) / SOUND_RATE_HZ
        wave = (0.3 * np.sin(2 * np.pi * (200 + 2 * times) * times)).astype(np.float32)[None]
        samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = SOUND_RATE_HZ, 0, Fraction(1, SOUND_RATE_HZ)
        container.mux(sound.encode(samples))
        container.mux(sound.encode())


if __name__ == "__main__":
    main()
