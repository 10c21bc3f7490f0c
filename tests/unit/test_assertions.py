"""Every test can fail: it asserts something, and it does not return before it does."""

import ast
from pathlib import Path

import pytest

from ..sources import nodes

TESTS = Path(__file__).parents[1]
PATHS = sorted(p for p in TESTS.rglob("test_*.py") if "vm" not in p.relative_to(TESTS).parts[:1])
# A spy before each program ends the step with an error.
ALLOWED = {"test_no_program_opens_a_file_of_the_users_home"}


def called(node):
    """The name of the function that a call calls."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)


def asserts(function, helpers, seen=()):
    """Whether a function asserts something itself, or calls a helper of its module that does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = called(node)
            if name == "raises" or name.startswith("assert_"):
                return True
            if name in seen or name not in helpers:
                continue
            if asserts(helpers[name], helpers, (*seen, name)):
                return True
    return False


def returns(node):
    """Whether a test returns early. Functions in the test may return."""
    inner = (ast.FunctionDef, ast.Lambda, ast.ClassDef)
    children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, inner)]
    return any(isinstance(child, ast.Return) or returns(child) for child in children)


def faults(source):
    found = [node for node in nodes(source) if isinstance(node, ast.FunctionDef)]
    helpers = {function.name: function for function in found}
    for test in (function for function in found if function.name.startswith("test_")):
        if not asserts(test, helpers) and test.name not in ALLOWED:
            yield f"{test.name} asserts nothing"
        if returns(test):
            yield f"{test.name} returns before its end"


def test_every_test_can_fail():
    assert len(PATHS) > 200
    found = {str(path.relative_to(TESTS)): list(faults(path.read_text())) for path in PATHS}
    assert {name: of_one for name, of_one in found.items() if of_one} == {}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("run()", "asserts nothing"),
        ("helper()", "asserts nothing"),
        ("if x:\n  return\n assert run()", "returns before its end"),
        ("try:\n  run()\n except KeyError:\n  return\n assert x", "returns before its end"),
        ("assert run()", None),
        ("with pytest.raises(KeyError):\n  run()", None),
        ("checked()", None),
        ("def inner():\n  return 1\n assert inner()", None),
    ],
)
def test_a_test_that_cannot_fail_is_noticed(body, fault):
    source = f"def checked():\n assert x\ndef helper():\n run()\ndef test_it():\n {body}\n"
    assert list(faults(source)) == ([f"test_it {fault}"] if fault else [])
