"""Reads paragraphs of fields, the format of Debian's control files (deb822(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FIELD = re.compile(r"([!-9;-~]+):(.*)")


class Malformed(ValueError):
    """A line of the text does not belong to a paragraph; the message quotes the line."""


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Yields the fields of each paragraph, keyed by their names in lower case.

    A value of several lines keeps its line ends. Raises Malformed.
    """
    # Joined at the end: adding to a text line by line copies it for each line.
    fields: dict[str, list[str]] = {}
    name = ""
    for line in _lines(text):
        if not line.strip():
            if fields:
                yield {name: "\n".join(lines) for name, lines in fields.items()}
            fields, name = {}, ""
        elif line[0] in " \t" and name:
            fields[name].append(line)
        elif match := _FIELD.fullmatch(line.rstrip("\r")):
            name = match[1].lower()
            fields[name] = [match[2].strip()]
        elif not line.startswith("#"):
            raise Malformed(f"this line is no field and continues none: {line[:80]!r}")


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, one after the other: a list of millions would take much memory."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]
    yield ""
