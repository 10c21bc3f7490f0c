"""Standard streams that are closed or full: they change no verdict and no exit status."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, cast

_NUMBERS = (0, 1, 2)


class _Lenient(io.FileIO):
    """Goes on when the disk behind it is full; `failure` is the first error of the disk.

    A pipe without a reader stays an error on standard output: the rest has no use.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self.fileno() == 1:
                raise
            self.failure = self.failure or error
            return len(data)


def prepare() -> None:
    """Makes all three streams usable; call it once, at the start of the program.

    A closed stream becomes /dev/null. Otherwise the next file that is opened would take its number,
    and messages would go into that file.
    """
    for number in _NUMBERS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - open until the end
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(number: int, before: Any) -> io.TextIOWrapper:
    raw = _Lenient(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(cast(io.RawIOBase, raw)),
        encoding=before.encoding if before else "utf-8",
        errors=before.errors if before else "backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
        write_through=number == 2,
    )


def lost() -> OSError | None:
    """The error that made standard output incomplete."""
    sys.stdout.flush()
    sys.stderr.flush()
    raw = getattr(sys.stdout.buffer, "raw", None)
    return raw.failure if isinstance(raw, _Lenient) else None


def discard_output() -> None:
    """Sends the rest of standard output, whose reader has gone, to /dev/null."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
