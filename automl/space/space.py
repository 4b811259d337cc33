"""The search space: what may vary, drawn by Optuna into recipe-shaped mappings, and back again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from automl.errors import SpaceError, suggest_name
from automl.files import shipped
from automl.recipe import Recipe
from automl.space.conflicts import find_conflicts, find_unused
from automl.space.fields import list_known
from automl.space.inverse import invert
from automl.space.nodes import (
    Branches,
    Choice,
    Constant,
    Float,
    Group,
    Int,
    Node,
    Ordered,
    Pool,
    iterate_nodes,
    list_values,
)
from automl.space.parser import Parser
from automl.space.restriction import Restriction, decode_restricted, list_sizes, restrict_node, restrict_params

if TYPE_CHECKING:  # Optuna takes half a second to import, and `automl --help` shall not pay for it
    from optuna.trial import BaseTrial

TIERS = ("minutes", "quick", "medium", "long")
"""Cost tiers of the known-good recipes, cheapest first."""
POOL_TIERS = ("best", "fastest", "affordable")
"""Backbones that a known-good recipe may name by what they are in the pool, instead of a rank."""


@dataclass(eq=False)
class Space:
    """A checked search space.

    Attributes:
        known_good: Partial recipes, cheapest tier first; each has a `tier` and, mostly, a `backbone` of `POOL_TIERS`.
        source: Where it was read from, for messages.
        text: The YAML it was read from, to be stored with a study (`parse_space` reads it back).
        notes: What is set or drawn in vain, one line each.
    """

    root: Group
    known_good: list[dict[str, Any]]
    source: str = "space"
    text: str = ""
    notes: tuple[str, ...] = ()

    def suggest_recipe(
        self,
        trial: BaseTrial,
        *,
        backbones: int,
        self_blend: bool,
        restriction_of: Callable[[int | str], Restriction] = lambda _: Restriction(),
    ) -> dict[str, Any]:
        """Draws one point from a trial (also a `FixedTrial`); the backbone first, and then what it can do.

        `backbones` is how many the pool holds. Without `self_blend`, the data names no class of real images, so there
        is nothing to blend. `restriction_of` gives what a backbone can do, by its rank or the name that the space gives
        it. The mapping is shaped like `Recipe`; `backbone` is a rank (0: the pool's best) unless the space names it.
        """
        lifted: dict[str, Any] = {}
        restriction = Restriction()

        def draw(node: Node, name: str, of_branches: str = "") -> Any:
            match node:
                case Constant(value):
                    return value
                case Float(low, high, log, step):
                    return trial.suggest_float(name, low, high, log=log, step=step)
                case Int(low, high, log, step):
                    return trial.suggest_int(name, low, high, log=log, step=step)
                case Choice(options):
                    return trial.suggest_categorical(name, options)
                case Ordered(options):
                    return options[trial.suggest_int(name, 0, len(options) - 1)]
                case Pool():
                    return trial.suggest_int(name, 0, backbones - 1)
                case Group(children):
                    return draw_all(children, name)
                case Branches(branches):
                    names = list(branches)
                    taken = trial.suggest_categorical(name, names) if len(names) > 1 else names[0]
                    inner = f"{of_branches or name}.{taken}"
                    lifted.update(draw_all(branches[taken].lifted, inner))
                    return {"name": taken} | draw_all(branches[taken].children, inner)

        def draw_all(nodes: Mapping[str, Node], name: str) -> dict[str, Any]:
            known = {"self_blend": 0} if name.rpartition(".")[2] == "augmentation" and not self_blend else {}
            drawn = {key: node for key, node in nodes.items() if key not in known}
            return {key: draw_field(key, f"{name}.{key}", node) for key, node in drawn.items()} | known

        def draw_field(key: str, name: str, node: Node) -> Any:
            new_name, node = restrict_node(key, name, node, restriction)
            return draw(node, new_name, name)

        values: dict[str, Any] = {"backbone": draw(self.root.children["backbone"], "backbone")}
        restriction = restriction_of(values["backbone"])
        for key, node in self.root.children.items():  # what a branch may lift comes last, and only if none did
            if key not in lifted and key != "backbone":
                values[key] = draw_field(key, key, node)
        return values | lifted

    def find_params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Finds the Optuna parameters that draw a given recipe, for `study.enqueue_trial`.

        `values` is a partial recipe; `backbone` is a rank where the space draws it from the pool. What is left out is
        left to the sampler. `pretrained`, `seed` and `numerics` are passed over: the study sets them.

        Raises:
            SpaceError: With every value that the space cannot draw.
        """
        params, errors = invert(self.root, values)
        if errors:
            raise SpaceError("\n".join(f"{self.source}: {error}" for error in errors))
        return params

    def find_known_good_params(
        self, ranks: Mapping[str, int], restriction_of: Callable[[int | str], Restriction] = lambda _: Restriction()
    ) -> list[dict[str, Any]]:
        """Finds the Optuna parameters of each known-good recipe, for `study.enqueue_trial`, cheapest tier first.

        `ranks` gives ranks in the pool to `POOL_TIERS`: `{"best": 0, "fastest": 4}`. One that is missing is left to the
        sampler, and so is each where the space names backbones itself. `restriction_of` is as for `suggest_recipe`: for
        an image size that the backbone cannot take, the nearest is enqueued.
        """
        known_good, nodes = [], dict(self.iterate_parameters())
        for good in self.known_good:
            values = {key: value for key, value in good.items() if key not in ("tier", "backbone")}
            tier = good.get("backbone", "")
            if tier and tier not in POOL_TIERS:
                values["backbone"] = tier
            elif isinstance(self.root.children["backbone"], Pool) and tier in ranks:
                values["backbone"] = ranks[tier]
            params = self.find_params(values)
            if "backbone" in params:
                params = restrict_params(nodes, params, restriction_of(params["backbone"]))
            known_good.append(params)
        return known_good

    def decode_params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Replaces the indexes of ordered parameters by what they stand for, for people to read.

        `image_size: 2` becomes `image_size: 192`; names the space does not know stay as they are.
        """
        nodes = dict(self.iterate_parameters())
        decoded = {}
        for name, value in params.items():
            node = nodes.get(name)
            decoded[name] = node.options[value] if isinstance(node, Ordered) else decode_restricted(name, value, nodes)
        return decoded

    def find_bounds(self, name: str) -> tuple[float, float]:
        """Finds the least and the largest value of a numeric top-level parameter, such as `image_size`."""
        node = self.root.children.get(name, Constant(Recipe.model_fields[name].default))
        values = [float(value) for value in list_values(node)]
        return min(values), max(values)

    def image_sizes(self) -> tuple[int, ...]:
        """Lists the image sizes it can draw, those that a branch sets included; of a range of many, some of them."""
        fields = dict(iterate_nodes(self.root))
        nodes = [node for name, node in fields.items() if name.endswith(".image_size")]
        choices = [node for node in fields.values() if isinstance(node, Branches)]
        if not any(all("image_size" in branch.lifted for branch in node.branches.values()) for node in choices):
            nodes.append(fields.get("image_size", Constant(Recipe.model_fields["image_size"].default)))
        return tuple(sorted({size for node in nodes for size in list_sizes(node)}))

    def list_backbones(self) -> tuple[str, ...]:
        """Lists the backbones the space names itself; none where it draws them from the pool."""
        match self.root.children["backbone"]:
            case Constant(value):
                return (str(value),)
            case Choice(options) | Ordered(options):
                return tuple(str(option) for option in options)
        return ()

    def list_views(self) -> list[dict[str, Any]]:
        """Lists the views it can draw, each as a recipe has it, with the first or least of what varies in it."""
        node = self.root.children["view"]
        assert isinstance(node, Branches)  # noqa: S101 - a view is nothing else
        return [
            {"name": name} | {key: list_values(child)[0] for key, child in branch.children.items()}
            for name, branch in node.branches.items()
        ]

    def list_tunes(self) -> tuple[str, ...]:
        """Lists the branches of `tune` that it can draw."""
        node = self.root.children.get("tune")
        return tuple(node.branches) if isinstance(node, Branches) else ("all",)

    def iterate_parameters(self) -> Iterator[tuple[str, Node]]:
        """Yields every parameter a sampler may meet: its Optuna name and its node."""
        for name, node in iterate_nodes(self.root):
            if not isinstance(node, Constant) and not (isinstance(node, Branches) and len(node.branches) == 1):
                yield name, node


def list_shipped_spaces() -> list[str]:
    """Lists the names of the search spaces that ship; degradations lie in the same folder."""
    files = shipped("search_spaces", "image.yaml").parent.glob("*.yaml")
    return sorted(file.stem for file in files if file.stem != "degradations")


def load_space(name_or_path: str) -> Space:
    """Reads a search space: a shipped one by its name (`image`), or a `.yaml` or `.yml` file by its path.

    Raises:
        SpaceError: If there is no such space, or with every mistake in it: line, key, what is wrong, the nearest
            valid key.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        path = shipped("search_spaces", f"{name_or_path}.yaml")
        known = list_shipped_spaces()
        if name_or_path not in known:  # also keeps `../x` from being looked up
            hint = list_known(name_or_path, known)
            raise SpaceError(f"no search space {name_or_path!r}; a file ends in .yaml; {hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SpaceError(f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    return parse_space(text, str(path))


def parse_space(text: str, source: str = "space", *, may_conflict: bool = False) -> Space:
    """Reads a search space from YAML text; messages call it `source`.

    `may_conflict`: what draws recipes that are invalid is accepted, as in studies that began before this was looked at.

    Raises:
        SpaceError: With every mistake in it.
    """
    try:
        parser = Parser(text, source)
        root = parser.read_root()
        good = [] if parser.errors else parser.read_known_good()
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise SpaceError(f"{source}{where}: {getattr(exc, 'problem', None) or exc}") from exc
    except RecursionError as exc:
        raise SpaceError(f"{source}: nested too deeply for a search space") from exc
    mistakes = [(line, error) for line, item in good for error in _find_mistakes(root, item)]
    if not parser.errors and not may_conflict:
        mistakes += [(parser.find_line(name), f"{name}: {error}") for name, error in find_conflicts(root)]
    errors = parser.errors + [f"{source} line {line}: {error}" for line, error in mistakes]
    if errors:
        raise SpaceError("\n".join(errors))
    known_good = sorted((item for _, item in good), key=lambda item: TIERS.index(item["tier"]))
    notes = tuple(f"{source} line {parser.find_line(name)}: {name} {what}" for name, what in find_unused(root))
    return Space(root, known_good, source, text, notes)


def _find_mistakes(root: Group, good: Mapping[str, Any]) -> list[str]:
    """Finds what is wrong with a known-good recipe."""
    errors = []
    if good.get("tier") not in TIERS:
        hint = suggest_name(str(good.get("tier")), TIERS)
        errors.append(f"known_good: tier must be one of {', '.join(TIERS)}, got {good.get('tier')!r}{hint}")
    values = {key: item for key, item in good.items() if key != "tier"}
    if values.get("backbone") in POOL_TIERS:
        del values["backbone"]
    elif "backbone" in values and isinstance(root.children["backbone"], Pool):
        hint = suggest_name(str(values["backbone"]), POOL_TIERS)
        errors.append(f"known_good.backbone: must be {' or '.join(POOL_TIERS)}, got {values.pop('backbone')!r}{hint}")
    fix = "widen the range, or change or remove this entry"
    return errors + [f"known_good.{error}; {fix}" for error in invert(root, values)[1]]
