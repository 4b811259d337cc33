"""What recognises the files that a model was trained on: `trained_on.txt` in its folder.

Each line is a digest of a file's name (the last part of its path) and size: enough to warn who evaluates a model on
what it has learned, wherever the files lie by then, and without a list of the names themselves.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from automl.errors import WeightsError
from automl.files import explain_write_errors, write_text

TRAINED_ON_FILE = "trained_on.txt"
_DIGITS = 16
_LINE = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")


def digest_name_and_size(path: Path) -> str | None:
    """Digests a file's name and size in bytes, to 16 hexadecimal characters; None of a file that is gone."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    return hashlib.sha256(os.fsencode(f"{path.name}\n{size}")).hexdigest()[:_DIGITS]


def write_trained_on(folder: Path, files: Iterable[Path]) -> None:
    """Writes the digests of the files that a model was trained on into its folder; before its weights.

    Raises:
        WeightsError: If it cannot be written.
    """
    digests = {digest for path in files if (digest := digest_name_and_size(path)) is not None}
    with explain_write_errors(folder, WeightsError):
        write_text(folder / TRAINED_ON_FILE, "".join(f"{digest}\n" for digest in sorted(digests)))


def read_trained_on(folder: Path) -> frozenset[str] | None:
    """Reads the digests of the files that a model was trained on; None where they were not kept.

    Raises:
        WeightsError: If the file is damaged.
    """
    path = folder / TRAINED_ON_FILE
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise WeightsError(f"cannot read {path}: {exc}; delete it to evaluate without its warning") from exc
    for number, line in enumerate(lines, 1):
        if not _LINE.fullmatch(line):
            raise WeightsError(
                f"{path} line {number}: a line is {_DIGITS} hexadecimal digits; delete the file to evaluate without "
                "its warning"
            )
    return frozenset(lines)
