"""The reference of stages and checks for `explain` and docs/, from docstrings and types."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from particle_agent.stages import RECIPE_STAGES

from particle_os.recipe import model
from particle_os.recipe.checks.kinds import KINDS
from particle_os.recipe.description import own_stages as own_types
from particle_os.recipe.description.entries import Option, ReferenceEntry, unknown
from particle_os.recipe.description.schema import common_options, of_recipes
from particle_os.recipe.description.schema import recipes as written_form
from particle_os.recipe.names import owners_hint
from particle_os.recipe.parameters import matrix, variables
from particle_os.recipe.passes import include, legacy

CHECKS_HEADER = """\
# Checks

`make generate` writes this page from the code; do not edit it.

The items of `boot-test: checks:` in a recipe, and of the file for `boot-test --checks`. See
[boot-test.md](boot-test.md#checks).
"""
INDENT = " " * 6
HEADER = """\
# Stages

`make generate` writes this page from the code; do not edit it.

Stages run in the order of the recipe, as root in the helper VM. `qemu` comes last.

## Options of every stage
"""


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Describes the type of a JSON Schema in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        kinds = [_type(s, definitions) for s in schema["anyOf"] if s.get("type") != "null"]
        if len(kinds) == 2 and kinds[1] == f"list of {kinds[0]}":
            return f"{kinds[0]}, or a list"
        return " or ".join(kinds)
    if "oneOf" in schema:
        of_checks = all(str(inner.get("$ref", "")).endswith("Check") for inner in schema["oneOf"])
        return "check" if of_checks else "stage"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'], definitions)}"
    if schema.get("type") == "object":
        of_texts = "anyOf" not in schema.get("additionalProperties", {})
        return "mapping from name to text" if of_texts else "mapping"
    return str(schema.get("type", "value"))


def _read(
    name: str, definitions: dict[str, Any], without: Collection[str] = ()
) -> Iterator[Option]:
    """The options of one class, except those in `without`."""
    definition = definitions[name]
    required = definition.get("required", [])
    for option, schema in definition["properties"].items():
        if (option == "type" and "const" in schema) or option in without:
            continue
        kind = _type(schema, definitions)
        inner = tuple(word for word in kind.split() if word in definitions)
        meaning = " ".join(str(schema.get("description", "")).split())
        yield Option(option, kind, option in required, _default(schema), meaning, inner)


def _options(
    name: str, definitions: dict[str, Any], without: Collection[str] = ()
) -> Iterator[str]:
    """One options class as a table, except the options in `without`; then the inner classes."""
    yield "| option | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    nested: list[str] = []
    for option in _read(name, definitions, without):
        nested += option.inner
        default = "required" if option.required else option.default
        yield f"| `{option.name}` | {option.type} | {default} | {option.description} |"
    for inner in nested:
        yield ""
        yield f"### {inner}"
        yield ""
        yield str(definitions[inner]["description"])
        yield ""
        yield from _options(inner, definitions)


def find(path: str, directory: Path | None = None) -> ReferenceEntry | Option:
    """The entry of `STAGE`, or of `STAGE.OPTION` at any depth.

    The stages include the own types of stages of the recipes in `directory`.
    `recipe` means the recipe itself, `include` the item that replaces a stage, `check` all checks,
    and `check.KIND` one check. Any other word is a key of the recipe, an option of every stage, or
    the kind of a check. Raises UsageError with the nearest name.
    """
    definitions = _definitions()
    checks = {kind.kind: kind.__name__ for kind in KINDS}
    classes = {model.stage_name(kind): kind.__name__ for kind in RECIPE_STAGES}
    classes |= {"recipe": "Recipe", include.KEY: "Include", "check": ""}
    path = path.removeprefix(legacy.PREFIX)
    first, *rest = path.split(".")
    keys = definitions["Recipe"]["properties"]
    own = include.own_stages(directory, directory) if directory else {}
    if first not in classes and first in own:
        return own_types.of_own_stage(first, own[first], rest)
    if first not in classes:
        others = {
            **dict.fromkeys(checks, "check"),
            **dict.fromkeys(common_options(), "apt"),
            **dict.fromkeys(keys, "recipe"),
        }
        if first in others:
            return find(f"{others[first]}.{path}")
    if path == "check":
        return all_checks()
    name = first
    if first == "check":
        classes = checks
        first, *rest = rest
        name = f"check.{first}"
    if first not in classes:
        known = classes if classes is checks else {*classes, *keys, *own}
        raise unknown("check" if classes is checks else "stage or key", first, known)
    found: ReferenceEntry | Option = _entry(name, classes[first], definitions)
    inner = [classes[first]]
    for option in rest:
        options = {o.name: o for kind in inner for o in _read(kind, definitions)}
        if option not in options:
            raise unknown("option", option, options, owners_hint(option))
        found, inner = options[option], list(options[option].inner)
    if isinstance(found, Option) and found.inner:
        kind = found.inner[0]
        described = f"{found.description}\n\n{definitions[kind]['description']}"
        return ReferenceEntry(path, described, tuple(_read(kind, definitions)))
    return found


def own_stages(directory: Path) -> Iterator[tuple[ReferenceEntry, Path]]:
    """The own types of stages of the recipes in `directory`, with their files."""
    return own_types.entries(directory)


@functools.cache
def _definitions() -> dict[str, Any]:
    """The schemas of all classes, and of the variables and includes of written recipes."""
    final, written = of_recipes(), written_form()
    for key in (variables.KEY, matrix.KEY):
        final["properties"][key] = written["properties"][key]
    return {**final["$defs"], "Recipe": final, "Include": written["definitions"]["Include"]}


def all_checks() -> ReferenceEntry:
    """The checks of boot tests, each with the first line of its description."""
    definitions = _definitions()
    about = "The items of 'boot-test: checks:' in a recipe, and of the file for 'boot-test'."
    kinds = [(kind.kind, str(definitions[kind.__name__]["description"])) for kind in KINDS]
    options = (Option(k, "check", False, "", d.splitlines()[0], ()) for k, d in kinds)
    return ReferenceEntry("check", about, tuple(options))


def _entry(name: str, kind: str, definitions: dict[str, Any]) -> ReferenceEntry:
    description = str(definitions[kind]["description"])
    return ReferenceEntry(name, description, tuple(_read(kind, definitions)))


def text(found: ReferenceEntry | Option) -> str:
    """Formats an entry for the terminal."""
    if isinstance(found, Option):
        return _paragraph(found)
    lines = [found.name, "", textwrap.indent(found.description, "  ")]
    for option in found.options:
        lines += ["", _paragraph(option)]
    return "\n".join(lines)


def _paragraph(option: Option) -> str:
    state = "required" if option.required else option.default and f"default {option.default}"
    about = f"  {option.name}: {option.type}{f', {state}' if state else ''}".replace("`", "")
    meaning = textwrap.fill(option.description, 76, initial_indent=INDENT, subsequent_indent=INDENT)
    return f"{about}\n{meaning}"


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if value is None or isinstance(value, dict):
        return ""
    if value == "":
        return '`""`'
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
    definitions = of_recipes()["$defs"]
    common = common_options()
    everywhere = {**definitions, "Common": {"properties": common}}
    lines = [HEADER, *_options("Common", everywhere), ""]
    for kind in RECIPE_STAGES:
        description = str(definitions[kind.__name__]["description"])
        lines += [f"## {model.stage_name(kind)}", "", description]
        without = [name for name in common if not _differs(kind, name)]
        lines += ["", *_options(kind.__name__, definitions, without), ""]
    return "\n".join(lines)


def kinds_of_checks() -> str:
    """The reference of all checks as Markdown."""
    definitions = of_recipes()["$defs"]
    lines = [CHECKS_HEADER]
    for kind in KINDS:
        description = str(definitions[kind.__name__]["description"])
        lines += [f"## {kind.kind}", "", description, ""]
        lines += [*_options(kind.__name__, definitions), ""]
    return "\n".join(lines).rstrip("\n") + "\n"
