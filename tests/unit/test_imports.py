"""The rules for imports between folders. The tests read the sources and run nothing.

Each package has a table of rows in `RULES`. A folder may import itself and the folders of the rows
above its own row, but no other folder of its own row. Every import counts, also under
TYPE_CHECKING and inside functions.
"""

import sys

import pytest

from ..sources import folder, imported, ours

# The lowest row first. A name that is no folder is a module beside the folders.
RULES = {
    "particle_os": (
        {"", "errors", "records"},
        {"system", "documents"},
        {"vm", "recipe"},
        {"shortcuts"},
        {"apt", "boot"},
        {"sandbox"},
        {"base", "report"},
        {"jobs"},
        {"cli"},
        {"__main__"},
    ),
    "particle_agent": (
        {"", "errors"},
        {"contract"},
        {"target"},
        {"system", "unpack"},
        {"disk", "apt"},
        {"shortcuts"},
        {"stages", "verification"},
        {"agent"},
        {"__main__"},
    ),
}
# The host may import these modules of the agent, in addition to `contract` and `stages`.
# Remove entries from this list; add none.
SHARED = {"apt.dpkg", "apt.failure", "apt.proxy", "errors"}


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
            same = folder(other) == folder(name)
            if not same and row(other) >= row(name) and row(name) > 0:
                yield f"{name} imports {other}, which is not below it"
        elif package == "particle_os" and top == "particle_agent":
            if inner.partition(".")[0] not in ("contract", "stages") and inner not in SHARED:
                yield f"{name} imports {other}, which is not shared with the host"
            if folder(name) in ("vm", "system"):
                yield f"{name} imports {other}: this folder must not depend on the agent"
        elif package == "particle_agent" and top not in sys.stdlib_module_names:
            yield f"{name} imports {other}: the agent may only use the standard library"
        if top == "click" and folder(name) not in ("cli", "__main__"):
            yield f"{name} imports click: only the command line may use it"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_lies_below_it(name):
    assert list(offences(name, imported(MODULES[name], MODULES))) == []


@pytest.mark.parametrize(
    ("name", "other"),
    [
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
