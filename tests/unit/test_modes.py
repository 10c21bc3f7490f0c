"""Files and directories of the host are for its user alone, except for those in a table below.

The tests read the sources and run nothing. They notice a mode that is loosened or left out.
"""

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from ..sources import ROOTS, calls

DIRECTORY, FILE = 0o700, 0o600
RIGHT = {"mkdir": DIRECTORY, "touch": FILE, "mkfifo": FILE, "open": FILE, "makedirs": DIRECTORY}
# Calls with another mode or without one.
INSIDE = "inside a private directory"
FOR_USERS = "a directory of the user's choice, with the user's umask"
OTHERS = {
    ("apt/directory", "write"): INSIDE,
    ("apt/package_disk", "write_disk"): INSIDE,
    ("base/layout", "_written"): INSIDE,
    ("base/layout", "Layout.of_one_image"): INSIDE,
    ("boot/evidence", "Evidence.clear"): f"{FOR_USERS}; others lose the right to write",
    ("cli/verdicts", "make_writable"): FOR_USERS,
    ("jobs/delivery", "Delivery.keep_evidence"): FOR_USERS,
    ("sandbox/running", "_make_empty"): "the output becomes the user's image; the other is private",
    ("sharing/store", "DirectoryStore._put"): "a shared cache is for others: the umask decides",
    ("system/publication", "_prepare"): INSIDE,
    ("system/publication", "_unnamed_file"): FOR_USERS,
    ("system/workspace", "Workspace.adopt_directory"): f"its parents: {FOR_USERS}",
    ("system/workspace", "_opened"): "a lock, with the user's umask: it has no content",
}


def makers(source: str) -> Iterator[tuple[str, str, int | None]]:
    """The calls that make a file or directory: the function around, the name, the mode."""
    for function, call in calls(source):
        if name := _makes(call):
            yield function, name, _mode(call)


def _makes(call: ast.Call) -> str | None:
    match call.func:
        case ast.Attribute(value=ast.Name(id="os"), attr="open"):
            return "open" if "O_CREAT" in ast.unparse(call) or len(call.args) > 2 else None
        case ast.Attribute(attr="mkdir" | "touch" | "mkfifo" | "makedirs" as name):
            return name
    return None


def _mode(call: ast.Call) -> int | None:
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    for argument in [*modes, *call.args]:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int):
            return argument.value
    return None


@cache
def found() -> dict[tuple[str, str], list[str]]:
    """The calls with another mode than the private one, by module and function."""
    places: dict[tuple[str, str], list[str]] = {}
    root = ROOTS["particle_os"]
    for path in sorted(root.rglob("*.py")):
        module = str(path.relative_to(root).with_suffix(""))
        for function, name, mode in makers(path.read_text()):
            if mode != RIGHT[name]:
                shown = "no mode" if mode is None else oct(mode)
                places.setdefault((module, function), []).append(f"{name}: {shown}")
    return places


def test_everything_is_private_except_for_what_is_named():
    new = {place: call for place, call in found().items() if place not in OTHERS}
    assert new == {}, f"give these a private mode, or add them to OTHERS with the reason: {new}"
    gone = OTHERS.keys() - found().keys()
    assert gone == set(), f"remove these from OTHERS: {gone}"


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("path.mkdir()", None),
        ("path.mkdir(mode=0o756, exist_ok=True)", 0o756),
        ("path.mkdir(0o700)", 0o700),
        ("path.touch(mode=mode)", None),
        ("os.mkfifo(path, 0o666)", 0o666),
        ("os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)", 0o644),
    ],
)
def test_a_loose_mode_is_noticed(line, mode):
    ((function, _, seen),) = makers(f"class C:\n    def f(self):\n        {line}\n")
    assert (function, seen) == ("C.f", mode)


def test_reading_makes_nothing():
    assert not list(makers("os.open(path, os.O_RDONLY)\npath.open()\n"))
