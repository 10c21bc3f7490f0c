"""The stage reference (docs/stages.md), made from the stages' own docstrings and types."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from particle_agent.stages import RECIPE_STAGES

from particle_os import recipe

HEADER = """\
# Stages

Made by `make docs` from the code; do not edit.

Stages run in the order of the recipe, as root in the helper VM. `qemu` comes last.

## Options of every stage
"""


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON Schema in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        kinds = [_type(s, definitions) for s in schema["anyOf"] if s.get("type") != "null"]
        if len(kinds) == 2 and kinds[1] == f"list of {kinds[0]}":
            return f"{kinds[0]}, or a list"
        return " or ".join(kinds)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'], definitions)}"
    if schema.get("type") == "object":
        return "mapping from name to text"
    return str(schema.get("type", "value"))


def _options(
    name: str, definitions: dict[str, Any], without: Collection[str] = ()
) -> Iterator[str]:
    """One options class as a table, but for some; then the classes that it refers to."""
    definition = definitions[name]
    required = definition.get("required", [])
    yield "| option | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    nested = []
    for option, schema in definition["properties"].items():
        if option == "type" or option in without:
            continue
        kind = _type(schema, definitions)
        nested += [word for word in kind.split() if word in definitions]
        default = "required" if option in required else _default(schema)
        meaning = " ".join(str(schema.get("description", "")).split())
        yield f"| `{option}` | {kind} | {default} | {meaning} |"
    for inner in nested:
        yield ""
        yield f"### {inner}"
        yield ""
        yield str(definitions[inner]["description"])
        yield ""
        yield from _options(inner, definitions)


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _differs(kind: type, option: str) -> bool:
    """Whether a stage has its own form of an option that every stage has."""
    return option in vars(kind)["__annotations__"]


def stages() -> str:
    """The reference of all stages as Markdown."""
    definitions = recipe.json_schema()["$defs"]
    common = recipe.common_options()
    everywhere = {**definitions, "Common": {"properties": common}}
    lines = [HEADER, *_options("Common", everywhere), ""]
    for kind in RECIPE_STAGES:
        description = str(definitions[kind.__name__]["description"])
        lines += [f"## {recipe.stage_name(kind)}", "", description]
        without = [name for name in common if not _differs(kind, name)]
        lines += ["", *_options(kind.__name__, definitions, without), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(stages(), end="")  # noqa: T201 - this is what it is for
