"""`automl data --check-labels`: labels that are likely wrong."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.errors import SpecError
from automl.files import check_weights_dir, is_page_name

if TYPE_CHECKING:  # the library is imported late: `automl --help` is instant
    from automl.data.dataset import Dataset
    from automl.evaluation.label_check import LabelCheck
    from automl.reporter import Reporter
    from automl.spec import StudySpec

_MOST_LISTED = 10


@dataclass(frozen=True)
class LabelFlags:
    """Whether and how labels are checked."""

    wanted: bool
    page: Path | None
    study: str | None
    runs: Path

    def check_use(self, weights_dir: Path | None) -> None:
        """Refuses flags that would do nothing or cannot be used, before anything is read."""
        check_weights_dir(weights_dir)
        if not self.wanted:
            flags = {"--labels-html": self.page, "--study": self.study, "--weights-dir": weights_dir}
            for flag, value in flags.items():
                if value is not None:
                    raise SpecError(f"{flag} {value} is for the check of labels; give --check-labels as well")
        if self.study is not None and weights_dir is not None:
            raise SpecError(
                f"--weights-dir {weights_dir} does nothing beside --study {self.study}; leave one of them out"
            )
        if self.page is not None and self.page.is_dir():
            raise SpecError(f"--labels-html {self.page} is a folder; name a file: {self.page / 'labels.html'}")
        if self.page is not None and not is_page_name(self.page):
            raise SpecError(f"--labels-html {self.page}: a page is an HTML file; give a name such as labels.html")


def read_study_data(runs: Path, name: str) -> dict[str, Any]:
    """Reads which data a study is of, and how it is read and split, as settings."""
    from automl.study.folder import find_study
    from automl.study.storage import open_study
    from automl.study.trial_record import read_spec

    spec = read_spec(open_study(find_study(runs, name)))
    return spec.model_dump(mode="json", include={"data", "seed"})


def print_labels(dataset: "Dataset", spec: "StudySpec", flags: LabelFlags, reporter: "Reporter") -> "LabelCheck":
    """Checks the labels, prints those that are likely wrong, and writes the page if one is wanted."""
    from automl.cli.output import print_line, print_table
    from automl.evaluation.label_check import check_by_probe, check_by_study, write_page
    from automl.study.folder import find_study

    if flags.study is not None:
        check = check_by_study(dataset, find_study(flags.runs, flags.study))
    else:
        check = check_by_probe(dataset, spec, reporter)
    for line in check.sentences:
        print_line(f": {line}", title="labels")
    rows = check.list_rows(_MOST_LISTED)
    if rows:
        words = ("file", "label", "likelier label")
        print_table([*words, "probability"], rows, left=words)
    if (more := len(check.issues) - len(rows)) > 0:
        print_line(f"… and {more} more" + ("" if flags.page else "; --labels-html FILE shows them with pictures"))
    if flags.page is not None:
        write_page(check, flags.page)
        print_line(f"written: {flags.page}")
    return check
