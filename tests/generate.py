"""Writes the generated files (`make generate`), or lists the stale ones with `--check`.

The registry of stages is written first, from the text of the stages: while the registry is stale,
for example because it names a removed stage, no program can import the package.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[1]
AGENT = "guest-agent"
STAGES = f"{AGENT}/particle_agent/stages"
REGISTRY = '''\
"""All stages. `make generate` writes this file from the stages themselves; do not edit it."""

from typing import get_args

{imports}

RecipeStage = (
    {union}
)
RECIPE_STAGES: tuple[type, ...] = get_args(RecipeStage)
# The stages that the host may send: those of recipes, and those that only particle-os itself uses.
ALL_STAGES: tuple[type, ...] = (
    *RECIPE_STAGES,
    {internal},
)
'''


class UnclearStage(Exception):
    """The source of a stage lacks a name, or two stages share one."""


@dataclass(frozen=True)
class Found:
    """A stage as its source defines it; `type` is its name in recipes."""

    type: str
    name: str
    module: str
    in_recipes: bool


def stages(top: Path) -> list[Found]:
    """All stages of the folder of stages, sorted by their names in recipes.

    Raises UnclearStage when a stage has no type, or two stages share a name.
    """
    found = [stage for path in (top / STAGES).rglob("*.py") for stage in _in_module(top, path)]
    for names in ([stage.type for stage in found], [stage.name for stage in found]):
        if twice := {name for name in names if names.count(name) > 1}:
            raise UnclearStage(f"two stages are called '{min(twice)}': rename one of them")
    return sorted(found, key=lambda stage: stage.type)


def _in_module(top: Path, path: Path) -> Iterator[Found]:
    module = ".".join(path.relative_to(top / AGENT).with_suffix("").parts)
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and "StageOptions" in map(ast.unparse, node.bases):
            yield _stage(node, module)


def _stage(node: ast.ClassDef, module: str) -> Found:
    values = {
        ast.unparse(part.target): part.value.value
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.value, ast.Constant)
    }
    kind = values.get("type")
    if not isinstance(kind, str):
        message = f"{module}: {node.name} has no name in recipes"
        raise UnclearStage(f'{message}: add `type: Literal["..."] = "..."`, as other stages do')
    return Found(kind, node.name, module, values.get("in_recipes") is not False)


def registry(top: Path) -> str:
    """The source of the module that imports every stage."""
    found = stages(top)
    lines = sorted(f"from {stage.module} import {stage.name}" for stage in found)
    return REGISTRY.format(
        imports="\n".join(lines),
        union="\n    | ".join(stage.name for stage in found if stage.in_recipes),
        internal=",\n    ".join(stage.name for stage in found if not stage.in_recipes),
    )


def schema() -> str:
    """The JSON Schema of recipes for editors."""
    from particle_os.recipe.schema import recipes

    return json.dumps(recipes(), indent=2, sort_keys=True) + "\n"


def stages_page() -> str:
    """The reference of all stages."""
    from particle_os.recipe import reference

    return reference.stages()


def checks_page() -> str:
    """The reference of all checks of boot tests."""
    from particle_os.recipe import reference

    return reference.kinds_of_checks()


def files(top: Path) -> Iterator[tuple[Path, Callable[[], str]]]:
    """Each generated file and the function that makes its content, the registry first."""
    yield top / STAGES / "registry.py", lambda: registry(top)
    yield top / "recipes/schema.json", schema
    yield top / "docs/stages.md", stages_page
    yield top / "docs/checks.md", checks_page


def stale(top: Path) -> Iterator[tuple[Path, str]]:
    """The generated files that do not match the sources, each with its new content."""
    for path, make in files(top):
        content = make()
        if not path.exists() or path.read_text() != content:
            yield path, content


def write(path: Path, content: str) -> None:
    """Replaces a file atomically, so that a failure leaves the old file intact."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(content)
    new.replace(path)


def main(arguments: Sequence[str]) -> int:
    checks = "--check" in arguments
    found = 0
    try:
        for path, content in stale(TOP):
            found += 1
            state = "stale: run 'make generate'" if checks else "written"
            print(f"{path.relative_to(TOP)}: {state}")
            if not checks:
                write(path, content)
    except UnclearStage as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    return 1 if checks and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
