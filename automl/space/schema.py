"""The JSON Schema of search-space files, made from the recipe's own so that it stays true."""

from typing import Any

from automl.recipe import Recipe
from automl.space.fields import LIFTABLE, STUDY_FIELDS

__all__ = ["json_schema"]

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
    recipe = Recipe.model_json_schema()
    parts, top = recipe["$defs"], recipe["properties"]
    lifted = {key: {"$ref": f"#/$defs/{key}"} for key in sorted(LIFTABLE)}
    defs: Schema = {"number": _NUMBER, **{key: _leaf(top[key]) for key in sorted(LIFTABLE)}}
    properties: Schema = {key: lifted.get(key) or _field(top[key], parts) for key in top if key not in STUDY_FIELDS}
    properties["backbone"] = _backbone()
    properties["known_good"] = _known_good()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "automl search space",
        "description": "What may vary between the trials of a study; its nesting is the recipe's.",
        "$defs": defs,
        **_object(properties),
    }


def _field(schema: Schema, parts: Schema) -> Schema:
    """A field: a group, one of several branches, or a plain value."""
    if reference := schema.get("$ref"):
        part = parts[reference.rpartition("/")[2]]
        fields = {key: _field(item, parts) for key, item in part["properties"].items()}
        return {"description": part.get("description", ""), **_object(fields)}
    if mapping := schema.get("discriminator", {}).get("mapping"):
        return _branches({name: parts[reference.rpartition("/")[2]] for name, reference in mapping.items()}, parts)
    return _leaf(schema)


def _branches(models: Schema, parts: Schema) -> Schema:
    """One of several branches: a name, `{name: …}`, or `{choice: …}`."""
    name: Schema = {"enum": list(models)}
    fixed, open_branches = [], {}
    for key, part in models.items():
        lifted = {field: {"$ref": f"#/$defs/{field}"} for field in sorted(LIFTABLE)}
        own = {field: _field(item, parts) for field, item in part["properties"].items() if field != "name"}
        open_branches[key] = {"description": part.get("description", ""), **_object(lifted | own)}
        fixed.append({**_object({"name": {"const": key}} | lifted | own), "required": ["name"]})
    several = {"type": "array", "items": name, "minItems": 1, "uniqueItems": True}
    choice = {"anyOf": [{**_object(open_branches), "minProperties": 1}, several]}
    return {"anyOf": [name, {**_object({"choice": choice}), "required": ["choice"]}, *fixed]}


def _leaf(schema: Schema) -> Schema:
    """A plain value: a constant or one of the kinds."""
    plain = {key: item for key, item in schema.items() if key not in ("default", "title")}
    numeric = plain.get("type") in ("number", "integer")
    value = {"anyOf": [plain, {"$ref": "#/$defs/number", "type": "string"}]} if numeric else plain
    several = {"type": "array", "items": value, "minItems": 2, "uniqueItems": True}
    kinds: list[Schema] = [value, {**_object({"choice": several}), "required": ["choice"]}]
    if numeric:
        kinds.append({**_object({"ordered": several}), "required": ["ordered"]})
        for kind in ("int", "float") if plain["type"] == "number" else ("int",):
            bounds = {"type": "array", "items": value, "minItems": 2, "maxItems": 2}
            step = {"$ref": "#/$defs/number"}
            kinds.append({**_object({kind: bounds, "log": _LOG, "step": step}), "required": [kind]})
    known = {"default": schema["default"]} if "default" in schema else {}
    return {"anyOf": kinds, **known}


def _backbone() -> Schema:
    pool = {**_object({"pool": {"type": "object", "maxProperties": 0}}), "required": ["pool"]}
    some = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 8, "uniqueItems": True}
    named = {**_object({"choice": some}), "required": ["choice"]}
    return {
        "description": "{pool: {}}, one name, or {choice: [2 to 8 names]}",
        "anyOf": [{"type": "string"}, pool, named],
    }


def _known_good() -> Schema:
    tier = {"enum": ["quick", "medium", "long"]}
    item = {"type": "object", "properties": {"tier": tier}, "required": ["tier"]}
    return {"description": "Partial recipes that are tried first.", "type": "array", "items": item}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}
