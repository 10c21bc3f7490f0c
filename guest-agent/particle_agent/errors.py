"""The errors of a stage. `hint` suggests a remedy. The host escapes both texts for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


class StageError(Exception):
    """The stage cannot do what the recipe asks. `tail` holds the last lines of output."""

    def __init__(self, message: str, *, hint: str | None = None, tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.tail = tuple(tail)


class EnvironmentFailed(StageError):
    """The environment (mirror, disk, network) fails. The recipe is not the cause."""


class NetworkError(EnvironmentFailed):
    """A host or service on the network is unreachable."""


class CommandFailed(StageError):
    """A command returned non-zero; `tail` holds the last lines that it printed."""

    def __init__(self, argv: Sequence[str], status: int, tail: Sequence[str]) -> None:
        shown = " ".join(_without_enclosure(argv))[:200]
        super().__init__(f"'{shown}' ended with status {status}", tail=tail)
        self.argv = tuple(argv)
        self.status = status


def _without_enclosure(argv: Sequence[str]) -> Sequence[str]:
    """A command as the recipe means it, without the programs that run it in the image."""
    words = list(argv)
    if words[0] == "chroot" and len(words) > 2:
        words = words[2:]
    if words[0] == "env":
        rest = words[1:]
        while rest and (rest[0].startswith("-") or "=" in rest[0]):
            rest.pop(0)
        words = rest or words
    return words
