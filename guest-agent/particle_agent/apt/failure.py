"""Converts apt's messages to errors. The apt of the target and of the host print the same texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from particle_agent.contract.packages import components_of
from particle_agent.errors import NetworkError, StageError

UNREACHABLE = re.compile(
    r"Could not (resolve|connect)|Temporary failure resolving|Unable to connect"
    r"|Connection (failed|timed out|refused)|Network is unreachable|Could not handshake"
    r"|No route to host"
)
NOT_FETCHED = re.compile(rf"Failed to fetch|{UNREACHABLE.pattern}")
URL_HOST = re.compile(r"https?://([^/\s:]+)|resolve '([^']+)'|connect to ([^\s:]+):")


@dataclass(frozen=True)
class Known:
    """A message of apt, and the headline and hint that stand for it.

    `says` has groups for the headline. The first line that matches counts.
    """

    says: re.Pattern[str]
    headline: str
    hint: str


KEY_HINT = (
    "Give the key that signs the repository in 'key' or 'key-file' of the stage 'sources', and "
    "compare it with the one that its publisher names."
)
REPOSITORY = r"(?:The repository ')?(?P<where>https?://\S+ \S+)"
# The texts of apt 2.6 (gpgv) and of apt 3 (sqv). More certain causes are first.
KNOWN = (
    Known(
        re.compile(r"(?P<where>https?://\S+) +401 "),
        "{where} asks for a password (401)",
        "Name a secret with USER:PASSWORD in 'credentials' of the stage 'apt'.",
    ),
    Known(
        re.compile(r"(?P<where>https?://\S+) +403 "),
        "{where} refuses access (403)",
        "Check the URL, and whether the repository is open to this machine.",
    ),
    Known(
        re.compile(rf"{REPOSITORY} (?:In)?Release' does not have a Release file"),
        "{where}: there is no such suite",
        "Check the URL and the suite: they name the directory dists/SUITE of the repository.",
    ),
    Known(
        re.compile(r"Release file for (?P<where>\S+) is expired"),
        "the index of {where} has expired: the mirror has not been updated for long",
        "Use another mirror, or 'snapshot' in the stage 'sources' for an old state.",
    ),
    Known(
        re.compile(r"Release file for (?P<where>\S+) is not valid yet"),
        "the index of {where} comes from the future: a clock is wrong",
        "Set the clock of this machine.",
    ),
    Known(
        re.compile(rf"{REPOSITORY} (?:In)?Release: .*(?:EXPKEYSIG|KEYEXPIRED|[Ee]xpired|not live)"),
        "{where}: the key that signs the repository has expired",
        KEY_HINT,
    ),
    Known(
        re.compile(
            rf"{REPOSITORY} (?:In)?Release: .*(?:NO_PUBKEY |Missing key )(?P<key>[0-9A-F]+)"
        ),
        "{where}: the image has no key {key}, which signs the repository",
        KEY_HINT,
    ),
    Known(
        re.compile(rf"{REPOSITORY} (?:In)?Release: .*signature"),
        "{where}: the signature of the repository is wrong",
        KEY_HINT,
    ),
    Known(
        re.compile(rf"{REPOSITORY} (?:In)?Release' is (?:not|no longer) signed"),
        "{where}: the repository is not signed",
        "Use a signed repository. apt takes no packages from others.",
    ),
    Known(
        re.compile(r"Failed to fetch (?P<where>\S+\.deb) +404 "),
        "the mirror no longer has {where} (404)",
        "The package indexes are old: 'update: true' fetches them, and '--refresh' runs the stage "
        "again.",
    ),
    Known(
        re.compile(r"(?P<where>https?://\S+) +404 "),
        "{where} does not exist (404)",
        "Check the URL, the suite and the components of the repository.",
    ),
    Known(
        re.compile(r"Failed to fetch (?P<where>\S+) .*(?:Hash Sum mismatch|unexpected size)"),
        "the mirror sent another {where} than its index describes",
        "The mirror, or a proxy before it, may be in the middle of an update: try again later, or "
        "use another mirror.",
    ),
    Known(
        re.compile(r"Packages were downgraded"),
        "apt would replace packages by older versions",
        "Permit it with 'allow-downgrades: true'.",
    ),
)
MISSING = re.compile(
    r"Unable to locate package (?P<name>\S+)|Package '?(?P<other>[^' ]+)'? has no installation"
)


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
    for known in KNOWN:
        if match := known.says.search(text):
            return StageError(
                known.headline.format(**match.groupdict()), hint=known.hint, tail=tail
            )
    message = f"apt-get: {errors[0][2:].strip()}"
    return StageError(message, hint=_missing_hint(text), tail=tail)


def _missing_hint(text: str) -> str | None:
    """The hint for a package that no index has; None for other errors."""
    match = MISSING.search(text)
    if match is None:
        return None
    name = match["name"] or match["other"]
    if wanted := components_of(name):
        component = " or ".join(wanted)
        return f"The component {component} may have it: see 'components' of the stage 'sources'."
    return "Check the name with 'apt-cache policy' against the suite of the base image."
