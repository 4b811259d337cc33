"""Candidates for a pool: the backbones that a study's settings leave, best first, and where their weights are.

Nothing is built, traced or timed here, so that a mistake in names or weights is found before any data are decoded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from automl.backbones.encoders import load_encoders
from automl.backbones.ranking import rank_at_size
from automl.backbones.selection import find_unmatched, select_rows, suggest_backbones
from automl.backbones.table import load_table
from automl.backbones.weights import Weights, find_weights, hub_reachable
from automl.errors import PoolError
from automl.files import check_weights_dir
from automl.space.space import Space
from automl.spec import PoolSpec, StudySpec

_SHOWN = 3
"""Backbones without weights of which a message says what to fetch."""

_SCRATCH_MAX_PARAMS = 12.0
"""Without weights the leaderboard says little, and millions of parameters more overfit more: small ones only."""

_MACTS_PER_GMAC = 0.035
"""A million activations take a CPU as long as this part of 10⁹ multiplications: memory is what depthwise convolutions
and normalisation wait for. A guess by the timed steps of the four shared networks; `studies/benchmarks/start_up.py
--predictions 24` fits it, and has not been run."""

_ALL = 1_000_000
"""Backbones: where the search space names them, no rule but the budgets leaves one out."""

Candidate = tuple[dict[str, Any], Weights | None]
"""A row of the leaderboard or, without a score, of the encoders; and where its weights are."""


@dataclass(frozen=True)
class Candidates:
    """The backbones that a pool is chosen from."""

    backbones: list[Candidate]
    """Those of the leaderboard first, best first."""
    notes: tuple[str, ...] = ()
    """What a person should know, one line each."""


def find_candidates(spec: StudySpec, image_size: int) -> Candidates:
    """Finds the backbones that a pool can be chosen from: those whose weights are within reach.

    Where none are, and nobody requires them, small ones that are trained from scratch.

    Args:
        spec: Of a study whose space names no backbones, or as `name_backbones` returns it.
        image_size: At which they are ranked, in pixels.

    Raises:
        PoolError: If nothing is left.
        WeightsError: If the folder of weights is none, or a file in it that is looked for is no safetensors file.
    """
    rows, notes = select_backbones(spec, image_size)
    candidates, more_notes = _find_weights(rows, spec)
    if not candidates:
        raise PoolError("no backbone is small enough to be trained from scratch; name some, or give --weights-dir")
    return Candidates(candidates, (*notes, *more_notes))


def refuse_without_weights(rows: list[dict[str, Any]], spec: StudySpec) -> None:
    """Refuses a study that requires weights where no file is named like any: a look that needs no timm.

    Raises:
        PoolError: If there is no such file in the folder of weights or the hub's cache, and the hub is out of reach.
    """
    if spec.pretrained != "require" or tuple(spec.pool.names) != ("*",):  # of named ones it is said where to put them
        return
    folders = [Path(HF_HUB_CACHE), *([spec.weights_dir] if spec.weights_dir else [])]
    there = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    architectures = {row["model"].partition(".")[0] for row in rows}
    likely = any(name.startswith("models--") or name.partition(".")[0] in architectures for name in there)
    if not likely and not hub_reachable():
        raise PoolError(_explain_none(spec))


def name_backbones(spec: StudySpec, space: Space) -> StudySpec:
    """Returns the spec with the backbones that a search space names, where it names some, in place of its own."""
    named = space.list_backbones()
    if not named:
        return spec
    rules = spec.pool.model_copy(update={"names": named, "size": _ALL, "per_family": _ALL})
    return spec.model_copy(update={"pool": rules})


def select_backbones(spec: StudySpec, image_size: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Selects what a study's settings leave: the leaderboard's rows, best first, then encoders; notes what is unknown.

    An encoder's row has the score None, and `named`: whether it was asked for by a name that means encoders alone.

    Raises:
        PoolError: If nothing is left.
    """
    rules = spec.pool
    ranked, encoders = rank_at_size(load_table(), image_size, rules.boards), load_encoders()
    of_board, of_encoders = find_unmatched(ranked, rules.names), find_unmatched(encoders, rules.names)
    limits = {"max_params": rules.max_params, "licence": rules.licence}
    rows: list[dict[str, Any]] = []
    if rules.encoders != "only":
        table = select_rows(ranked, rules.names, **limits)
        rows += table[table["score"].notna()].to_dict("records")  # type: ignore[arg-type]
    if rules.encoders != "none":
        alone = rules.names if rules.encoders == "only" else of_board
        named = set(select_rows(encoders, alone)["model"]) if alone else set()
        # Those without figures return tokens, and cannot have a classifier.
        table = select_rows(encoders.dropna(subset="gmacs"), rules.names, **limits)
        unranked = [row | {"score": None, "named": row["model"] in named} for row in table.to_dict("records")]
        rows += order_unranked(unranked, image_size)  # type: ignore[arg-type]
    kind = "encoder" if rules.encoders == "only" else "backbone of the leaderboard"
    unknown = {"none": of_board, "only": of_encoders, "auto": [name for name in of_board if name in of_encoders]}
    tables = {"none": [ranked], "only": [encoders], "auto": [ranked, encoders]}[rules.encoders]
    models = [model for table in tables for model in table["model"]]
    near = {name: suggest_backbones(name, models) for name in unknown[rules.encoders]}
    notes = [f"no {kind} matches {name}{hint}" for name, hint in near.items()]
    if not rows:
        unmatched = of_board if rules.encoders == "only" else of_encoders
        text = _explain_no_rows(rules, kind, known_elsewhere=len(unmatched) < len(rules.names))
        raise PoolError(text + (near.get(rules.names[0], "") if len(rules.names) == 1 else ""))
    return rows, notes


