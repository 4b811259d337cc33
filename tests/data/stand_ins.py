"""Decoders that do what a file can make a decoder do, by the file's name; a child process imports them from here."""

import errno
import importlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from automl.errors import AutomlError, DataError


def behave(path):
    """Does what a file's name says, and returns what is asked of it last: `echo_7` returns 7."""
    what, _, value = Path(path).stem.partition("_")
    match what:
        case "exit":
            os._exit(9)
        case "leave":
            sys.exit(3)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(600)
        case "spin":
            while True:
                pass
        case "fill":
            np.ones(1 << 40, dtype=np.uint8)
        case "fills":
            try:
                bytearray(1 << 40)
            except MemoryError as exc:
                raise DataError(f"cannot read {path}: MemoryError") from exc
        case "raise":
            raise ZeroDivisionError("who divides?\nnobody")
        case "refuse":
            raise DataError(f"cannot read {path}: not nice")
        case "quota":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        case "mistake":
            raise AutomlError("a mistake of the user")
        case "print":
            os.write(1, b"printed\n")
            os.write(2, b"complained\n")
            print("printed", file=sys.stderr, flush=True)
        case "sleep":
            time.sleep(int(value) / 1000)
        case "where":
            return str(Path.cwd())
        case "who":
            return os.getpid()
        case "large":
            return np.arange(int(value), dtype=np.uint8)
        case "modules":
            return sorted(sys.modules)
        case "stuck":  # once in a process that was asked before
            asked = vars(sys).setdefault("_asked", 0)
            sys._asked += 1
            if asked:
                os._exit(9)
    return value


# what replaces a decoder of automl's in a test: first it does what the file's name says


def read_pixels(path, size):
    behave(path)
    return importlib.import_module("automl.data.decode").read_pixels(path, size)


def image_content(path):
    behave(path)
    return importlib.import_module("automl.data.content").image_content(path)


def clip_content(path):
    behave(path)
    return importlib.import_module("automl.data.content").clip_content(path)


def view_images(view, path, size):
    behave(path)
    return importlib.import_module("automl.data.views").view_images(view, path, size)


def probe_media(path):
    behave(path)
    return importlib.import_module("automl.data.media").probe_media(path)


def read_frames(path, **wanted):
    behave(path)
    return importlib.import_module("automl.data.media").read_frames(path, **wanted)


def read_sound(path, *wanted):
    behave(path)
    return importlib.import_module("automl.data.media").read_sound(path, *wanted)
