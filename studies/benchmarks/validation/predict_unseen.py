"""Which validation predicts the score on data of a kind that was never seen.

    python studies/benchmarks/validation/predict_unseen.py --features FEATURES --seeds 5

Each of 36 candidates (`candidates.py`) is trained on samples of known domains, and scored on a domain never seen. Its
score by each kind of validation, which looks at known samples alone, is compared with that. Splits are drawn by
`automl.data.splits`, clusters by `automl.features.clusters`. Rows are appended to `rows/predict_unseen.jsonl`, one for
each unseen domain and seed; what is there is not computed again. `tables.py` makes tables of them.

Worlds, and what is unseen:
    demo    each kind of forgery in turn, made of photographs that are not trained on
    faces   images of both classes under one of six degradations, drawn at random for each; each degradation in turn
    clean   clean faces; each of five degradations in turn
    strong, clean to strong     the same two with stronger degradations
    clips   clips of three sources; each source in turn
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from candidates import CLUSTER_BACKBONE, DEFAULT, Rows, World, compute_auc, train_candidate
from numpy.typing import NDArray
from worlds import CLEAN, COPIES

from automl.data.splits import draw_folds, find_inseparable, redraw_validation, split_samples
from automl.errors import DataError
from automl.features.clusters import cluster_features
from automl.spec import DataSpec
from automl.training.intervals import metric_interval

ROWS = Path(__file__).parent / "rows" / "predict_unseen.jsonl"
FOLDS = 5
_FRACTION = 0.2
_CLUSTERS = 20
"""As `automl.study.validation`: four times as many as validation splits would fit in."""
_TEST_PHOTOS, _TEST_FACES = 5, 400

Split = tuple[Rows, Rows]


@dataclass(frozen=True)
class Cell:
    """What is known and what is not, in one world with one seed.

    Attributes:
        seed: Of the draws.
        known: Rows of the table that a search may see.
        by_domain: Splits of positions in `known` by domain: one for each domain that is left out in turn.
        copies: By degradation, for each known sample the row of its degraded copy.
        unseen: By domain, the rows of samples never seen.
        seen: Rows of new samples of known domains, for comparison.
    """

    seed: int
    known: Rows
    by_domain: list[Split]
    unseen: dict[str, Rows]
    seen: Rows
    copies: dict[str, Rows] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    """Computes what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True, help="folder that worlds.py has written")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--worlds", nargs="+", default=list(MAKERS))
    args = parser.parse_args(arguments)

    done = {(row["world"], row["unseen"], row["seed"]) for row in read_rows()}
    sets: dict[str, World] = {}
    for seed in range(args.seeds):
        for name in args.worlds:
            source, make_cells = MAKERS[name]
            if source not in sets:
                sets[source] = World.load(args.features, source)
            for cell in make_cells(sets[source], seed):
                if all((name, unseen, seed) in done for unseen in cell.unseen):
                    continue
                rows = score_cell(sets[source], cell, name)
                ROWS.parent.mkdir(exist_ok=True)
                with ROWS.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows)
                print(f"{name} seed {seed}: {', '.join(cell.unseen)}", flush=True)


