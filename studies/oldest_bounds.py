"""Installs the oldest releases that `pyproject.toml` allows into a fresh environment, and uses automl there.

    python studies/oldest_bounds.py
    python studies/oldest_bounds.py --project ../copy --keep /tmp/oldest

`>=X` of each dependency becomes `==X`; so X must be a release that exists. What these need themselves is as new as pip
allows. Then every dependency is imported, and on generated images and on generated sounds automl runs a search of one
trial, trains the best recipe, and predicts. The exit code is 1 if any of that fails. Needs a package registry, and 7 GB
of disk for PyTorch with CUDA. On two cores that others used too it took 14 minutes, 8 of them to install.
"""

import argparse
import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import wave
from pathlib import Path

CLASSES = {"dark": 0, "light": 120}
FILES = 12  # of each class
IMPORT_ALL = """
import importlib, re, sys
from importlib.metadata import packages_distributions
for module, distributions in sorted(packages_distributions().items()):
    if module.isidentifier() and {re.sub("[-_.]+", "-", name).lower() for name in distributions} & set(sys.argv[1:]):
        importlib.import_module(module)
"""


def main() -> None:
    """Reads the command line and runs the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(__file__).parents[1], help="folder of pyproject.toml")
    parser.add_argument("--keep", type=Path, help="folder for the environment and all else; else a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oldest-") as temporary:
        folder = (args.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            check_oldest(args.project.absolute(), folder)
        except subprocess.CalledProcessError as exc:
            sys.exit(f"failed with exit code {exc.returncode}: {' '.join(map(str, exc.cmd))}")


def check_oldest(project: Path, folder: Path) -> None:
    """Installs a project with the oldest releases, and searches, trains and predicts with it."""
    pins = read_oldest(project / "pyproject.toml")
    (folder / "constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
    began = time.monotonic()
    venv.create(folder / "venv", clear=True, with_pip=True)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(folder, python, "-m", "pip", "install", "-q", "-c", "constraints.txt", project)
    print(f"installed in {time.monotonic() - began:.0f} s; Python {sys.version.split()[0]} and")
    listed = subprocess.check_output([python, "-m", "pip", "list", "--format=freeze"], text=True).split()
    print(", ".join(line for line in listed if normal(line.split("==")[0]) in pins), flush=True)
    run(folder, python, "-c", IMPORT_ALL, *pins)
    for kind, write in (("images", write_image), ("sounds", write_sound)):
        began = time.monotonic()
        for name, level in CLASSES.items():
            (folder / kind / name).mkdir(parents=True, exist_ok=True)
            for number in range(FILES):
                write(folder / kind / name / str(number), level)
        model, rows = f"model-{kind}", folder / f"{kind}.csv"
        search = f"--data {kind} --name {kind} --trials 1 --confirm 0 --pretrained never --backbones test_resnet.*"
        run(folder, python, "-m", "automl", "search", *search.split(), "--timeout", "8m", "--device", "cpu")
        run(folder, python, "-m", "automl", "train", kind, "--out", model, "--overwrite", "--device", "cpu")
        run(folder, python, "-m", "automl", "predict", model, "--data", kind, "--out", rows, "--device", "cpu")
        if len(rows.read_text().splitlines()) != 1 + len(CLASSES) * FILES:
            sys.exit(f"{rows}: not a row for each of {len(CLASSES) * FILES} files")
        print(f"{kind}: searched, trained and predicted in {time.monotonic() - began:.0f} s", flush=True)


def read_oldest(path: Path) -> dict[str, str]:
    """Reads the oldest release that each dependency of a project may have."""
    pins = {}
    for requirement in tomllib.loads(path.read_text())["project"]["dependencies"]:
        found = re.match(r"([\w.-]+)(?:\[.*\])?\s*>=\s*([\w.]+)", requirement)
        if not found:
            sys.exit(f"{path}: {requirement!r} does not begin with the oldest release, as in 'name>=1.2,<2'")
        pins[normal(found[1])] = found[2]
    return pins


def normal(name: str) -> str:
    """Writes a distribution's name as registries do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run(folder: Path, *command: object) -> None:
    """Runs a command in a folder; its own output is shown, and a failure raises."""
    environment = os.environ | {"AUTOML_CACHE": str(folder / "cache")}
    subprocess.run([str(part) for part in command], cwd=folder, env=environment, check=True)


def write_image(path: Path, level: int) -> None:
    """Writes noise around a brightness."""
    pixels = bytes(level + random.randrange(120) for _ in range(64 * 64 * 3))
    path.with_suffix(".ppm").write_bytes(b"P6 64 64 255\n" + pixels)


def write_sound(path: Path, level: int) -> None:
    """Writes a second of a tone, higher with the level, and noise."""
    tones = (math.sin(step * (500 + 20 * level) * math.tau / 8000) for step in range(8000))
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<h", int(9000 * tone + random.gauss(0, 900))) for tone in tones))


if __name__ == "__main__":
    main()
