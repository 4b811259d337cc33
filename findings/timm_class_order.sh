#!/usr/bin/env bash
# timm and torchvision number the classes of the same image folder differently, and an AUC turns upside down.
#
# Seen with timm 1.0.31 and torchvision 0.29.1: of a folder with the classes `Real` and `fake`, torchvision's ImageFolder
# numbers Real 0 and fake 1 (plain sort: capitals first), timm's ImageDataset numbers fake 0 and Real 1 (natural sort:
# lower case, numbers as numbers). With `1`, `2`, `10` torchvision says 1, 10, 2, timm says 1, 2, 10.
#
# Why a good guess is wrong: both read "one folder a class, sorted by name", and with names in lower case and without
# numbers they agree, so it goes unnoticed.
#
# What it means: a model trained by timm's train.py and scored with a torchvision loader (or submitted by a script that
# takes column 1 for "fake") has an AUC of 1 - AUC; with classes called 1 to 10, every class but the first is another one's.
# Store the mapping (train.py: --class-map), or give folders names in lower case without numbers.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "timm==1.0.31" "torch==2.14.1" "torchvision==0.29.1"

cat > look.py <<'PY'
import pathlib

import timm
import torchvision
from PIL import Image
from timm.data import create_dataset


def orders(*names):
    root = pathlib.Path("-".join(names))
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / name / "a.png")
    by_torchvision = torchvision.datasets.ImageFolder(root).class_to_idx
    by_timm = create_dataset("", root=str(root)).reader.class_to_idx
    in_order = [sorted(mapping, key=mapping.get) for mapping in (by_torchvision, by_timm)]
    print(f"{', '.join(names)}: torchvision {in_order[0]}, timm {in_order[1]}")
    return in_order


assert orders("Real", "fake") == [["Real", "fake"], ["fake", "Real"]]
assert orders("1", "2", "10") == [["1", "10", "2"], ["1", "2", "10"]]
assert orders("fake", "real") == [["fake", "real"], ["fake", "real"]]
print("timm", timm.__version__, "torchvision", torchvision.__version__)
PY
venv/bin/python look.py
