"""Checks of commands in recipes: no shell reads them, which people forget."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# Words of POSIX shells that are no programs, and what to use instead in a recipe.
WORDS = ("cd", "export", "source", ".", "set", "ulimit", "umask", "alias", "exec", "eval", "trap")
OPERATORS = ("|", "||", "&&", ">", ">>", "<", "<<", "2>", "2>&1", "&>", "&", ">/dev/null",
             "2>/dev/null")  # fmt: skip
# Programs whose own arguments look like a shell's operators.
WITH_OPERATORS = ("test", "[", "expr", "find", "awk", "sed", "grep", "bc", "dc", "jq")
SYNTAX = re.compile(r"[|&;<>`]|\$\(|\$\{|\$[A-Za-z_]")
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def faults(command: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The position and fault of an item that cannot be the name of a program."""
    for index, word in enumerate(command):
        if ASSIGNMENT.match(word):
            continue
        if re.search(r"\s", word.strip()):
            message = f"'{word[:80]}' would be the name of one program: {as_script(word)}"
            yield index, message
        elif word in WORDS:
            yield index, f"'{word}' is a word of shells and no program: write a script"
        return


def operators(command: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The position and text of each item that looks like an operator of a shell."""
    names = [word for word in command if not ASSIGNMENT.match(word)]
    program = names[0].rpartition("/")[2] if names else ""
    if program in WITH_OPERATORS:
        return
    for index, word in enumerate(command):
        if word in OPERATORS:
            yield index, word


def has_syntax(text: str) -> bool:
    """Whether a text holds syntax that only a shell understands."""
    return SYNTAX.search(text) is not None


def as_script(text: str) -> str:
    """The hint that lets a shell read a text."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'write [sh, -c, "{quoted[:200]}"], or one item for each word'
