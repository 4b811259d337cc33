"""Which samples train, which validate, and which no trial ever sees.

A validation or test set that the data comes with is used exactly as it is. What is missing is made from the training
samples: stratified (each class keeps its share), with every group (same person, clip, photo) on one side only, and the
same for the same seed whatever the order of the rows. scikit-learn's StratifiedGroupKFold only knows fractions 1/k and
fails on few groups, so this module has its own selection: groups in random order, each taken if that brings the counts
per class nearer to their targets.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from automl.errors import DataError, shorten
from automl.spec import DataSpec

_ORDERS = 10  # random orders tried; the selection nearest to the targets wins
_LEAST = 2  # samples of each class in train and in validation
_HOLDOUT, _VALIDATION, _SHUFFLE, _FOLDS = range(4)  # streams of random numbers: one choice does not shift another

Counts = Counter[int]


def split_samples(table: pd.DataFrame, spec: DataSpec, seed: int) -> tuple[pd.Series, list[str]]:
    """Gives each sample its split, and returns warnings, one line each.

    The table's columns are label (int), group (str), split and domain: as given, or "" where the data does not say.
    The fractions of `spec` are shares of all samples that have no given test split; a given test set is the holdout.
    With `validation_by`, whole domains are validated on, and a given validation set is not used as such.
    """
    problems: list[str] = []
    splits = table["split"].replace("", "train").astype(str)
    by_domain = spec.validation_by is not None
    if by_domain and (splits == "validation").any():
        splits = splits.replace("validation", "train")
        problems.append("the validation set of the data is trained on: --validation-by chooses another one")
    given = set(splits)
    labels = table["label"].to_numpy(dtype=int)
    groups = table["group"].to_numpy(dtype=str)
    for one, other in combinations(("train", "validation", "holdout"), 2):
        if shared := sorted(set(groups[splits == one]) & set(groups[splits == other])):
            problems.append(f"leak: {len(shared)} groups are both in {one} and in {other} as given: {shorten(shared)}")
    make_validation = "validation" not in given
    if "holdout" not in given and spec.holdout_fraction > 0:
        # a group that a given validation set shares with the training samples may not come to the holdout as well
        free = (splits == "train").to_numpy() & ~np.isin(groups, groups[splits == "validation"])
        targets = {c: max(n * spec.holdout_fraction, 1.0) for c, n in Counter(labels.tolist()).items()}
        reserve = 2 if make_validation else 1
        splits[_choose_samples(labels, groups, free, targets, 0, reserve, seed, _HOLDOUT)] = "holdout"
        problems += _describe_missing_holdout(labels, groups, splits)
    if make_validation:
        share = Counter(labels[table["split"] != "holdout"].tolist())
        targets = {c: max(n * spec.validation_fraction, float(_LEAST)) for c, n in share.items()}
        free = (splits == "train").to_numpy() & ~np.isin(groups, groups[table["split"] == "holdout"])
        apart = groups
        if by_domain:
            domains = table["domain"].to_numpy(dtype=str)
            _check_domains(domains, labels, spec)
            apart = find_inseparable(labels, groups, domains)
        splits[_choose_samples(labels, apart, free, targets, _LEAST, 1, seed, _VALIDATION)] = "validation"
    return splits, problems


def redraw_validation(samples: pd.DataFrame, seed: int) -> pd.Series:
    """Draws another validation split of the same size from the training and validation samples.

    Args:
        samples: As in `Dataset.samples`; a column `domain` names what is validated on as a whole.
        seed: Of the draw.

    Returns:
        The split of each sample; the holdout stays.
    """
    splits = samples["split"].replace("validation", "train").astype(str)
    labels, apart = samples["label"].to_numpy(dtype=int), _list_inseparable(samples)
    counts = Counter(labels[samples["split"] == "validation"].tolist())
    targets = {label: max(float(count), float(_LEAST)) for label, count in counts.items()}
    free = (splits == "train").to_numpy()
    splits[_choose_samples(labels, apart, free, targets, _LEAST, 1, seed, _VALIDATION)] = "validation"
    return splits


def draw_folds(samples: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """Cuts the training and validation samples into folds with about every class's share.

    Args:
        samples: As in `Dataset.samples`; no group, and no domain where there are domains, is in two folds.
        folds: Two or more.
        seed: Of the draw.

    Returns:
        The fold of each sample, (N,) int64 from 0; -1 in the holdout.

    Raises:
        DataError: If a class has too few samples, or groups, for two in each fold.
    """
    fold_of = np.where(samples["split"] == "holdout", -1, 0)
    labels, apart = samples["label"].to_numpy(dtype=int), _list_inseparable(samples)
    classes = set(labels[fold_of == 0].tolist())
    for fold in range(1, folds):  # what is left after the last of these is fold 0
        left = Counter(labels[fold_of == 0].tolist())
        targets = {label: count / (folds - fold + 1) for label, count in left.items()}
        chosen = _choose_samples(labels, apart, fold_of == 0, targets, _LEAST, folds - fold, seed + fold, _FOLDS)
        fold_of[chosen] = fold
    for fold in range(folds):
        counts = Counter(labels[fold_of == fold].tolist())
        if few := [label for label in classes if counts[label] < _LEAST]:
            kind = "domains" if samples.get("domain", pd.Series(dtype=str)).astype(bool).any() else "groups"
            raise DataError(
                f"--folds {folds}: {len(few)} classes have fewer than {_LEAST} samples in a fold; give fewer folds "
                f"(samples and {kind} of a class cannot be in two)"
            )
    return fold_of


def choose_of_each_class(labels: np.ndarray, wanted: int, least: int, seed: int = 0) -> np.ndarray:
    """Chooses samples at random, of each class its share, but `least` of it if there are so many; the same each time.

    Args:
        labels: (N,) int.
        wanted: How many in all, about; at least N: all of them.
        least: Of each class.
        seed: Of the draw.

    Returns:
        Their positions, ascending.
    """
    if len(labels) <= wanted:
        return np.arange(len(labels))
    random, rows = np.random.default_rng(seed), []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        count = min(len(own), max(round(len(own) * wanted / len(labels)), least))
        rows.append(random.choice(own, count, replace=False))
    chosen: np.ndarray = np.sort(np.concatenate(rows))
    return chosen


def find_inseparable(labels: np.ndarray, groups: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Finds what must be on one side of a split: groups that share a domain, joined.

    A domain that is its class's only one, such as `real` in a column of generators, stays divisible: held out as a
    whole, nothing of the class would be left to learn.

    Args:
        labels: (N,) int.
        groups: (N,) str.
        domains: (N,) str; "" for none.

    Returns:
        A name (N,) str for what each sample belongs to.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    several = {label for label in set(labels.tolist()) if len(set(domains[labels == label]) - {""}) > 1}
    whole = (domains != "") & np.isin(labels, sorted(several))
    _, group_of = np.unique(groups, return_inverse=True)
    _, domain_of = np.unique(domains, return_inverse=True)
    size = group_of.max() + 1
    nodes = size + domain_of.max() + 1
    edges = coo_array((np.ones(whole.sum()), (group_of[whole], size + domain_of[whole])), shape=(nodes, nodes))
    _, part_of = connected_components(edges, directed=False)
    inseparable: np.ndarray = part_of[group_of].astype(str)
    return inseparable


def _list_inseparable(samples: pd.DataFrame) -> np.ndarray:
    """Lists what each sample belongs to: its group, joined with its domain where there are domains."""
    labels, groups = samples["label"].to_numpy(dtype=int), samples["group"].to_numpy(dtype=str)
    if "domain" not in samples or not samples["domain"].astype(bool).any():
        return groups
    return find_inseparable(labels, groups, samples["domain"].to_numpy(dtype=str))


def _check_domains(domains: np.ndarray, labels: np.ndarray, spec: DataSpec) -> None:
    """Makes sure that some class has two domains, so that one can be held out."""
    values = sorted(set(domains.tolist()) - {""})
    if not any(len(set(domains[labels == label]) - {""}) > 1 for label in set(labels.tolist())):
        what = f"only {values[0]!r}" if len(values) == 1 else "one value a class" if values else "no value"
        raise DataError(
            f"--validation-by {spec.validation_by}: the column has {what}; some class needs two, one to train on and "
            "one to validate on"
        )


def check_counts(
    table: pd.DataFrame, classes: tuple[str, ...], splits: Sequence[str] = ("train", "validation")
) -> None:
    """Checks that there are two classes, each with two samples in each of the splits; raises DataError if not."""
    if len(classes) < 2:
        raise DataError(f"all samples are of one class, {classes[0]!r}; a classifier needs at least two")
    few = []
    for split in splits:
        counts = Counter(table.loc[table["split"] == split, "label"].tolist())
        few += [f"class {name!r} has {counts[i]} in {split}" for i, name in enumerate(classes) if counts[i] < _LEAST]
    if few:
        raise DataError(
            f"at least {_LEAST} samples of each class are needed in {' and in '.join(splits)}: "
            f"{shorten(few, separator='; ')}. Add samples, or take the class out (--min-class-samples leaves out "
            "small ones); samples of one group cannot be on both sides"
        )


def shuffle_labels(table: pd.DataFrame, seed: int) -> pd.Series:
    """Permutes the labels within each split, so that there is nothing left to learn."""
    labels = table["label"].copy()
    rng = np.random.default_rng([seed, _SHUFFLE])
    for split in sorted(set(table["split"])):
        rows = np.flatnonzero(table["split"] == split)
        labels.iloc[rows] = rng.permutation(labels.to_numpy()[rows])
    return labels


def _describe_missing_holdout(labels: np.ndarray, groups: np.ndarray, splits: pd.Series) -> list[str]:
    """Reports that no holdout could be made, or none of some classes."""
    held = set(labels[splits == "holdout"].tolist())
    without = len(set(labels.tolist()) - held)
    if not without:
        return []
    grouped = f" in {len(set(groups))} groups" if len(set(groups)) < len(labels) else ""
    few = f"{len(labels)} samples{grouped} are too few to set some aside"
    if not held:
        return [f"no holdout: {few}; no sample is left to test the result on (to want none: --holdout-fraction 0)"]
    return [f"the holdout has no sample of {without} of {without + len(held)} classes: {few}"]


def _choose_samples(
    labels: np.ndarray,
    groups: np.ndarray,
    free: np.ndarray,
    targets: Mapping[int, float],
    least: int,
    reserve: int,
    seed: int,
    stream: int,
) -> np.ndarray:
    """Selects whole groups, (N,) bool, of the samples that are free, so that the counts per class come near `targets`.

    Of each class `least` samples should be had even if the target is then exceeded, and groups for `reserve` other
    splits must be left. The stream names the choice, so that each has its own random numbers.
    """
    members: dict[str, Counts] = {}
    for label, group in zip(labels[free].tolist(), groups[free].tolist(), strict=True):
        members.setdefault(group, Counter())[label] += 1
    names = sorted(members)
    rng = np.random.default_rng([seed, stream])
    best: set[str] = set()
    nearest = float("inf")
    for _ in range(_ORDERS):
        order = [names[i] for i in rng.permutation(len(names))]
        chosen, counts = _select_groups(order, members, targets, least, reserve)
        distance = sum(((counts[c] - target) / target) ** 2 for c, target in targets.items())
        if distance < nearest:
            best, nearest = chosen, distance
        if all(abs(counts[c] - target) <= 0.5 for c, target in targets.items()):
            break  # as near as whole samples come; always so at once without groups
    return free & np.isin(groups, sorted(best))


def _select_groups(
    order: list[str], members: Mapping[str, Counts], targets: Mapping[int, float], least: int, reserve: int
) -> tuple[set[str], Counts]:
    """Takes groups in the given order while that helps; returns them and their samples per class."""
    chosen: set[str] = set()
    counts, left, groups_left = Counts(), Counts(), Counts()
    for member in members.values():
        left.update(member)
        groups_left.update(member.keys())

    def take_group(group: str) -> None:
        """Selects a group unless too little of a class would be left for the other splits."""
        member = members[group]
        if any(left[c] - n < reserve * _LEAST or groups_left[c] - 1 < reserve for c, n in member.items()):
            return
        chosen.add(group)
        counts.update(member)
        left.subtract(member)
        groups_left.subtract(member.keys())

    for group in order:
        # how much further from the targets it brings the selection; small classes weigh as much as large ones
        if sum(n * (n + 2 * (counts[c] - targets[c])) / targets[c] ** 2 for c, n in members[group].items()) < 0:
            take_group(group)
    for label in sorted(targets):  # a class whose groups are all larger than its target
        wanted = [group for group in order if label in members[group] and group not in chosen]
        for group in sorted(wanted, key=lambda name: members[name].total()) if counts[label] < least else ():
            if counts[label] < least:
                take_group(group)
    return chosen, counts
