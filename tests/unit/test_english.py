"""Docstrings, comments and pages avoid idioms that a reader has to read twice.

The tests read the sources and run nothing.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from ..sources import nodes

TOP = Path(__file__).parents[2]
SOURCES = ("host", "guest-agent", "tests")
# Each idiom is a regular expression, with plain words instead of it.
IDIOMS = {
    "anew": "again",
    "besides": "in addition",
    "but for": "except",
    "by itself": "automatically",
    "if need be": "if needed",
    "its like": "the name of the thing",
    "lest": "so that ... not",
    "lets? go of": "releases",
    "nobody|somebody|whoever": "the user, the caller, a program",
    "of which": "two sentences",
    "tells?|told|telling": "reports, shows, contains",
    "to be had": "available",
    "what is there|those that are there": "the name of the thing",
}
IDIOM = re.compile(rf"\b(?:{'|'.join(IDIOMS)})\b", re.IGNORECASE)
# A docstring begins with a verb or a noun. "Whether" is the beginning for booleans.
RIDDLE = re.compile(r"(How|What|Which|Who|Whoever|Whose|Why)\b")
# Strings and comments. The module `tokenize` finds them too, but takes far longer.
TOKEN = re.compile(
    r"""("{3}|'{3})(?:\\.|.)*?\1|"(?:\\.|.)*?"|'(?:\\.|.)*?'|(?P<comment>#[^\n]*)""", re.DOTALL
)


def docstrings(source):
    """The docstrings of a module, its classes, its functions and its attributes."""
    for node in nodes(source):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


def comments(source):
    """The comments of a module; the lines of a block are one text."""
    block, end = [], 0
    for token in TOKEN.finditer(source):
        if token["comment"]:
            if source.count("\n", end, token.start()) != 1:
                yield "\n".join(block)
                block = []
            block.append(token["comment"].lstrip("# "))
            end = token.end()
    yield "\n".join(block)


def prose(text):
    """A text without its code, in one line."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    return " ".join(re.sub(r"`[^`]*`", "", text).split())


def in_page(text):
    return IDIOM.findall(prose(text))


def in_source(source):
    """The idioms in the docstrings and the comments of a module."""
    for text in docstrings(source):
        yield from RIDDLE.findall(text.lstrip()[:8])
        yield from in_page(text)
    for text in comments(source):
        yield from in_page(text)


def in_tree():
    """The idioms of each folder, each with the file that has it."""
    found = defaultdict(list)
    for path in (path for top in SOURCES for path in (TOP / top).rglob("*.py")):
        found[folder(path)] += [f"{path.name}: {idiom}" for idiom in in_source(path.read_text())]
    for path in (*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md"), TOP / "tests/README.md"):
        found[folder(path)] += [f"{path.name}: {idiom}" for idiom in in_page(path.read_text())]
    return found


def folder(path):
    """The folder of a file, at most three levels below the top."""
    return "/".join(path.relative_to(TOP).parent.parts[:3]) or "."


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('"""What runs."""\ndef f():\n    """Who asks."""\n', ["What", "Who"]),
        ('class A:\n    """Why."""\n    x: int\n    """Whose it is."""\n', ["Why", "Whose"]),
        ('"""Whether it runs."""\n# What for?\n', []),
        ('"""Reads it\n    anew."""\nx = 1  # nobody does\n', ["anew", "nobody"]),
        ("# two, of\n# which one is told\n", ["of which", "told"]),
        ("# a list of\n\n# which is short\n", []),
        ('ERROR = "the host tells whoever asks"\n', []),
        ('"""The option `tell`, a teller."""\n', []),
        ("# Tell\nx = 1\n# besides\n", ["Tell", "besides"]),
    ],
)
def test_idioms_are_found_in_docstrings_and_comments(source, found):
    assert list(in_source(source)) == found


def test_idioms_of_a_page_are_found_outside_its_code():
    page = "# Nobody\n\n```sh\necho anew\n```\n\n`lest` it\nlets go of it\n"
    assert in_page(page) == ["Nobody", "lets go of"]


def test_every_idiom_has_plain_words():
    for idiom, plain in IDIOMS.items():
        assert in_page(idiom.replace("?", "").partition("|")[0])
        assert not in_page(plain)


def test_the_tree_has_no_idioms():
    found = in_tree()
    assert len(found) > 30
    idioms = {name: words for name, words in found.items() if words}
    assert not idioms, f"use plain words (see IDIOMS): {idioms}"
