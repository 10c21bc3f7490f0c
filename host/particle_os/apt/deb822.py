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
    fields: dict[str, str] = {}
    name = ""
    for line in (*text.split("\n"), ""):
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t" and name:
            fields[name] += f"\n{line}"
        elif match := _FIELD.fullmatch(line.rstrip("\r")):
            name = match[1].lower()
            fields[name] = match[2].strip()
        elif not line.startswith("#"):
            raise Malformed(f"this line is no field and continues none: {line[:80]!r}")
