"""The rules for imports between folders. The tests read the sources and run nothing.

Each package has a table of rows in `RULES`. A folder may import itself and the folders of the rows
above its own row, but no other folder of its own row; only the modules of the lowest row may import
each other. Every import counts, also under TYPE_CHECKING and inside functions, and no module may
import in a way that the tests cannot see.
"""

import sys

import pytest

from ..sources import folder, hidden, imported, ours

# The lowest row first. A name that is no folder is a module beside the folders.
RULES = {
    "particle_os": (
        {"", "architecture", "errors", "records"},
        {"system"},
        {"documents", "ostree", "registry"},
        {"vm", "recipe", "egress", "sharing"},
        {"shortcuts"},
        {"apt", "boot"},
        {"sandbox"},
        {"base", "report"},
        {"jobs"},
        {"fleet", "publishing"},
        {"cli"},
        {"__main__"},
    ),
    "particle_agent": (
        {"", "errors"},
        {"contract"},
        {"target"},
        {"system", "unpack"},
        {"disk", "apt"},
        {"shortcuts", "ostree"},
        {"stages", "verification"},
        {"agent"},
        {"__main__"},
    ),
}
# The host may import these modules of the agent, in addition to `contract` and `stages`.
# Remove entries from this list; add none.
SHARED = {"apt.dpkg", "apt.failure", "apt.proxy", "errors"}
# The modules that import in a way that the tests cannot see.
# Remove entries from this list; add none.
HIDDEN = {
    # The command line imports only the module of the command that is asked for: a start is quick.
    # The name that it imports lies in its own folder.
    "particle_os.cli": ["importlib.import_module"],
}

MODULES = ours()


def row(name):
    """The index of the row of a module in the rules of its package."""
    rows = RULES[name.partition(".")[0]]
    found = [index for index, folders in enumerate(rows) if folder(name) in folders]
    assert len(found) == 1, f"{name} has no row in RULES, or several"
    return found[0]


def offences(name, names):
    """The imports of a module that the rules do not allow."""
    package = name.partition(".")[0]
    for other in names:
        top, _, inner = other.partition(".")
        if top == package:
            same = folder(other) == folder(name) or row(other) == row(name) == 0
            if not same and row(other) >= row(name):
                yield f"{name} imports {other}, which is not below it"
        elif package == "particle_os" and top == "particle_agent":
            if inner.partition(".")[0] not in ("contract", "stages") and inner not in SHARED:
                yield f"{name} imports {other}, which is not shared with the host"
            if folder(name) in ("vm", "system"):
                yield f"{name} imports {other}: this folder must not depend on the agent"
        elif package == "particle_agent" and top not in sys.stdlib_module_names:
            yield f"{name} imports {other}: the agent may only use the standard library"
        elif top == "tests":
            yield f"{name} imports {other}: the tests are not shipped"
        if top == "click" and folder(name) not in ("cli", "__main__"):
            yield f"{name} imports click: only the command line may use it"


def test_each_module_imports_only_what_lies_below_it():
    found = [offences(name, imported(path, MODULES)) for name, path in MODULES.items()]
    assert [offence for of_one in found for offence in of_one] == []


def test_no_module_hides_an_import():
    found = {name: list(hidden(path)) for name, path in MODULES.items()}
    assert {name: ways for name, ways in found.items() if ways} == HIDDEN


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("particle_os", "particle_os.cli"),
        ("particle_os.errors", "particle_os.jobs.build"),
        ("particle_os.records", "particle_os.system.process"),
        ("particle_os.jobs.build", "tests.sources"),
        ("particle_agent", "particle_agent.agent.runner"),
        ("particle_agent.errors", "particle_agent.contract.wire"),
        ("particle_agent.agent.runner", "tests.sources"),
        ("particle_os.vm.console", "particle_os.recipe.loading"),
        ("particle_os.vm.console", "particle_agent.contract.wire"),
        ("particle_os.recipe.loading", "particle_os.vm.argv"),
        ("particle_os.system.process", "particle_os.jobs.build"),
        ("particle_os.jobs.build", "particle_os.cli.options"),
        ("particle_os.jobs.build", "particle_agent.agent.runner"),
        ("particle_os.jobs.build", "click"),
        ("particle_agent.contract.wire", "particle_agent.target.target"),
        ("particle_agent.stages.software.apt", "particle_agent.verification.table"),
        ("particle_agent.contract.wire", "particle_os.errors"),
        ("particle_agent.agent.runner", "yaml"),
    ],
)
def test_the_rules_refuse(name, other):
    assert list(offences(name, [other])) != []


def test_imports_are_seen_wherever_they_stand(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from particle_os.vm import argv\n"
        "def late():\n    import particle_os.cli.options\n"
    )
    names = list(imported(source, MODULES))
    assert "particle_os.vm.argv" in names
    assert "particle_os.cli.options" in names


def test_the_modules_of_the_lowest_row_import_each_other():
    assert list(offences("particle_os.records", ["particle_os.errors"])) == []


@pytest.mark.parametrize(
    "text",
    [
        "import importlib",
        "import importlib.util as found",
        "from importlib import import_module",
        "from importlib.machinery import SourceFileLoader",
        "from pkgutil import resolve_name",
        "import pkgutil",
        "import runpy",
        "import builtins",
        "load = __import__",
        "exec('import particle_os.cli')",
        "eval('1')",
        "sys.modules['particle_os.cli']",
        "from sys import modules",
        "import particle_os",
        "import particle_os.cli.options",
        "import particle_agent as agent",
        "from . import errors",
        "from ..cli import options",
        "from particle_os.cli.options import *",
    ],
)
def test_a_hidden_import_is_seen(tmp_path, text):
    source = tmp_path / "module.py"
    source.write_text(f"def late():\n    {text}\n" if "*" not in text else text)
    assert len(list(hidden(source))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "from importlib import resources",
        "from importlib.resources.abc import Traversable",
        "from particle_os import errors",
        "re.compile('x')",
        "import sys",
    ],
)
def test_a_plain_import_hides_nothing(tmp_path, text):
    source = tmp_path / "module.py"
    source.write_text(text)
    assert list(hidden(source)) == []
