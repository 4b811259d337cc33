"""`automl best`."""

from pathlib import Path

from automl.cli.options import Runs, Study


def best(study: Study = None, runs: Runs = Path("runs")) -> None:
    """Shows the best recipe of a study, its top five trials and how the others ended.

    Example: automl best ffdi
    """
    from automl.cli.json_objects import StudyResult
    from automl.cli.json_output import wants_json, write_result
    from automl.cli.json_results import describe_study
    from automl.cli.output import print_result
    from automl.study.folder import find_study
    from automl.study.search import open_result

    result = open_result(find_study(runs, study))
    print_result(result)
    if wants_json():
        write_result(StudyResult(**describe_study(result)))
