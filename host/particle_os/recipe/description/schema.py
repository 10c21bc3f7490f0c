"""The JSON Schema of recipes for editors.

The schema is in Draft 7, which yaml-language-server reads
(https://json-schema.org/draft-07/schema). It describes recipes as they are written, so it allows
variables and included files. The validation of recipes sees neither.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

from particle_agent.stages import RECIPE_STAGES
from particle_agent.stages.base import StageOptions

from particle_os.documents import validation
from particle_os.recipe import model
from particle_os.recipe.parameters import kinds, matrix, variables
from particle_os.recipe.passes import include

DIALECT = "http://json-schema.org/draft-07/schema#"
# A text that contains a variable, and a text that is exactly one variable.
WITH_VARIABLE = {"type": "string", "pattern": r"\$\{"}
VARIABLE = {"$ref": "#/definitions/VariableReference"}

Schema = dict[str, Any]


def recipes() -> Schema:
    """The schema of recipes."""
    return _document(_root(of_recipes()))


def included() -> Schema:
    """The schema of the files that recipes include."""
    whole = _document(_root(of_recipes()))
    stages = whole["properties"]["stages"]
    return {
        "$schema": DIALECT,
        "title": "particle-os stages for inclusion",
        "definitions": whole["definitions"],
        "anyOf": [
            stages,
            {
                "type": "object",
                "properties": {
                    "stages": stages,
                    "description": {"type": "string", "description": "One line for people."},
                    variables.KEY: whole["properties"][variables.KEY],
                },
                "required": ["stages"],
                "additionalProperties": False,
            },
        ],
    }


def _document(schema: Schema) -> Schema:
    definitions = {name: _adapted(inner) for name, inner in schema.pop("$defs").items()}
    adapted = _adapted(schema)
    adapted["$schema"] = DIALECT
    adapted["title"] = "particle-os recipe"
    common = _common_definitions()
    for kind in RECIPE_STAGES:
        _refer(definitions[kind.__name__]["properties"], common)
    adapted["definitions"] = {**definitions, **common, **_additions()}
    items = adapted["properties"]["stages"]["items"]
    items["anyOf"] = [*items.pop("anyOf"), {"$ref": "#/definitions/Include"}]
    adapted["properties"][variables.KEY] = _declarations()
    adapted["properties"][matrix.KEY] = _matrix()
    return adapted


def _common_definitions() -> dict[str, Schema]:
    """The schemas of the options that every stage takes, by the names of their definitions."""
    options = {name: _value(schema) for name, schema in common_options().items()}
    for option in options.values():
        option.pop("title", None)
    return {definition(name): option for name, option in options.items()}


def definition(option: str) -> str:
    """The name of the definition for an option that every stage takes."""
    return f"Stage{option.title().replace('-', '')}"


def _refer(properties: Schema, common: dict[str, Schema]) -> None:
    """Replaces common options by references, unless a stage has its own form of the option."""
    for name, option in properties.items():
        if common.get(definition(name)) == option:
            properties[name] = {"$ref": f"#/definitions/{definition(name)}"}


def _root(schema: Schema) -> Schema:
    # The items lose their discriminator: an include is an item without a `type`.
    stages = schema["properties"]["stages"]
    stages["items"] = {"anyOf": stages["items"]["oneOf"]}
    return schema


def _additions() -> dict[str, Schema]:
    return {
        "Include": {
            "type": "object",
            "description": "Inserts the stages of another file here.",
            "properties": {
                include.KEY: {
                    "type": "string",
                    "minLength": 1,
                    "description": "The file, relative to this one: a list of stages, or a "
                    "mapping with 'stages'.",
                    "examples": ["common/base.yml"],
                },
                include.ARGUMENTS: {
                    "type": "object",
                    "description": "The values of the file's variables, by their names.",
                },
                include.WHEN: {"$ref": f"#/definitions/{definition(include.WHEN)}"},
            },
            "required": [include.KEY],
            "additionalProperties": False,
        },
        "VariableReference": {
            "type": "string",
            "pattern": rf"^\$\{{{variables.NAME}\}}$",
            "description": "A variable. The value takes the type of the variable.",
        },
    }


def _declarations() -> Schema:
    scalars = [{"type": kind} for kind in ("string", "integer", "boolean")]
    default = {"anyOf": [*scalars, {"type": "array", "items": {"type": "string"}}]}
    described = {
        "type": "object",
        "properties": {
            "type": {"enum": list(kinds.KINDS), "description": "The type of its values."},
            "default": {**default, "description": "Its value unless '--set' gives one."},
            "description": {"type": "string", "description": "The purpose of the variable."},
        },
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "description": "Variables with their defaults. A recipe uses them as ${NAME}; "
        "'--set NAME=VALUE' sets another value.",
        "propertyNames": {"pattern": f"^{variables.NAME}$"},
        "additionalProperties": {"anyOf": [*default["anyOf"], described]},
    }


def _matrix() -> Schema:
    value: Schema = {"type": ["string", "integer", "boolean"]}
    names = {"pattern": f"^{variables.NAME}$"}
    row = {
        "type": "object",
        "propertyNames": names,
        "additionalProperties": value,
        "minProperties": 1,
    }
    rows = {"type": "array", "items": row}
    return {
        "type": "object",
        "description": "One image for each combination of the values of these variables.",
        "propertyNames": names,
        "properties": {
            matrix.INCLUDE: {
                **rows,
                "description": "More images: values of variables; others have their defaults.",
            },
            matrix.EXCLUDE: {**rows, "description": "Combinations to leave out."},
        },
        "additionalProperties": {"type": "array", "items": value, "minItems": 1},
        "minProperties": 1,
    }


def _adapted(schema: Schema) -> Schema:
    """The schema of an object in Draft 7; variables may replace the values."""
    adapted = {k: v for k, v in schema.items() if k not in ("title", "properties")}
    if "properties" in schema:
        adapted["properties"] = {
            name: inner if _is_tag(name, inner) else _value(inner)
            for name, inner in schema["properties"].items()
        }
        for inner in adapted["properties"].values():
            inner.pop("title", None)
    return adapted


def _is_tag(name: str, schema: Schema) -> bool:
    return name == "type" and "const" in schema


def _value(schema: Schema) -> Schema:
    """The schema of a value that also allows variables as the value or in its text."""
    about: Schema = {k: schema[k] for k in ("description", "examples") if k in schema}
    if schema.get("default") is not None:
        about["default"] = schema["default"]
    kinds = list(_kinds(schema))
    found: list[Schema] = []
    for kind in kinds:
        bare = {k: v for k, v in kind.items() if k not in (*about, "title", "default")}
        found += [form for form in _forms(bare) if form not in found]
    for kind in kinds:
        if "examples" in kind:
            about.setdefault("examples", kind["examples"])
    # Draft 7 ignores all keywords beside "$ref".
    return {**about, "anyOf": found} if len(found) > 1 or "$ref" in found[0] else about | found[0]


def _kinds(schema: Schema) -> Iterator[Schema]:
    """The alternatives of a value, with nested alternatives flattened."""
    # pydantic writes oneOf for discriminated unions; at most one of their members ever matches.
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    for kind in alternatives or ():
        yield from _kinds(kind)
    if not alternatives:
        yield schema


def _forms(schema: Schema) -> list[Schema]:
    """The schema of one kind of value, and the schemas of variables that can replace it."""
    if "$ref" in schema:
        return [{"$ref": schema["$ref"].replace("#/$defs/", "#/definitions/")}]
    if schema.get("type") == "array":
        items = schema["items"]
        kinds = list(_kinds(items))
        if len(kinds) > 1 and all("$ref" in kind for kind in kinds):
            references = [form for kind in kinds for form in _forms(kind)]
            return [{**schema, "items": {"anyOf": references}}]
        return [{**schema, "items": _value(items)}, VARIABLE]
    if schema.get("type") in ("integer", "boolean", "number"):
        return [schema, VARIABLE]
    if schema.get("type") == "string":
        plain = {k: v for k, v in schema.items() if k != "examples"}
        return [plain] if list(plain) == ["type"] else [plain, WITH_VARIABLE]
    return [schema]


@functools.cache
def common_options() -> dict[str, Any]:
    """The JSON Schemas of the options that every stage takes."""
    properties: dict[str, Any] = validation.json_schema(StageOptions)["properties"]
    return {name: schema for name, schema in properties.items() if name != "type"}


def of_recipes() -> dict[str, Any]:
    """The JSON Schema (2020-12) of whole recipes, with descriptions from the docstrings."""
    return copy.deepcopy(_of_recipes())


@functools.cache
def _of_recipes() -> dict[str, Any]:
    schema = validation.json_schema(model.Recipe)
    for kind in RECIPE_STAGES:
        # pydantic omits the tag because it has a default, but a recipe must give it.
        definition = schema["$defs"][kind.__name__]
        definition["required"] = ["type", *definition.get("required", [])]
        definition["properties"]["type"].pop("default", None)
    return schema
