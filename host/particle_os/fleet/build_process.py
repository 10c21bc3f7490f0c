"""The process of one build: its events, its output and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Annotated, Any

import pydantic

from particle_os.errors import EXIT_INFRASTRUCTURE, EXIT_SIGNAL
from particle_os.system import process
from particle_os.system.interrupt import held_back

# Bytes of a line of standard error, which has an event or the error.
LINE_LIMIT = 1 << 20
# Bytes of standard output, which has the result.
OUTPUT_LIMIT = 64 << 20
# A build that is asked to end removes its files and its virtual machine.
END_SECONDS = 30.0
# The workflow reads the lines of this process alone.
NOT_PASSED_ON = ("GITHUB_ACTIONS",)
# This installation. -P: no file of the current directory takes the place of a module.
PROGRAM = (sys.executable, "-P", "-m", "particle_os")
# The options of each build.
SHOWN = ("--json", "--progress", "json")


@dataclass(frozen=True)
class Ended:
    """The end of a process: the exit status as a shell counts it, what it printed, and its error.

    `cancelled` is true for a process that was asked to end.
    """

    code: int
    seconds: float
    output: bytes = b""
    error: dict[str, Any] | None = None
    cancelled: bool = False

    def data(self) -> dict[str, Any]:
        """The end as JSON has it."""
        return {**vars(self), "output": self.output.decode("utf-8", "replace")}

    @classmethod
    def of(cls, data: object) -> Ended:
        """The end that `data` has returned. Raises ValueError for anything else."""
        found = _EndData.model_validate(data, strict=True)
        return cls(**{**vars(found), "output": found.output.encode()})

    @property
    def is_spoilt(self) -> bool:
        """Whether the machine may be to blame: another attempt elsewhere may help."""
        return self.code == EXIT_INFRASTRUCTURE or self.code > EXIT_SIGNAL


class _ErrorData(pydantic.BaseModel):
    """The error of a build, which may have more keys."""

    error: str | None = None
    hint: str | None = None
    where: str | None = None
    tail: list[str] = []
    log: str | None = None
    command: str | None = None
    problems: list[dict[str, Any]] = []


def _as_error(found: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for what is no error of a build."""
    _ErrorData.model_validate(found, strict=True)
    return found


class _EndData(pydantic.BaseModel):
    """The end of a process as it travels."""

    model_config = pydantic.ConfigDict(extra="forbid")

    code: Annotated[int, pydantic.Field(ge=0, le=255)]
    seconds: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
    output: str
    error: Annotated[dict[str, Any], pydantic.AfterValidator(_as_error)] | None
    cancelled: bool


@contextmanager
def _in_memory(text: str) -> Iterator[IO[bytes]]:
    """A file with a text, which no other user can open, and which is on no disk."""
    with os.fdopen(os.memfd_create("variables"), "w+b") as file:
        file.write(text.encode())
        file.seek(0)
        yield file


class BuildProcess:
    """A running build; its standard error has events, its standard output the result.

    Its standard input has the `variables` of the recipe, which may be confidential. Start it in the
    main thread: the kernel ends a build when the thread that started it ends.
    """

    def __init__(self, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        kept = {k: v for k, v in os.environ.items() if k not in NOT_PASSED_ON}
        self._started = time.monotonic()
        with held_back(), _in_memory(json.dumps(dict(variables or {}))) as given:
            self._process = subprocess.Popen(
                argv,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=kept,
                start_new_session=True,
                preexec_fn=process.dies_with_parent(signal.SIGTERM),
            )
        self._output = bytearray()
        self._line = bytearray()
        self._error: dict[str, Any] | None = None
        self._cancelled = False

    @property
    def pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """Standard output and standard error."""
        assert self._process.stdout is not None and self._process.stderr is not None
        return self._process.stdout, self._process.stderr

    @property
    def seconds(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self._started

    def read(self, pipe: IO[bytes]) -> Iterator[dict[str, Any]] | None:
        """Reads what a pipe has and returns the events in it; None at the end of the pipe."""
        data = os.read(pipe.fileno(), 1 << 16)
        if not data:
            return None
        if pipe is self.pipes[0]:
            self._output += data[: max(0, OUTPUT_LIMIT - len(self._output))]
            return iter(())
        return self._events(data)

    def _events(self, data: bytes) -> Iterator[dict[str, Any]]:
        first, *rest = data.split(b"\n")
        self._line += first[: max(0, LINE_LIMIT - len(self._line))]
        for piece in rest:
            line, self._line = bytes(self._line), bytearray(piece[:LINE_LIMIT])
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and "event" in found:
                yield found
            elif isinstance(found, dict) and "error" in found:
                self._error = found

    def cancel(self) -> None:
        """Sends SIGTERM; the build ends its virtual machine and removes its files."""
        self._cancelled = True
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends a process that does not end when it is asked to; its virtual machine ends, too."""
        self._process.kill()

    def finish(self, limit: float = END_SECONDS) -> Ended:
        """Waits for the end of the process, whose pipes have ended; kills it after `limit`."""
        code = self._ended(limit)
        seconds = round(self.seconds, 1)
        return Ended(code, seconds, bytes(self._output), self._error, self._cancelled)

    def end(self, limit: float = END_SECONDS) -> None:
        """Ends the process: with SIGTERM, and after `limit` seconds with SIGKILL."""
        with held_back():
            if self._process.poll() is None:
                self.cancel()
                self._ended(limit)
            for pipe in self.pipes:
                pipe.close()

    def _ended(self, seconds: float) -> int:
        """The exit status, as a shell counts it."""
        try:
            code = process.wait(self._process, seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(END_SECONDS)
        return EXIT_SIGNAL - code if code < 0 else code