def read_rows(path: Path = ROWS) -> list[dict[str, Any]]:
    """Reads the rows that are there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


# --- worlds -------------------------------------------------------------------------------------------------------


def make_demo_cells(world: World, seed: int) -> Iterator[Cell]:
    """Holds out each kind of forgery; validation by domain leaves out the fakes of a kind and half the photographs."""
    table, random = world.table, np.random.default_rng([seed, 1])
    clean, photos = (table["copy"] == CLEAN).to_numpy(), random.permutation(sorted(set(table["group"])))
    of_test = table["group"].isin(photos[:_TEST_PHOTOS]).to_numpy()
    of_half = table["group"].isin(photos[_TEST_PHOTOS::2]).to_numpy()
    domain, names = table["domain"].to_numpy(str), table["name"].to_numpy(str)
    kinds = sorted(set(domain) - {"real"})
    for kind in kinds:
        known = np.flatnonzero(clean & ~of_test & (domain != kind))
        by_domain = []
        for number, other in enumerate(k for k in kinds if k != kind):
            validated = of_half[known] if number else ~of_half[known]
            of_kind = domain[known] == other
            validation = np.flatnonzero(validated & (of_kind | (domain[known] == "real")))
            by_domain.append((np.flatnonzero(~validated & ~of_kind), validation))
        unseen = np.flatnonzero(clean & of_test & np.isin(domain, [kind, "real"]))
        seen = np.flatnonzero(clean & of_test & (domain != kind))
        copies = {copy: find_copies(table, names[known], copy) for copy in (CLEAN, *COPIES[world.name])}
        yield Cell(seed, known, by_domain, {kind: unseen}, seen, copies)


def make_face_cells(world: World, seed: int) -> Iterator[Cell]:
    """Holds out each degradation of faces that are known under the others."""
    known_names, test_names = split_faces(world, seed)
    random, domains = np.random.default_rng([seed, 2]), (CLEAN, *COPIES[world.name])
    for unseen in domains:
        others = [domain for domain in domains if domain != unseen]
        copies = {domain: find_copies(world.table, known_names, domain) for domain in others}
        of_sample = random.permutation(np.arange(len(known_names)) % len(others))
        known = np.stack(list(copies.values()))[of_sample, np.arange(len(known_names))]
        by_domain = [
            (np.flatnonzero(of_sample != number), np.flatnonzero(of_sample == number)) for number in range(len(others))
        ]
        tested = np.stack([find_copies(world.table, test_names, domain) for domain in others])
        seen = tested[random.permutation(np.arange(len(test_names)) % len(others)), np.arange(len(test_names))]
        rows = find_copies(world.table, test_names, unseen)
        yield Cell(seed, known, by_domain, {unseen: rows}, seen, copies)


def make_clean_cells(world: World, seed: int) -> Iterator[Cell]:
    """Holds out all degradations at once."""
    known_names, test_names = split_faces(world, seed)
    copies = {domain: find_copies(world.table, known_names, domain) for domain in (CLEAN, *COPIES[world.name])}
    unseen = {domain: find_copies(world.table, test_names, domain) for domain in COPIES[world.name]}
    yield Cell(seed, copies[CLEAN], [], unseen, find_copies(world.table, test_names, CLEAN), copies)


def make_clip_cells(world: World, seed: int) -> Iterator[Cell]:
    """Holds out each source of clips; there are no new clips of the others."""
    domain = world.table["domain"].to_numpy(str)
    for source in sorted(set(domain)):
        known = np.flatnonzero(domain != source)
        by_domain = [
            (np.flatnonzero(domain[known] != other), np.flatnonzero(domain[known] == other))
            for other in sorted(set(domain[known]))
        ]
        yield Cell(seed, known, by_domain, {source: np.flatnonzero(domain == source)}, known[:0])


MAKERS = {
    "demo": ("demo", make_demo_cells),
    "faces": ("faces", make_face_cells),
    "clean": ("faces", make_clean_cells),
    "strong": ("strong", make_face_cells),
    "clean to strong": ("strong", make_clean_cells),
    "clips": ("clips", make_clip_cells),
}
"""Of each world the set of features, and what makes its cells."""


def split_faces(world: World, seed: int) -> tuple[Rows, Rows]:
    """Splits the faces that have degraded copies: names of the known ones and of the test ones, classes in balance."""
    degraded = world.table[world.table["copy"] == COPIES[world.name][0]].sample(frac=1, random_state=seed)
    number = degraded.groupby("fake").cumcount()
    tested = number < _TEST_FACES // 2
    return degraded.loc[~tested, "name"].to_numpy(str), degraded.loc[tested, "name"].to_numpy(str)


def find_copies(table: pd.DataFrame, names: Rows, copy: str) -> Rows:
    """Finds the rows of samples under a degradation, in the order of their names."""
    of_copy = table[table["copy"] == copy]
    return pd.Series(of_copy.index, index=of_copy["name"]).loc[names].to_numpy(np.int64)


# --- validation ---------------------------------------------------------------------------------------------------


def list_splits(world: World, cell: Cell, count: int) -> dict[str, list[list[Split]]]:
    """Draws the splits of each kind of validation: for each candidate a list of (train, validation) positions."""
    known = world.table.iloc[cell.known].reset_index(drop=True)
    table = known[["group"]].assign(label=known["fake"], split="", domain="")
    table["split"], _ = split_samples(table, DataSpec(holdout_fraction=0, validation_fraction=_FRACTION), cell.seed)
    features = world.read_features(CLUSTER_BACKBONE, "last", cell.known)
    clusters = cluster_features(features, known["group"].to_numpy(str), _CLUSTERS, cell.seed)
    hard = table.assign(domain=[f"cluster {number}" for number in clusters])
    splits = {
        "random": [[read_split(table["split"])]] * count,
        "resplit": [[read_split(redraw_validation(table, cell.seed + 1 + number))] for number in range(count)],
        "folds": [list_fold_splits(table, cell.seed)] * count,
        "hard": [[read_split(redraw_validation(hard, cell.seed))]] * count,
        "hard folds": [list_fold_splits(hard, cell.seed)] * count,
    }
    if cell.by_domain:
        splits["domain"] = [cell.by_domain[cell.seed % len(cell.by_domain) :][:1]] * count
        splits["domain folds"] = [cell.by_domain] * count
    return splits


def list_fold_splits(table: pd.DataFrame, seed: int) -> list[Split]:
    """Draws folds; as many as there can be where there are too few parts that can be apart."""
    parts = table["group"].to_numpy(str)
    if table["domain"].any():
        parts = find_inseparable(table["label"].to_numpy(), parts, table["domain"].to_numpy(str))
    for folds in range(min(FOLDS, len(set(parts))), 1, -1):
        try:
            of_sample = draw_folds(table, folds, seed)
        except DataError:
            continue
        return [(np.flatnonzero(of_sample != fold), np.flatnonzero(of_sample == fold)) for fold in range(folds)]
    return []


def read_split(column: pd.Series) -> Split:
    """Returns the positions that train and that validate."""
    validated = (column == "validation").to_numpy()
    return np.flatnonzero(~validated), np.flatnonzero(validated)


def score_cell(world: World, cell: Cell, world_name: str) -> list[dict[str, Any]]:
    """Trains and scores all candidates; returns a row for each unseen domain."""
    candidates = world.candidates
    splits = list_splits(world, cell, len(candidates))
    validation = splits["random"][0][0][1]
    parts = {"known": cell.known, "seen": cell.seen}
    parts |= {f"unseen {name}": rows for name, rows in cell.unseen.items()}
    parts |= {f"copies {name}": rows[validation] for name, rows in cell.copies.items()}
    rows = np.concatenate(list(parts.values()))
    labels, features = world.labels[rows], world.rotate_features(cell.known, rows)
    ends = np.cumsum([len(part) for part in parts.values()])
    at = dict(zip(parts, np.split(np.arange(len(rows)), ends[:-1]), strict=True))
    scores: dict[str, list[float]] = {name: [] for name in (*splits, *(name for name in parts if name != "known"))}
    for number, candidate in enumerate(candidates):
        z = features[candidate.backbone, candidate.layers]
        for kind, of_candidate in splits.items():
            trained = [
                (train_candidate(z, labels, train, candidate.strength), held) for train, held in of_candidate[number]
            ]
            aucs = [compute_auc(labels[held], logits[held]) for logits, held in trained]
            scores[kind].append(mean_of_known(aucs))
            if kind == "random":
                for name in cell.copies:
                    scores[f"copies {name}"].append(compute_on(at[f"copies {name}"], labels, trained[0][0]))
        logits = train_candidate(z, labels, at["known"], candidate.strength)
        for name in ("seen", *(f"unseen {domain}" for domain in cell.unseen)):
            scores[name].append(compute_on(at[name], labels, logits))
        if candidate == DEFAULT:
            of_default = logits
    made = []
    for domain in cell.unseen:
        chosen = at[f"unseen {domain}"]
        interval = metric_interval("auc", labels[chosen], [np.stack([-of_default, of_default], 1)[chosen]], repeats=500)
        sizes = {kind: [len(split[1]) for split in lists[0]] for kind, lists in splits.items()}
        known = {kind: scores[kind] for kind in splits} | mean_of_copies(scores, cell, domain)
        made.append(
            {
                "world": world_name,
                "unseen": domain,
                "seed": cell.seed,
                "samples": {"known": len(cell.known), "unseen": len(chosen), **sizes},
                "interval": [round(interval.low, 4), round(interval.high, 4)],
                "target": round_scores(scores[f"unseen {domain}"]),
                "seen": round_scores(scores["seen"]),
                "scores": {kind: round_scores(values) for kind, values in known.items()},
            }
        )
    return made


def mean_of_copies(scores: dict[str, list[float]], cell: Cell, unseen: str) -> dict[str, list[float]]:
    """Returns the mean AUC over degraded copies: without the unseen degradation, and with it where there is one."""
    others = [scores[f"copies {name}"] for name in cell.copies if name not in (unseen, CLEAN)]
    if not others:
        return {}
    means = {"robust": np.mean(others, axis=0).tolist()}
    if unseen in cell.copies:
        means["robust, unseen among them"] = np.mean([*others, scores[f"copies {unseen}"]], axis=0).tolist()
    return means


def compute_on(chosen: Rows, labels: Rows, logits: NDArray[np.float64]) -> float:
    """Computes the AUC on some rows."""
    return compute_auc(labels[chosen], logits[chosen])


def mean_of_known(aucs: Sequence[float]) -> float:
    """Returns the mean over the folds in which the AUC is defined; NaN where it is in none."""
    known = [auc for auc in aucs if np.isfinite(auc)]
    return float(np.mean(known)) if known else float("nan")


def round_scores(values: Sequence[float]) -> list[float | None]:
    """Rounds to four digits; None where there is no score."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


if __name__ == "__main__":
    main()
