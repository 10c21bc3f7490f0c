"""Every promise of docs/promises.md names tests that attack it, and these tests exist."""

import ast
import re
from pathlib import Path

import pytest

from ..sources import parsed

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs" / "promises.md"
NUMBER = 25
PARTS = ("**It means:**", "**It does not mean:**", "**Attacked by:**")


def promises(text):
    """The promises of the page: the number, and the text of its section."""
    sections = re.split(r"^### (?=\d)", text, flags=re.MULTILINE)[1:]
    return {int(section.partition(".")[0]): section.partition("\n## ")[0] for section in sections}


def named(section):
    """The tests that a section names, as path and function."""
    return re.findall(r"^- `(tests/[a-z0-9_/]+\.py)::(test_\w+)`", section, re.MULTILINE)


def functions(path):
    """The functions of a file that pytest can find; none if there is no such file."""
    place = TOP / path
    if not place.exists():
        return set()
    tree = parsed(place.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def missing(section):
    """The parts and tests that a section lacks."""
    lacks = [part for part in PARTS if part not in section]
    tests = named(section)
    lacks += ["a test"] if not tests else []
    return lacks + [f"{path}::{name}" for path, name in tests if name not in functions(path)]


@pytest.mark.parametrize("number", range(1, NUMBER + 1))
def test_every_promise_names_tests_that_exist(number):
    assert missing(promises(PAGE.read_text())[number]) == []


def test_there_are_no_other_promises():
    assert sorted(promises(PAGE.read_text())) == list(range(1, NUMBER + 1))


def test_a_promise_without_a_test_is_noticed():
    text = "### 1. It holds\n\n**It means:** a\n\n**It does not mean:** b\n\n**Attacked by:**\n\n"
    assert missing(promises(text)[1]) == ["a test"]
    ours = f"tests/unit/{Path(__file__).name}"
    this = f"- `{ours}::test_a_promise_without_a_test_is_noticed`\n"
    assert missing(promises(text + this)[1]) == []
    gone = f"- `{ours}::test_gone`\n- `tests/unit/gone.py::test_here`\n"
    assert missing(promises(text + this + gone)[1]) == [
        f"{ours}::test_gone",
        "tests/unit/gone.py::test_here",
    ]


def test_a_promise_that_does_not_say_what_it_means_is_noticed():
    section = promises("### 7. It holds\n\nSome words.\n\n## Other\n**It means:**\n")[7]
    assert missing(section) == [*PARTS, "a test"]
