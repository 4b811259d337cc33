"""The exceptions a user can meet.

Each message says the value, the limit and the fix, in one or a few plain lines. The command line prints it
and exits with code 2; only what is not an `AutomlError` shows a traceback.
"""

import difflib
import errno
import string
from collections.abc import Iterable, Sequence


class AutomlError(Exception):
    """A mistake the user can mend; its message says how."""


class SpecError(AutomlError):
    """A study spec, a flag, or a quantity such as a size or a duration cannot be read."""


class SpaceError(AutomlError):
    """A search space has mistakes; the message lists all of them."""


class RecipeError(AutomlError):
    """A recipe does not fit the data or the task it is used for."""


class DataError(AutomlError):
    """A data set cannot be understood or cannot be used as it is."""


class WeightsError(AutomlError):
    """Pretrained weights are out of reach, or their file is not safe to load."""


class PoolError(AutomlError):
    """No backbone fits the budgets."""


class StudyError(AutomlError):
    """A study cannot be created, continued or found, or cannot go on."""


class MemoryBudgetError(AutomlError):
    """One training step needs more memory than the budget gives."""


class DiskFull(AutomlError):  # noqa: N818 - it says what happened
    """There is no room left to write what a trial needs; it stays running, to be taken up again."""


def suggest_name(name: str, valid: Iterable[str]) -> str:
    """Writes `; did you mean 'x'?` for a misspelt name, or nothing where no valid name is near."""
    names = {candidate.lower(): candidate for candidate in valid}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def find_near_names(name: str, valid: Iterable[str], most: int = 3) -> list[str]:
    """Finds the names of networks that a wrong one may have meant, the nearest first; perhaps none.

    They are of its family, or of the nearest one, which the first letters say: `vgg_huge` means no `davit_huge`.
    """
    names, wanted = list(valid), name.lower().replace("*", "")
    family = _read_family(wanted)
    related = [other for other in names if len(family) > 2 and other.startswith(family)]
    if not related:
        near = difflib.get_close_matches(family, {_read_family(other) for other in names}, n=1, cutoff=0.75)
        related = [other for other in names if near and other.startswith(near[0])]
    return difflib.get_close_matches(wanted, related, n=most, cutoff=0.4)


def _read_family(name: str) -> str:
    """Returns the first letters of a network's name: `resnet` of `resnet50`."""
    return name[: len(name) - len(name.lstrip(string.ascii_lowercase))]


def shorten(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """Lists the first names and counts the others: `a, b and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, or the name of its type."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def check_name(kind: str, name: str, valid: Iterable[str]) -> None:
    """Refuses a name that is not among the valid ones; `kind` says in the message what is named.

    Raises:
        SpecError: With the valid names, nearest first; of many the first ten.
    """
    names = sorted(valid)
    if name in names:
        return
    nearest = sorted(names, key=lambda other: -difflib.SequenceMatcher(None, name.lower(), other).ratio())
    raise SpecError(f"unknown {kind} {name!r}; valid, nearest first: {shorten(nearest, 10)}")


def is_disk_full(error: BaseException) -> bool:
    """Returns whether an error, or what caused it, means that there is no room left on the disk, or for this user."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    earlier = error.__cause__ or error.__context__  # torch closes its file, and that fails as well
    return earlier is not None and is_disk_full(earlier)
