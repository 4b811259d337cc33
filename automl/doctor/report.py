"""What a check of this machine reports: findings, and problems with what to do about each."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fact:
    """A line of what is there: `GPU 0`, `Tesla T4, …`."""

    name: str
    text: str


@dataclass(frozen=True)
class Problem:
    """A problem and what to do about it.

    Attributes:
        text: A sentence without a full stop.
        fatal: Whether no search is possible before it is mended.
    """

    text: str
    fatal: bool = False


@dataclass(frozen=True)
class Report:
    """What one or more checks report."""

    findings: tuple[Fact, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def can_search(self) -> bool:
        """Whether no problem makes a search impossible."""
        return not any(problem.fatal for problem in self.problems)

    def __add__(self, other: "Report") -> "Report":
        return Report(self.findings + other.findings, self.problems + other.problems)


def make_report(findings: Iterable[Fact], problems: Iterable[str]) -> Report:
    """Makes a report whose problems still let a search begin."""
    return Report(tuple(findings), tuple(map(Problem, problems)))


@dataclass(frozen=True)
class Options:
    """What a check looks at beside the machine itself.

    Attributes:
        runs: The folder that studies go into.
        weights_dir: A folder of weights to look into as well.
    """

    runs: Path
    weights_dir: Path | None = None
