"""The JSON Schema of search-space files, made from the recipe's own so that it stays true.

automl space schema > search_spaces/schema.json
"""

from typing import Any

from automl.recipe import Recipe
from automl.space.fields import LIFTABLE, STUDY_FIELDS

Schema = dict[str, Any]

_NUMBER: Schema = {
    "description": "A number; 1e-5 is one too, though YAML 1.1 reads it as a string.",
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"}],
}
_LOG: Schema = {"type": "boolean", "description": "Drawn evenly in the logarithm; the range begins above 0."}


def json_schema() -> Schema:
    """Describes search-space files to editors and validators (JSON Schema 2020-12).

    Returns:
        The schema. It is somewhat more lenient than `load_space`, which also compares bounds with each other.
    """
    return _Builder().build()


class _Builder:
    """Collects the definitions that the schema's parts refer to."""

    def __init__(self) -> None:
        recipe = Recipe.model_json_schema()
        self.parts: Schema = recipe["$defs"]
        self.top: Schema = recipe["properties"]
        self.defs: Schema = {"number": _NUMBER}

    def build(self) -> Schema:
        properties = {key: self.field(item) for key, item in self.top.items() if key not in STUDY_FIELDS}
        properties |= {"backbone": _backbone(), "known_good": _known_good()}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "automl search space",
            "description": "What may vary between the trials of a study; its nesting is the recipe's.",
            **_object(properties),
            "$defs": dict(sorted(self.defs.items())),
        }

    def field(self, schema: Schema) -> Schema:
        """A field: a group, one of several branches, or a plain value."""
        if reference := schema.get("$ref"):
            return self.part(reference.rpartition("/")[2])
        if mapping := schema.get("discriminator", {}).get("mapping"):
            return self.branches({name: reference.rpartition("/")[2] for name, reference in mapping.items()})
        return self.leaf(schema)

    def part(self, name: str) -> Schema:
        """A class of the recipe; in a branch, fields of the top level may stand too (they are lifted)."""
        if name in self.defs:  # also while it is being made: an augmentation's crop could set the augmentation
            return _ref(name)
        self.defs[name] = {}
        part = self.parts[name]
        fields: Schema = {}
        if "name" in part["properties"]:
            fields |= {key: self.field(self.top[key]) for key in sorted(LIFTABLE)}
        fields |= {key: item if key == "name" else self.field(item) for key, item in part["properties"].items()}
        self.defs[name] = {"description": part.get("description", ""), **_object(fields)}
        return _ref(name)

    def branches(self, parts: dict[str, str]) -> Schema:
        """One of several branches: a name, `{name: …}`, or `{choice: …}`."""
        name: Schema = {"enum": list(parts)}
        inner = {key: self.part(part) for key, part in parts.items()}
        several = {"type": "array", "items": name, "minItems": 1, "uniqueItems": True}
        choice = {"anyOf": [{**_object(inner), "minProperties": 1}, several]}
        fixed = [{**reference, "required": ["name"]} for reference in inner.values()]
        return {"anyOf": [name, {**_object({"choice": choice}), "required": ["choice"]}, *fixed]}

    def leaf(self, schema: Schema) -> Schema:
        """A plain value: a constant or one of the kinds. Fields of the same limits share one definition."""
        plain = {key: item for key, item in schema.items() if key not in ("default", "title")}
        if plain.get("type") not in ("number", "integer"):
            return {"anyOf": [plain, _one("choice", _several(plain))]}
        name = "_".join(f"{key}_{item}" for key, item in sorted(plain.items(), reverse=True))
        if name not in self.defs:
            self.defs[f"value_{name}"] = {"anyOf": [plain, {**_ref("number"), "type": "string"}]}
            value = _ref(f"value_{name}")
            bounds = {"type": "array", "items": value, "minItems": 2, "maxItems": 2}
            kinds = ("float", "int") if plain["type"] == "number" else ("int",)
            ranges = [_one(kind, bounds, log=_LOG, step=_ref("number")) for kind in kinds]
            lists = [_one(kind, _several(value)) for kind in ("choice", "ordered")]
            self.defs[name] = {"anyOf": [value, *ranges, *lists]}
        return _ref(name)


def _backbone() -> Schema:
    names = {**_several({"type": "string"}), "maxItems": 8}
    choices = [{"type": "string"}, _one("pool", {"type": "object", "maxProperties": 0}), _one("choice", names)]
    return {"description": "{pool: {}}, one name, or {choice: [2 to 8 names]}", "anyOf": choices}


def _known_good() -> Schema:
    tier = {"enum": ["quick", "medium", "long"]}
    item = {"type": "object", "properties": {"tier": tier}, "required": ["tier"]}
    return {"description": "Partial recipes that are tried first.", "type": "array", "items": item}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _several(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 2, "uniqueItems": True}


def _one(kind: str, value: Schema, **options: Schema) -> Schema:
    return {**_object({kind: value, **options}), "required": [kind]}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}
