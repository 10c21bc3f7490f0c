"""How a stage fails. `hint` tells the user what to do; both texts reach the terminal escaped."""

from __future__ import annotations

from collections.abc import Sequence


class StageError(Exception):
    """The stage cannot do what the recipe asks."""

    def __init__(self, message: str, *, hint: str | None = None, tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.tail = tuple(tail)


class EnvironmentFailed(StageError):
    """The surroundings fail (mirror, disk, network), not the recipe."""


class NetworkError(EnvironmentFailed):
    """Something in the network cannot be reached."""


class CommandFailed(StageError):
    """A command returned non-zero; `tail` holds the last lines that it printed."""

    def __init__(self, argv: Sequence[str], status: int, tail: Sequence[str]) -> None:
        super().__init__(f"'{' '.join(argv)[:200]}' ended with status {status}", tail=tail)
        self.argv = tuple(argv)
        self.status = status
