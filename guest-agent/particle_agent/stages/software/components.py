"""Adds components to the package sources that an image has."""

from __future__ import annotations

import re
from collections.abc import Sequence

from particle_agent.errors import StageError
from particle_agent.target.target import Target

# sources.list(5): a line of a .list file, and the field of a .sources file.
LINE = re.compile(
    r"^(?P<start>[ \t]*deb(?:-src)?[ \t]+(?:\[[^\]\n]*\][ \t]+)?\S+[ \t]+\S+[ \t]+)"
    r"(?P<names>[^#\n]*)",
    re.MULTILINE,
)
FIELD = re.compile(r"^(?P<start>Components:[ \t]*)(?P<names>[^\n]*)", re.MULTILINE | re.IGNORECASE)
# Debian's archive has this component. Other repositories that have it offer no others, or the same.
MAIN = "main"


def add(target: Target, paths: Sequence[str], components: Sequence[str]) -> None:
    """Adds the components wherever `main` is. Raises StageError if no source has it."""
    found = False
    for path in paths:
        # As apt, ignore what is no file.
        text = target.read(path) if target.is_file(path) else ""
        pattern = FIELD if path.endswith(".sources") else LINE

        def extended(match: re.Match[str]) -> str:
            names = match["names"].split()
            if MAIN not in names:
                return match[0]
            more = [name for name in components if name not in names]
            return f"{match['start']}{' '.join([*names, *more])}"

        found |= any(MAIN in match["names"].split() for match in pattern.finditer(text))
        if (changed := pattern.sub(extended, text)) != text:
            target.write(path, changed)
    if not found:
        raise StageError(
            f"no package source of the image has the component '{MAIN}'",
            hint="Describe the repository in 'repositories', with its components.",
        )
