"""The views of a study, joined, as one model: what `automl ensemble` writes.

A folder of model folders, one for each view and called like it, with the fusion of their scores. The members are the
models that taught the fusion and were scored; or, trained once more on all the data, models of the same recipes, whose
scores are taken to mean the same.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from automl.data.loader import evaluation_size
from automl.devices import find_devices
from automl.models.card import ensemble_card, model_card, weights_licence
from automl.models.folder import Input, write_ensemble, write_model
from automl.models.view_ensemble import Scored, ViewEnsemble, ViewMember
from automl.refit.join import join_views
from automl.refit.outcome import described, labels_of, versions
from automl.refit.output_folder import Place
from automl.refit.plan import plan_of_study
from automl.refit.train import Wishes, train_plan
from automl.reporter import ConsoleReporter, Reporter
from automl.study.folder import StudyFolder
from automl.study.retraining import Retraining
from automl.study.search import open_result
from automl.study.setup import Facts
from automl.study.views import Views
from automl.training.types import expected_input


def ensemble_views(
    folder: StudyFolder,
    out: Path,
    *,
    final: bool = False,
    timeout: float | None = None,
    device: str = "auto",
    weights_dir: Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> ViewEnsemble | None:
    """Joins the views of a study (`search.join.join_views`), and writes them as one model.

    Args:
        folder: The study's.
        out: The folder to write.
        final: Train each member once more, on train + validation, and on the holdout where it was scored.
        timeout: Seconds that joining may take; the trainings of `final` have no limit.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        weights_dir: A folder of safetensors files to look for weights in, for `final`.
        overwrite: Delete a model or an unfinished training of automl in `out` first.
        reporter: Is told what is done; None: lines are printed.

    Returns:
        What was found; None when it was interrupted, or there was no time: then nothing is written.

    Raises:
        StudyError: As `join_views`.
        WeightsError: If something else is in `out`, or it cannot be written.
        AutomlError: If a recipe cannot be trained.
        KeyboardInterrupt: If it was asked to stop in the trainings of `final`; the same call continues.
    """
    reporter, place = reporter or ConsoleReporter(), Place(out)
    facts = open_result(folder).facts
    place.check(overwrite=overwrite)
    found = join_views(folder, timeout=timeout, device=device, reporter=reporter)
    if found is None:
        return None
    recipes = {member.view: member.recipe.model_dump(mode="json") for member in found.members}
    record = {"members": recipes, "fusion": asdict(found.fusion), "final": final}
    if place.begin(record, overwrite=overwrite):
        return found
    write = (
        _trained(folder, found, weights_dir, device, reporter) if final else _as_scored(folder, facts, found, device)
    )
    for member in found.members:
        if not Place(out / member.view).finished:  # not before a kill: the record says that it would be this one
            write(member, out / member.view)
    card = ensemble_card(found, facts.dataset.name, _learned(found) if final else ("train",))
    write_ensemble(out, found.fusion.shares(), found.fusion, card)
    place.end()
    reporter.print_line(f"written: {out}")
    return found


def _learned(found: ViewEnsemble) -> tuple[str, ...]:
    return ("train", "validation", "holdout") if found.holdout else ("train", "validation")


Write = Callable[[ViewMember, Path], Any]


def _trained(
    folder: StudyFolder, found: ViewEnsemble, weights_dir: Path | None, device: str, reporter: Reporter
) -> Write:
    """Trains a member on all the data, and writes it."""
    wishes = Wishes(device=device)
    source = "a model of this recipe that learned from the training split alone (automl ensemble)"

    def write(member: ViewMember, path: Path) -> None:
        plan = plan_of_study(folder, member.recipe, weights_dir)
        scores = _scores(found, member, source)
        train_plan(replace(plan, scores=scores, learned=_learned(found)), wishes, path, reporter)

    return write


def _as_scored(folder: StudyFolder, facts: Facts, found: ViewEnsemble, device: str) -> Write:
    """Writes a member with the weights that were scored."""
    views = Views(facts, find_devices(device)[0])

    def write(member: ViewMember, path: Path) -> None:
        recipe, data = member.recipe, views.data(member.recipe.view)
        network = Retraining(member.trial, recipe, folder.retraining(member.trial, recipe.seed)).load(data.classes)
        expects = expected_input(network, recipe, data)
        size = evaluation_size(recipe, expects, data.cache.size)
        inputs = Input(data.cache.size, size, expects.mean, expects.std, expects.interpolation)
        labels = labels_of(facts.dataset, data)
        entry = facts.pool.named(recipe.backbone)
        source = entry.weights if entry is not None and recipe.pretrained else None
        metrics = {
            "trained_on": {"samples": member.train_samples, "splits": "train"},
            "metric": found.metric,
            **_scores(found, member, "this model"),
            "versions": versions(),
            "weights": {"source": source, "licence": weights_licence(recipe.backbone) if source else None},
        }
        card = model_card(recipe, labels, inputs, metrics, described(facts.dataset))
        write_model(path, network, recipe, inputs, labels, metrics, card)

    return write


def _scores(found: ViewEnsemble, member: ViewMember, source: str) -> dict[str, Any]:
    """A member's scores by split, as they stand in metrics.json."""
    splits: dict[str, tuple[Scored | None, int]] = {
        "validation": (member.validation, found.validation_samples),
        "holdout": (member.holdout, found.holdout_samples),
    }
    return {
        split: {"source": source, **asdict(scored.interval), "n": samples, "all": scored.metrics}
        for split, (scored, samples) in splits.items()
        if scored is not None
    }
