"""`automl studies`."""

import sys
from pathlib import Path

from automl.cli.options import Runs


def studies(runs: Runs = Path("runs")) -> None:
    """Lists the studies.

    Example: automl studies
    """
    from automl.cli.json_objects import StudiesResult, Study
    from automl.cli.json_output import write_result
    from automl.cli.output import print_table
    from automl.errors import StudyError
    from automl.study.folder import list_studies
    from automl.study.storage import open_study
    from automl.study.trial_record import best_trial, list_finished, read_spec, read_study_record

    rows, listed, warnings = [], list[Study](), list[str]()
    for folder in list_studies(runs):
        try:
            study = open_study(folder)
            spec, top = read_spec(study), best_trial(study)
        except StudyError as exc:  # one that cannot be read hides no other
            warnings.append(str(exc))
            print(f"warning: {exc}", file=sys.stderr)
            continue
        done, wanted = len(list_finished(study)), spec.budget.trials
        trials = f"{done} of {wanted}" if done <= wanted else str(done)
        metric = read_study_record(study).metric
        backbone, data = top.user_attrs.get("backbone", "") if top else "", str(spec.data.path or "demo")
        rows.append((folder.name, trials, metric, f"{top.value:.4f}" if top else "–", backbone, data))
        listed.append(
            Study(
                study=folder.name,
                folder=str(folder.path),
                trials_ended=done,
                trials_wanted=wanted,
                metric=metric,
                best_value=top.value if top else None,
                backbone=backbone,
                data=data,
            )
        )
    header = ("study", "trials", "metric", "best", "backbone", "data")
    if rows:
        print_table(header, rows, left=header)
    else:
        print(f"no studies in {runs}; start one with: automl search --gpu-mem 16GB --trials 50")
    write_result(StudiesResult(studies=listed, warnings=warnings))
