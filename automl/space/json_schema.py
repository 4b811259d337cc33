"""The JSON Schema of search-space files, made from the recipe's own so that it stays true.

automl space schema > search_spaces/schema.json
"""

import json
from typing import Any

from automl.recipe import Recipe
from automl.space.fields import LIFTABLE, STUDY_FIELDS
from automl.space.space import TIERS

Schema = dict[str, Any]

_NUMBER: Schema = {
    "description": "A number; 1e-5 is one too, though YAML 1.1 reads it as a string.",
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"}],
}
_LOG: Schema = {"type": "boolean", "description": "Drawn evenly in the logarithm; the range begins above 0."}


def make_schema() -> Schema:
    """Describes search-space files to editors and validators (JSON Schema 2020-12).

    It is somewhat more lenient than `load_space`, which also compares bounds with each other.
    """
    builder = _Builder()
    properties = {key: builder.describe_field(item) for key, item in builder.top.items() if key not in STUDY_FIELDS}
    names = {**_list_of({"type": "string"}), "maxItems": 8}
    pool = _object_of("pool", {"type": "object", "maxProperties": 0})
    choices = [{"type": "string"}, pool, _object_of("choice", names)]
    forms = "{pool: {}}, one name, or {choice: [2 to 8 names]}"
    tier = {"enum": list(TIERS)}
    good = {"type": "object", "properties": {"tier": tier}, "required": ["tier"]}
    properties["backbone"] = {"description": forms, "anyOf": choices}
    tried = "Partial recipes that are tried first."
    properties["known_good"] = {"description": tried, "type": "array", "items": good}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "automl search space",
        "description": "What may vary between the trials of a study; its nesting is the recipe's.",
        **_object_with(properties),
        "$defs": dict(sorted(builder.defs.items())),
    }


def format_schema() -> str:
    """Writes the schema as JSON, with a line for each property and each definition."""

    def write_block(block: Schema) -> str:
        lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in block.items())
        return "{\n" + ",\n".join(lines) + "\n}"

    schema = make_schema()
    blocks = [f'"{key}": {write_block(schema.pop(key))}' for key in ("properties", "$defs")]
    return write_block(schema)[:-2] + ",\n" + ",\n".join(blocks) + "\n}"


class _Builder:
    """Collects the definitions that the schema's parts refer to."""

    def __init__(self) -> None:
        recipe = Recipe.model_json_schema()
        self.parts: Schema = recipe["$defs"]
        self.top: Schema = recipe["properties"]
        self.defs: Schema = {"number": _NUMBER}

    def describe_field(self, schema: Schema) -> Schema:
        """Describes a field: a group, one of several branches, or a plain value."""
        if reference := schema.get("$ref"):
            return self.describe_class(reference.rpartition("/")[2])
        if mapping := schema.get("discriminator", {}).get("mapping"):
            return self.describe_branches({name: reference.rpartition("/")[2] for name, reference in mapping.items()})
        return self.describe_value(schema)

    def describe_class(self, name: str) -> Schema:
        """Describes a class of the recipe; in a branch, fields of the top level may stand too (they are lifted)."""
        if name in self.defs:  # also while it is being made: an augmentation's crop could set the augmentation
            return _refer(name)
        self.defs[name] = {}
        part = self.parts[name]
        fields: Schema = {}
        if "name" in part["properties"]:
            fields |= {key: self.describe_field(self.top[key]) for key in sorted(LIFTABLE)}
        own = part["properties"].items()
        fields |= {key: item if key == "name" else self.describe_field(item) for key, item in own}
        self.defs[name] = {"description": part.get("description", ""), **_object_with(fields)}
        return _refer(name)

    def describe_branches(self, parts: dict[str, str]) -> Schema:
        """Describes one of several branches: a name, `{name: …}`, or `{choice: …}`."""
        name: Schema = {"enum": list(parts)}
        inner = {key: self.describe_class(part) for key, part in parts.items()}
        several = {"type": "array", "items": name, "minItems": 1, "uniqueItems": True}
        choice = {"anyOf": [{**_object_with(inner), "minProperties": 1}, several]}
        fixed = [{**reference, "required": ["name"]} for reference in inner.values()]
        return {"anyOf": [name, {**_object_with({"choice": choice}), "required": ["choice"]}, *fixed]}

    def describe_value(self, schema: Schema) -> Schema:
        """Describes a plain value: a constant or one of the kinds. Fields of the same limits share one definition."""
        plain = {key: item for key, item in schema.items() if key not in ("default", "title")}
        if plain.get("type") not in ("number", "integer"):
            return {"anyOf": [plain, _object_of("choice", _list_of(plain))]}
        name = "_".join(f"{key}_{item}" for key, item in sorted(plain.items(), reverse=True))
        if name not in self.defs:
            self.defs[f"value_{name}"] = {"anyOf": [plain, {**_refer("number"), "type": "string"}]}
            value = _refer(f"value_{name}")
            bounds = {"type": "array", "items": value, "minItems": 2, "maxItems": 2}
            kinds = ("float", "int") if plain["type"] == "number" else ("int",)
            ranges = [_object_of(kind, bounds, log=_LOG, step=_refer("number")) for kind in kinds]
            lists = [_object_of(kind, _list_of(value)) for kind in ("choice", "ordered")]
            self.defs[name] = {"anyOf": [value, *ranges, *lists]}
        return _refer(name)


def _refer(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 2, "uniqueItems": True}


def _object_of(kind: str, value: Schema, **options: Schema) -> Schema:
    return {**_object_with({kind: value, **options}), "required": [kind]}


def _object_with(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}
