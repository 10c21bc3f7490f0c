"""The values of `--set`: on the command line, or on standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

import click

from particle_os.documents.words import shown_key
from particle_os.recipe.parameters.variables import FROM_INPUT

# Bytes of standard input; the kernel limits a command line to two MiB.
LIMIT = 4 << 20


def read(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    """The values of the variables, by their names. Raises click.BadParameter."""
    found: dict[str, str] = {}
    if context.resilient_parsing:
        return found
    for name, text in _pairs(value):
        if name in found:
            raise click.BadParameter(f"'{shown_key(name)}' is given twice")
        found[name] = text
    return found


def _pairs(value: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in value:
        if text == FROM_INPUT:
            yield from _of_input(sys.stdin.buffer.read(LIMIT + 1))
            continue
        name, equals, rest = text.partition("=")
        if not equals or not name:
            # The text may be a password.
            raise click.BadParameter("expected NAME=VALUE")
        yield name, rest


def _of_input(data: bytes) -> Iterator[tuple[str, str]]:
    try:
        pairs = json.loads(data) if len(data) <= LIMIT else None
    except (ValueError, RecursionError):
        pairs = None
    if not isinstance(pairs, dict) or not all(isinstance(text, str) for text in pairs.values()):
        raise click.BadParameter(
            "expected a JSON object of names and texts on standard input, of at most "
            f"{LIMIT >> 20} MiB"
        )
    yield from pairs.items()