def _explain_no_rows(rules: PoolSpec, kind: str, *, known_elsewhere: bool) -> str:
    """Explains which settings leave no backbone, and which one would let in what the names mean."""
    most = "" if rules.max_params is None else f", with at most {rules.max_params:g} million parameters"
    licence = "" if rules.licence == "any" else f", of the licence {rules.licence}"
    text = f"no {kind} matches {', '.join(rules.names)}{licence}{most}"
    if not known_elsewhere or tuple(rules.names) == ("*",) or rules.encoders == "auto":
        return text
    return f"{text}; {'the leaderboard does' if rules.encoders == 'only' else 'an encoder does'}: give --encoders auto"


def order_unranked(rows: Iterable[dict[str, Any]], image_size: int) -> list[dict[str, Any]]:
    """Orders encoders, about which no leaderboard speaks: those first whose training costs least.

    Whoever knows more, such as how their frozen features do on the study's images, puts them in another order here.
    """
    return sorted(rows, key=lambda row: (step_cost(row, image_size), row["model"]))


def step_cost(row: dict[str, Any], image_size: int) -> float:
    """Returns what a training step costs a CPU per image, in 10⁹ multiplications."""
    pixels: float = (image_size / row["image_size"]) ** 2
    cost: float = pixels * (row["gmacs"] + _MACTS_PER_GMAC * row["macts"])
    return cost


def _find_weights(rows: list[dict[str, Any]], spec: StudySpec) -> tuple[list[Candidate], list[str]]:
    """Keeps the backbones whose weights are within reach, or the small ones where none are; notes what is missing.

    Of all backbones (`*`) the hub has hundreds of encoders: of those only what is on this machine counts.
    """
    check_weights_dir(spec.weights_dir)
    named = tuple(spec.pool.names) != ("*",)
    if spec.pretrained == "never":
        return _find_small(rows, spec, every=named), []
    reach = hub_reachable()
    candidates: list[Candidate] = [
        (row, find_weights(row["model"], spec.weights_dir, hub=reach and (named or _is_asked_for(row)))) for row in rows
    ]
    with_weights = [candidate for candidate in candidates if candidate[1] is not None]
    missing = [row["model"] for row, weights in candidates if weights is None and _is_asked_for(row)]
    hints = [_explain_where(name) for name in missing[:_SHOWN]] if named else []
    if with_weights:
        note = f"{len(missing)} backbones left out: their weights are out of reach"
        return with_weights, [note, *hints] if missing else []
    sources = _name_sources(spec)
    if spec.pretrained == "require":
        raise PoolError("\n".join([_explain_none(spec), *hints]))
    small = _find_small(rows, spec)
    if named and not small:
        advice = "give --weights-dir, or --pretrained never to train from scratch"
        raise PoolError("\n".join([f"{', '.join(spec.pool.names)}: no weights in {sources}; {advice}", *hints]))
    note = (
        f"NO PRETRAINED WEIGHTS in {sources}: TRAINING FROM SCRATCH, which needs far more data and time; "
        "give --weights-dir DIR with safetensors files named by timm architecture"
    )
    return small, [note, *hints]


def _name_sources(spec: StudySpec) -> str:
    """Names where weights are looked for."""
    return f"{spec.weights_dir}, the hub's cache or the hub" if spec.weights_dir else "the hub's cache or the hub"


def _explain_none(spec: StudySpec) -> str:
    """Explains that no backbone has weights, where they are required."""
    return f"no backbone has weights in {_name_sources(spec)}; give --weights-dir, or --pretrained never"


def _find_small(rows: list[dict[str, Any]], spec: StudySpec, *, every: bool = False) -> list[Candidate]:
    """Keeps what is trained from scratch: small backbones, or those that somebody chose."""
    every = every or spec.pool.max_params is not None
    asked = filter(_is_asked_for, rows)
    return [(row, None) for row in asked if every or row["params_m"] <= _SCRATCH_MAX_PARAMS]


def _is_asked_for(row: dict[str, Any]) -> bool:
    """Returns whether a row is the leaderboard's, or an encoder that somebody named."""
    return row["score"] is not None or bool(row["named"])


def _explain_where(backbone: str) -> str:
    """Explains where to put weights that are out of reach, and how to name them."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(backbone, allow_unregistered=False)
    source = f" (on the hub: model.safetensors of {cfg.hf_hub_id})" if cfg is not None and cfg.hf_hub_id else ""
    return f"put the weights of {backbone} into --weights-dir as {backbone}.safetensors{source}"
