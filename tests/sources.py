"""The modules of the host and of the guest agent, read from their sources without running them.

Many tests read all sources. Each process parses a source once for all of them.
"""

import ast
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import particle_agent
import particle_os

ROOTS = {
    "particle_os": Path(particle_os.__file__).parent,
    "particle_agent": Path(particle_agent.__file__).parent,
}
# Modules and names that import or run what only a text names.
HIDING_MODULES = {"builtins", "imp", "importlib", "pkgutil", "runpy", "zipimport"}
HIDING_NAMES = {"__builtins__", "__import__", "__loader__", "__spec__", "compile", "eval", "exec"}


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree of a source; no test changes it."""
    return ast.parse(source)


@cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """All nodes of a source, as `ast.walk` finds them, in half the time."""
    found: list[ast.AST] = [parsed(source)]
    for node in found:
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                found += [part for part in value if isinstance(part, ast.AST)]
            elif isinstance(value, ast.AST):
                found.append(value)
    return tuple(found)


@cache
def calls(source: str) -> tuple[tuple[str, ast.Call], ...]:
    """All calls in a source, each with the dotted name of the function or class around it."""
    found: list[tuple[str, ast.Call]] = []
    around: list[tuple[str, ast.AST]] = [("", parsed(source))]
    for scope, node in around:
        if isinstance(node, ast.Call):
            found.append((scope, node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            scope = f"{scope}.{node.name}".lstrip(".")
        around += [(scope, child) for child in ast.iter_child_nodes(node)]
    return tuple(found)


def modules(package: str, root: Path) -> dict[str, Path]:
    """The source file of each module of a package, by the module's name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def ours() -> dict[str, Path]:
    """All modules of the host and of the guest agent."""
    found: dict[str, Path] = {}
    for package, root in ROOTS.items():
        inside = modules(package, root)
        assert len(inside) > 50
        found |= inside
    return found


def imported(path: Path, known: Collection[str]) -> Iterator[str]:
    """The absolute names of all modules that a source file imports, anywhere in the file.

    `known` are our modules; `from a import b` names the module a.b if it is known, else a.
    """
    for node in nodes(path.read_text()):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def hidden(path: Path) -> Iterator[str]:
    """The ways of a source file to reach a module that `imported` cannot name."""
    for node in nodes(path.read_text()):
        match node:
            case ast.Import(names=names):
                yield from (a.name for a in names if _hides(a.name) or _top(a.name) in ROOTS)
            case ast.ImportFrom(level=level) if level:
                yield "a relative import"
            case ast.ImportFrom(module=str(module), names=names):
                inner = [f"{module}.{alias.name}" for alias in names]
                yield from (name for name in inner if _hides(name) or name.endswith(".*"))
            case ast.Attribute(value=ast.Name(id="sys"), attr="modules"):
                yield "sys.modules"
            case ast.Name(id=name) if name in HIDING_NAMES:
                yield name


def _hides(name: str) -> bool:
    """Whether a module or name of the standard library finds modules by their names."""
    resources = f"{name}.".startswith("importlib.resources.")
    return name == "sys.modules" or (_top(name) in HIDING_MODULES and not resources)


def _top(name: str) -> str:
    return name.partition(".")[0]


def folder(name: str) -> str:
    """The folder of a module, or its own name when it lies beside the folders."""
    return name.partition(".")[2].partition(".")[0]
