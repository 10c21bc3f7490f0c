"""The process of one build: its events, its result and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pydantic

from particle_os.errors import (
    EXIT_INFRASTRUCTURE,
    EXIT_INTERNAL,
    EXIT_NOT_BOOTED,
    EXIT_OK,
    EXIT_SIGNAL,
    EXIT_STAGE,
    EXIT_USAGE,
    Defective,
    InfrastructureError,
    NotBooted,
    ParticleError,
    StageFailed,
    UsageError,
    VmError,
)
from particle_os.fleet.order import Order
from particle_os.report.results import RESULT_LIMIT, Result
from particle_os.system import process
from particle_os.system.interrupt import held_back

# Bytes of a line of standard error, which has an event or the error.
LINE_LIMIT = 1 << 20
# A build that is asked to end removes its files and its virtual machine.
END_SECONDS = 30.0
ERRORS = (UsageError, StageFailed, NotBooted, InfrastructureError)
# The workflow reads the lines of this process alone.
NOT_PASSED_ON = ("GITHUB_ACTIONS",)


@dataclass(frozen=True)
class BuildEnd:
    """The end of one build; `exit_code` is None for one that was `cancelled` or never began."""

    order: Order
    exit_code: int | None
    seconds: float = 0.0
    result: Result | None = None
    error: ParticleError | None = None
    cancelled: bool = False

    @property
    def status(self) -> str:
        """The status of the image, or what became of its build."""
        if self.exit_code is None:
            return "cancelled" if self.cancelled else "not-started"
        if self.exit_code > EXIT_SIGNAL:
            return "killed"
        if self.result is not None:
            return self.result.status
        known = {EXIT_USAGE: "invalid", EXIT_STAGE: "failed"}
        return known.get(self.exit_code, "infrastructure")


class BuildProcess:
    """A running build; its standard error has events, its standard output the result.

    Start it in the main thread: the kernel ends a build when the thread that started it ends.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        kept = {k: v for k, v in os.environ.items() if k not in NOT_PASSED_ON}
        self._started = time.monotonic()
        with held_back():
            self._process = subprocess.Popen(
                order.command("--json", "--progress", "json"),
                stdin=subprocess.DEVNULL,
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
            self._output += data[: max(0, RESULT_LIMIT - len(self._output))]
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

    def finish(self) -> BuildEnd:
        """Waits for the end of the process, whose pipes have ended."""
        code = self._ended(END_SECONDS)
        seconds = round(self.seconds, 1)
        if self._cancelled and code > EXIT_SIGNAL:
            return BuildEnd(self.order, None, seconds, cancelled=True)
        result = self._result() if code in (EXIT_OK, EXIT_NOT_BOOTED) else None
        error = None
        if self._error is not None:
            error = _error_of(self._error, code, result)
        elif code or result is None:
            error = VmError(f"the build ended with status {code} and said no more")
        return BuildEnd(self.order, code or (EXIT_INTERNAL if error else 0), seconds, result, error)

    def _result(self) -> Result | None:
        try:
            return Result.model_validate_json(self._output)
        except pydantic.ValidationError:
            return None

    def end(self) -> None:
        """Ends the process: with SIGTERM, then with SIGKILL."""
        with held_back():
            if self._process.poll() is None:
                self.cancel()
                self._ended(END_SECONDS)
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


def _error_of(found: dict[str, Any], code: int, result: Result | None) -> ParticleError:
    """The error that `--json` has printed, as one of the kind that leads to the exit code."""
    kind = next((each for each in ERRORS if each.exit_code == code), ParticleError)
    if result is not None and not result.boot:
        kind = Defective
    problems = found.get("problems") or []
    text = found["error"] or "; ".join(str(each.get("message")) for each in problems)
    log = found.get("log")
    error = kind(
        str(text),
        hint=found.get("hint"),
        where=found.get("where"),
        tail=[str(line) for line in found.get("tail") or ()],
        log=Path(log) if log else None,
    )
    error.command = found.get("command")
    return error


def worst(ends: list[BuildEnd]) -> int:
    """The exit code of several builds: that of the worst one.

    From the best one: good, a boot test that did not pass, a failed stage, a bad recipe,
    infrastructure, an internal error, a signal. A build that was not finished because of another
    one does not count.
    """
    rank = (0, EXIT_NOT_BOOTED, EXIT_STAGE, EXIT_USAGE, EXIT_INFRASTRUCTURE, EXIT_INTERNAL)
    codes = [end.exit_code or 0 for end in ends]
    return max(codes, key=lambda code: rank.index(code) if code in rank else len(rank))
