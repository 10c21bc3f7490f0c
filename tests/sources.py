"""The modules of the host and of the guest agent, read from their sources without running them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import particle_agent
import particle_os

ROOTS = {
    "particle_os": Path(particle_os.__file__).parent,
    "particle_agent": Path(particle_agent.__file__).parent,
}


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


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The absolute names of all modules that a source file imports, anywhere in the file.

    `known` are our modules; `from a import b` names the module a.b if it is known, else a.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the module that it imports"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def folder(name: str) -> str:
    """The folder of a module, or its own name when it lies beside the folders."""
    return name.partition(".")[2].partition(".")[0]
