"""Paragraphs of fields, the format of Debian's control files; see deb822(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FIELD = re.compile(r"([!-9;-~]+):(.*)")


class Malformed(ValueError):
    """The text holds a line that is no part of a paragraph; the message quotes the line."""


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The fields of each paragraph, by their names in lower case.

    The value of a field with several lines keeps the ends of these lines. Raises Malformed.
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
            raise Malformed(f"no field and no part of one: {line[:80]!r}")
