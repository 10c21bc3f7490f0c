"""Writes the generated files (`make generate`), or lists the stale ones with `--check`.

The registry of stages is written first, from the text of the stages: while the registry is stale,
for example because it names a removed stage, no program can import the package.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

TOP = Path(__file__).parents[1]
AGENT = "guest-agent"
MANUAL = "docs/man"
COMPLETIONS = "host/completions"
PACKAGE = "particle-os"
# A heading of CHANGELOG.md: the version, and the day of its release.
RELEASE = re.compile(r"^## \[([0-9.]+)\] - (\S+)$", re.MULTILINE)
UNRELEASED = "Unreleased"
# Files of the package get the time of its newest entry; tools refuse some earlier ones.
EARLIEST = date(2026, 1, 1)
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
    """The source of a stage has no clear name or has a field that cannot be read."""


@dataclass(frozen=True)
class Found:
    """A stage as its source defines it; `type` is its name in recipes."""

    type: str
    name: str
    module: str
    in_recipes: bool


def stages(top: Path) -> list[Found]:
    """All stages of the folder of stages, sorted by their names in recipes.

    Raises UnclearStage when a stage has no type, two stages share a name, or a field has a wrong
    type.
    """
    found = [stage for path in (top / STAGES).rglob("*.py") for stage in _in_module(top, path)]
    for kind in ("type", "name"):
        _refuse_repeated([(getattr(stage, kind), stage.module) for stage in found])
    return sorted(found, key=lambda stage: stage.type)


def _refuse_repeated(names: list[tuple[str, str]]) -> None:
    """Raises UnclearStage when two of the pairs of name and module have the same name."""
    counts = Counter(name for name, _ in names)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        modules = " and ".join(sorted(module for name, module in names if name == twice[0]))
        raise UnclearStage(f"two stages are called '{twice[0]}', in {modules}: rename one of them")


def _in_module(top: Path, path: Path) -> Iterator[Found]:
    module = ".".join(path.relative_to(top / AGENT).with_suffix("").parts)
    tree = ast.parse(path.read_text())
    known = {*dir(builtins), *_defined(tree)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases}
            if bases & {"Options", "StageOptions"}:
                _check_fields(node, module, known)
            if "StageOptions" in bases:
                yield _stage(node, module)


def _defined(tree: ast.Module) -> Iterator[str]:
    """The names that exist when the module has been imported."""
    for node in tree.body:
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from map(ast.unparse, targets)
            case ast.AnnAssign(target=target):
                yield ast.unparse(target)


def _check_fields(node: ast.ClassDef, module: str, known: Collection[str]) -> None:
    """Raises UnclearStage when the type of a field is undefined or can change."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign):
            place = f"{module}: {node.name}.{ast.unparse(part.target)}"
            for name in [n.id for n in ast.walk(part.annotation) if isinstance(n, ast.Name)]:
                if name not in known:
                    raise UnclearStage(f"{place}: '{name}' is not defined: import it")
                if name in ("list", "set"):
                    raise UnclearStage(f"{place}: '{name}' can change: use tuple[X, ...]")


def _stage(node: ast.ClassDef, module: str) -> Found:
    fields = {
        ast.unparse(part.target): (part.value.value, ast.unparse(part.annotation))
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.value, ast.Constant)
    }
    kind, annotation = fields.get("type", (None, ""))
    if not isinstance(kind, str):
        message = f"{module}: {node.name} has no name in recipes"
        raise UnclearStage(f'{message}: add `type: Literal["..."] = "..."`, as other stages do')
    if annotation != f"Literal[{kind!r}]":
        message = f"{module}: {node.name} has the name '{kind}', but the type {annotation}"
        raise UnclearStage(f'{message}: write `type: Literal["{kind}"] = "{kind}"`')
    in_recipes, _ = fields.get("in_recipes", (True, ""))
    return Found(kind, node.name, module, in_recipes is not False)


def registry(top: Path) -> str:
    """The source of the module that imports every stage."""
    found = stages(top)
    modules: dict[str, list[str]] = {}
    for stage in found:
        modules.setdefault(stage.module, []).append(stage.name)
    lines = [f"from {name} import {', '.join(sorted(modules[name]))}" for name in sorted(modules)]
    return REGISTRY.format(
        imports="\n".join(lines),
        union="\n    | ".join(stage.name for stage in found if stage.in_recipes),
        internal=",\n    ".join(stage.name for stage in found if not stage.in_recipes),
    )


def schema() -> str:
    """The JSON Schema of recipes for editors."""
    from particle_os.recipe.description.schema import recipes

    return json.dumps(recipes(), indent=2, sort_keys=True) + "\n"


def stages_page() -> str:
    """The reference of all stages."""
    from particle_os.recipe.description import reference

    return reference.stages()


def checks_page() -> str:
    """The reference of all checks of boot tests."""
    from particle_os.recipe.description import reference

    return reference.kinds_of_checks()


def manual() -> dict[str, str]:
    """The manual pages of all commands, by the names of their files."""
    import click
    from particle_os.cli import cli
    from particle_os.cli.usage.pages import pages

    return dict(pages(click.Context(cli, info_name="particle-os", **cli.context_settings)))


def completions() -> dict[str, str]:
    """The scripts that let shells complete the command line, by the names of their files."""
    from particle_os.cli import cli
    from particle_os.cli.usage import completion

    return {f"particle-os.{name}": completion.script(cli, name) for name in completion.SHELLS}


def debian_changelog(top: Path) -> str:
    """The versions of CHANGELOG.md in the form of deb-changelog(5)."""
    control = (top / "debian/control").read_text()
    maintainer = control.partition("Maintainer: ")[2].partition("\n")[0]
    entries = []
    for version, day in RELEASE.findall((top / "CHANGELOG.md").read_text()):
        released = day != UNRELEASED
        when = date.fromisoformat(day) if released else EARLIEST
        suite = "unstable" if released else "UNRELEASED"
        entries.append(
            f"{PACKAGE} ({version}) {suite}; urgency=medium\n\n"
            f"  * Version {version}; CHANGELOG.md lists the changes.\n\n"
            f" -- {maintainer}  {when:%a, %d %b %Y} 00:00:00 +0000\n"
        )
    return "\n".join(entries)


def files(top: Path) -> Iterator[tuple[Path, Callable[[], str]]]:
    """Each generated file and the function that makes its content, the registry first."""
    yield top / STAGES / "registry.py", lambda: registry(top)
    yield top / "recipes/schema.json", schema
    yield top / "docs/stages.md", stages_page
    yield top / "docs/checks.md", checks_page
    for name, text in manual().items():
        yield top / MANUAL / name, partial(str, text)
    yield top / "debian/changelog", lambda: debian_changelog(top)
    for name, text in completions().items():
        yield top / COMPLETIONS / name, partial(str, text)


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
