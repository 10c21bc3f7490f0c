"""Converts apt's messages to errors. The apt of the target and of the host print the same texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from particle_agent.errors import NetworkError, StageError

UNREACHABLE = re.compile(
    r"Could not (resolve|connect)|Temporary failure resolving|Unable to connect"
    r"|Connection (failed|timed out|refused)|Network is unreachable|Could not handshake"
    r"|No route to host"
)
NOT_FETCHED = re.compile(rf"Failed to fetch|{UNREACHABLE.pattern}")
URL_HOST = re.compile(r"https?://([^/\s:]+)|resolve '([^']+)'|connect to ([^\s:]+):")


def apt_failure(tail: Sequence[str]) -> StageError | None:
    """The error for the last lines that apt printed; None when they contain no error message."""
    complaints = [line for line in tail if line.startswith(("E:", "W:", "Err:"))]
    text = "\n".join(complaints)
    if UNREACHABLE.search("\n".join(tail)):
        host = URL_HOST.search(text)
        name = next((g for g in host.groups() if g), "?") if host else "?"
        return NetworkError(
            f"the package mirror {name} cannot be reached",
            hint="Check the network, or use a base with other sources.",
            tail=tail,
        )
    errors = [line for line in complaints if line.startswith("E:")]
    if not errors:
        return None
    return StageError(
        f"apt-get: {errors[0][2:].strip()}",
        hint="Check the name with 'apt-cache policy' against the suite of the base image."
        if "Unable to locate package" in text
        else None,
        tail=tail,
    )
