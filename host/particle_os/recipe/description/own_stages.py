"""The reference of the own types of stages that a recipe has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from particle_os.documents import parsing
from particle_os.documents.document import Node
from particle_os.errors import printable
from particle_os.recipe import model
from particle_os.recipe.description.entries import Option, ReferenceEntry, unknown
from particle_os.recipe.parameters import kinds, variables
from particle_os.recipe.passes import include


def entries(directory: Path) -> Iterator[tuple[ReferenceEntry, Path]]:
    """The own types of stages of the recipes in `directory`, with their files."""
    for name, path in include.own_stages(directory, directory).items():
        if name not in model.stage_kinds():
            found = of_own_stage(name, path, ())
            assert isinstance(found, ReferenceEntry)
            yield found, path


def of_own_stage(name: str, path: Path, rest: Sequence[str]) -> ReferenceEntry | Option:
    """The entry of a file stages/NAME.yml, or of one of its variables. Raises InvalidDocument."""
    source = parsing.load(path)
    description = source.root.child("description")
    declared = source.root.child(variables.KEY)
    inner = declared.value if declared is not None and isinstance(declared.value, dict) else {}
    options = {key: _of_variable(key, node) for key, node in inner.items()}
    text = (
        description.value
        if description is not None and isinstance(description.value, str)
        else f"A type of stage of this recipe's own: {path}"
    )
    found = ReferenceEntry(name, printable(text, 1000), tuple(options.values()))
    if not rest:
        return found
    if len(rest) > 1 or rest[0] not in options:
        raise unknown("option", ".".join(rest), options)
    return options[rest[0]]


def _of_variable(name: str, node: Node) -> Option:
    """The option that a variable of a file of stages makes."""
    given = node.plain()
    stated = given if isinstance(given, dict) else {"default": given}
    default = stated.get("default")
    named = stated.get("type")
    kind = named if named in kinds.KINDS else kinds.kind_of(default) or "value"
    shown = "" if default is None else json.dumps(default, ensure_ascii=False)
    described = stated.get("description")
    about = printable(described, 1000) if isinstance(described, str) else ""
    return Option(
        printable(name, 100), str(kind), default is None, printable(shown, 200), about, ()
    )
