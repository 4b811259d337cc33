"""What predicting many files needs of memory, and how fast it is.

    python studies/benchmarks/predict_memory.py [FILES …]

For each number of files (default: 1000 and 10000) a fresh process runs `automl predict` with a tiny network
(test_byobnet.r160_in1k at 64 px, random weights) on as many PNGs of 64 px that it draws itself, and its largest
resident memory is printed. It should not grow with the files. A first line shows what the imports alone need.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = "import sys; sys.argv[0] = 'automl'; from automl.cli.main import run; run()"
IMPORTS = "import pandas, torch, timm, torchvision.transforms.v2, optuna, automl.models.predict"
PEAK = """
import atexit
with_peak = lambda: print("peak", open("/proc/self/status").read().split("VmHWM:")[1].split()[0], flush=True)
atexit.register(with_peak)
"""


def main() -> None:
    """Measures each number of files once."""
    counts = [int(word) for word in sys.argv[1:]] or [1000, 10_000]
    print(f"{'imports':>9}        {measure(IMPORTS, [])[0]:7.1f} MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        for count in counts:
            draw(folder / "images", count)
            arguments = ["predict", folder / "model", "--data", folder / "images", "--device", "cpu"]
            peak, seconds = measure(COMMAND, [*arguments, "--out", folder / f"{count}.csv"])
            rows = (folder / f"{count}.csv").read_bytes().count(b"\n") - 1
            print(f"{rows:>9} files  {peak:7.1f} MB  {rows / seconds:6.0f} files/s, start included")


def write_model(folder: Path) -> None:
    """Writes a model folder with random weights."""
    from automl.backbones.input import InputSpec, read_preprocessing
    from automl.backbones.weights import make_model
    from automl.models.folder import Labels
    from automl.models.folder import write_model as write
    from automl.recipe import Recipe

    recipe = Recipe(backbone="test_byobnet.r160_in1k", pretrained=False, image_size=64)
    network = make_model(recipe, 2)
    own = read_preprocessing(network)
    inputs = InputSpec(64, 64, own.mean, own.std, own.interpolation)
    write(folder, network, recipe, inputs, Labels(("0", "1"), 1, (0.5, 0.5)), {}, "")


def draw(folder: Path, count: int) -> None:
    """Adds PNGs of noise until there are `count`."""
    folder.mkdir(exist_ok=True)
    for number in range(len(list(folder.iterdir())), count):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:07}.png", compress_level=1)


def measure(code: str, arguments: list[object]) -> tuple[float, float]:
    """Runs Python code in a fresh process.

    Returns:
        Its largest resident memory in MB (10⁶ bytes), and the seconds it took.
    """
    began = time.perf_counter()
    words = [sys.executable, "-c", PEAK + code, *map(str, arguments)]
    output = subprocess.check_output(words, text=True, stderr=subprocess.STDOUT)
    seconds = time.perf_counter() - began
    found = re.search(r"^peak (\d+)$", output, flags=re.M)
    if found is None:
        raise SystemExit(f"no peak in the output:\n{output}")
    return int(found[1]) * 1024 / 1e6, seconds


if __name__ == "__main__":
    main()
