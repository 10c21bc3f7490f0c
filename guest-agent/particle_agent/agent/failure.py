"""The event that reports to the host why the agent failed."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from particle_agent.contract import wire
from particle_agent.errors import EnvironmentFailed, StageError


class FailedStage(Exception):
    """The stage at `index` of the request failed with `error`."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


# The limits of a tail and of a message. A character takes at most 12 bytes of JSON in ASCII.
TAIL_CHARACTERS = 160
TAIL_LINES = 20
MESSAGE_CHARACTERS = 1000


def failure(error: BaseException) -> wire.Failed:
    """The event that reports `error`. It always fits in `wire.LINE_LIMIT`."""
    index = error.index if isinstance(error, FailedStage) else None
    cause = error.error if isinstance(error, FailedStage) else error
    if isinstance(cause, StageError):
        return wire.Failed(
            kind="infrastructure" if isinstance(cause, EnvironmentFailed) else "stage",
            index=index,
            message=cause.message[:MESSAGE_CHARACTERS],
            hint=cause.hint[:MESSAGE_CHARACTERS] if cause.hint else None,
            tail=_cut(cause.tail),
        )
    full = isinstance(cause, OSError) and cause.errno == 28
    return wire.Failed(
        kind="infrastructure" if full else "internal",
        index=index,
        message=f"{type(cause).__name__}: {cause}"[:MESSAGE_CHARACTERS],
        hint="Give the scratch disk more room with --scratch-size." if full else None,
        tail=_cut("".join(traceback.format_exception(cause)).splitlines()),
    )


def _cut(lines: Sequence[str]) -> tuple[str, ...]:
    """The last lines. A long line becomes several, because the host hides only whole secrets."""
    size = TAIL_CHARACTERS
    pieces = [line[i : i + size] for line in lines for i in range(0, max(1, len(line)), size)]
    return tuple(pieces[-TAIL_LINES:])
