#!/usr/bin/env bash
# Pillow: a 12-bit picture in a 16-bit file comes out nearly black if stored as RGB and nearly white if stored as gray.
#
# Seen with pillow 13.0.0, PNG and TIFF alike: a 16-bit RGB file opens in mode RGB with the high byte of each value, so
# that 12-bit data (0 to 4095, as microscopes and cameras give it) has at most 15 of 255, and 16 different values. A
# 16-bit gray file opens in mode I;16 with all 16 bits; convert("RGB") and convert("L") then clip it at 255, so that
# 94 % of a ramp from 0 to 4095 are white. There is no warning in any of this. OpenCV 4.14.0 gives all 16 bits of both
# files with IMREAD_UNCHANGED, and scales both down alike (to 15 or 16 at most) without.
#
# Why a good guess is wrong: as Pillow keeps the depth of gray files, that of RGB files should be kept too, or refused;
# and where 16 bits become 8, it should be done in one way. The mode, RGB, is that of any other picture.
#
# What it means: Image.open(path).convert("RGB"), with which image folders are mostly read, leaves 4 of 12 bits of
# colour pictures and only the shadows of gray ones, and a set that has both has two brightnesses. Read such files with
# OpenCV's IMREAD_UNCHANGED and divide by the largest value that the camera can give.
set -euo pipefail
export OMP_NUM_THREADS=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    "pillow==13.0.0" "opencv-python-headless==4.14.0.94" "numpy==2.4.6"

cat > look.py <<'PY'
import warnings

import cv2
import numpy as np
import PIL
from PIL import Image

warnings.simplefilter("error")  # Pillow has none
gray = np.linspace(0, 4095, 64 * 64).round().astype(np.uint16).reshape(64, 64)
rgb = np.stack([gray] * 3, axis=-1)
print("pillow", PIL.__version__, "opencv", cv2.__version__)


def told(text, pixels):
    print(f"{text:32} {pixels.dtype!s:6} 0 to {pixels.max():4}, {len(np.unique(pixels)):4} different values")
    return pixels


for suffix in ("png", "tiff"):
    for name, stored in {"rgb": rgb, "gray": gray}.items():
        path = f"{name}.{suffix}"
        assert cv2.imwrite(path, stored)
        assert np.array_equal(told(f"{path}, OpenCV unchanged", cv2.imread(path, cv2.IMREAD_UNCHANGED)), stored)
        assert told(f"{path}, OpenCV", cv2.imread(path)).max() in (15, 16)

    image = Image.open(f"rgb.{suffix}")
    pixels = told(f"rgb.{suffix}, Pillow, mode {image.mode}", np.asarray(image))
    assert image.mode == "RGB" and np.array_equal(pixels, rgb >> 8)

    image = Image.open(f"gray.{suffix}")
    pixels = told(f"gray.{suffix}, Pillow, mode {image.mode}", np.asarray(image))
    assert image.mode == "I;16" and np.array_equal(pixels, gray)
    for mode, clipped in {"L": np.minimum(gray, 255), "RGB": np.minimum(rgb, 255)}.items():
        pixels = told(f"gray.{suffix}, Pillow, to {mode}", np.asarray(image.convert(mode)))
        print(f"{'':32} {(pixels == 255).mean():.0%} are 255")
        assert np.array_equal(pixels, clipped)
PY
venv/bin/python look.py
