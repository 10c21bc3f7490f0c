"""Which module may import which; read from the sources, nothing is run."""

import ast
import sys
from pathlib import Path

import particle_agent
import particle_os
import pytest

HOST = Path(particle_os.__file__).parent
AGENT = Path(particle_agent.__file__).parent
VM_MAY_USE = {"deadline", "errors", "interrupt", "process", "vm"}


def imported(path, package):
    """The absolute names of all modules that a source file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            assert node.module is not None
            if node.module == package:
                yield from (f"{package}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def sources(directory):
    found = sorted(directory.rglob("*.py"))
    assert len(found) > 5
    return found


@pytest.mark.parametrize("path", sources(AGENT), ids=lambda p: str(p.relative_to(AGENT)))
def test_the_agent_needs_nothing_but_the_standard_library(path):
    allowed = {*sys.stdlib_module_names, "particle_agent"}
    tops = {name.partition(".")[0] for name in imported(path, "particle_agent")}
    assert tops <= allowed


@pytest.mark.parametrize("path", sources(HOST / "vm"), ids=lambda p: p.name)
def test_the_vm_layer_knows_nothing_of_recipes(path):
    names = list(imported(path, "particle_os"))
    ours = {name.split(".")[1] for name in names if name.startswith("particle_os.")}
    assert ours <= VM_MAY_USE
    assert not [name for name in names if name.startswith("particle_agent")]


@pytest.mark.parametrize("path", sources(HOST), ids=lambda p: str(p.relative_to(HOST)))
def test_only_the_command_line_knows_the_command_line(path):
    names = set(imported(path, "particle_os"))
    if path.parent.name != "cli" and path.name not in ("outcome.py", "__main__.py"):
        assert not [name for name in names if name.startswith("particle_os.cli")]
        assert "click" not in names
