"""Adds a recipe's own types of stages to the JSON Schema for editors."""

from __future__ import annotations

from pathlib import Path

from particle_os.recipe.description import own_stages, schema
from particle_os.recipe.description.entries import Option, ReferenceEntry
from particle_os.recipe.description.schema import Schema
from particle_os.recipe.passes import include

# The JSON Schemas of the kinds of variables. A value without a known kind may be anything.
KINDS: dict[str, Schema] = {
    "string": {"type": "string"},
    "integer": {"anyOf": [{"type": "integer"}, schema.VARIABLE]},
    "boolean": {"anyOf": [{"type": "boolean"}, schema.VARIABLE]},
    "list": {"anyOf": [{"type": "array", "items": {"type": "string"}}, schema.VARIABLE]},
}


def recipes(directory: Path) -> Schema:
    """The schema of the recipes in a directory, with their own types of stages."""
    whole = schema.recipes()
    _add(whole, whole["properties"]["stages"], directory)
    return whole


def included(directory: Path) -> Schema:
    """The schema of the files that the recipes in a directory include."""
    whole = schema.included()
    # Both forms of these files have the same list of stages.
    _add(whole, whole["anyOf"][0], directory)
    return whole


def _add(whole: Schema, stages: Schema, directory: Path) -> None:
    for entry, _ in own_stages.entries(directory):
        name = f"own-{entry.name}"
        whole["definitions"][name] = _stage(entry)
        stages["items"]["anyOf"].append({"$ref": f"#/definitions/{name}"})


def _stage(entry: ReferenceEntry) -> Schema:
    common = {
        name: {"$ref": f"#/definitions/{schema.definition(name)}"}
        for name in (include.NAME, include.WHEN, *include.SHARED)
    }
    options = {option.name: _option(option) for option in entry.options}
    return {
        "type": "object",
        "description": entry.description,
        "properties": {**common, **options, "type": {"const": entry.name}},
        "required": ["type", *(option.name for option in entry.options if option.required)],
        "additionalProperties": False,
    }


def _option(option: Option) -> Schema:
    described = {"description": option.description} if option.description else {}
    return {**KINDS.get(option.type, {}), **described}
