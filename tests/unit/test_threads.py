"""No thread of the host outlives the program: each one is a daemon.

The tests read the sources and run nothing.
"""

import ast
from collections.abc import Iterator

import pytest

from ..sources import ROOTS, nodes


def others(source: str) -> Iterator[int]:
    """The lines that make a thread which the end of the program would wait for."""
    for node in nodes(source):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="Thread") | ast.Name(id="Thread"), keywords=given
            ):
                if ("daemon", "True") not in [(k.arg, ast.unparse(k.value)) for k in given]:
                    yield node.lineno


def test_every_thread_is_a_daemon():
    found = [
        f"{path.name}:{line}"
        for path in ROOTS["particle_os"].rglob("*.py")
        for line in others(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("more", ["", ", daemon=False", ", daemon=x", ", name='daemon'"])
def test_another_thread_is_noticed(more):
    assert list(others(f"threading.Thread(target=f{more}).start()")) == [1]
    assert list(others("Thread(target=f, daemon=True)")) == []
