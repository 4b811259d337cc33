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
    """A problem and what to do about it."""

    text: str
    """A sentence without a full stop."""
    fatal: bool = False
    """Whether no search is possible before it is mended."""


@dataclass(frozen=True)
class Report:
    """What one or more checks report."""

    findings: tuple[Fact, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def can_search(self) -> bool:
        """Whether no problem makes a search impossible."""
        return not any(problem.fatal for problem in self.problems)


def make_report(lines: Iterable[Fact | Problem]) -> Report:
    """Sorts what checks yield into findings and problems."""
    kept = list(lines)
    findings = tuple(line for line in kept if isinstance(line, Fact))
    return Report(findings, tuple(line for line in kept if isinstance(line, Problem)))


@dataclass(frozen=True)
class Options:
    """What a check looks at beside the machine itself."""

    runs: Path
    """The folder that studies go into."""
    weights_dir: Path | None = None
    """A folder of weights to look into as well."""
    storage: Path | None = None
    """The folder of a storage that is a file of its own; None: it is none, or lies with the studies."""
