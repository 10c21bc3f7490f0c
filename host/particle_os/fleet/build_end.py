"""The end of a build, as the user sees it, and the exit code of several builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from particle_os.fleet.build_process import Ended
from particle_os.fleet.order import Order
from particle_os.report.results import Result

ERRORS = (UsageError, StageFailed, NotBooted, InfrastructureError)


@dataclass(frozen=True)
class BuildEnd:
    """The end of one build; `exit_code` is None for one that was `cancelled` or never began.

    With an error and without an exit code, the error has ended the whole command.
    """

    order: Order
    exit_code: int | None
    seconds: float = 0.0
    result: Result | None = None
    error: ParticleError | None = None
    cancelled: bool = False

    @classmethod
    def of(cls, order: Order, ended: Ended) -> BuildEnd:
        """The end of the build whose process has ended."""
        code = ended.code
        if ended.cancelled and code > EXIT_SIGNAL:
            return cls(order, None, ended.seconds, cancelled=True)
        result = _result(ended.output) if code in (EXIT_OK, EXIT_NOT_BOOTED) else None
        error = None
        if ended.error is not None:
            error = _error_of(ended.error, code, result)
        elif code or result is None:
            error = VmError(f"the build ended with status {code} and said no more")
        return cls(order, code or (EXIT_INTERNAL if error else 0), ended.seconds, result, error)

    @property
    def status(self) -> str:
        """The status of the image, or what became of its build."""
        if self.exit_code is None and self.error is not None:
            return self.error.build_status
        if self.exit_code is None:
            return "cancelled" if self.cancelled else "not-started"
        if self.exit_code > EXIT_SIGNAL:
            return "killed"
        if self.result is not None:
            return self.result.status
        known = {EXIT_USAGE: "invalid", EXIT_STAGE: "failed"}
        return known.get(self.exit_code, "infrastructure")


def _result(output: bytes) -> Result | None:
    try:
        return Result.model_validate_json(output)
    except pydantic.ValidationError:
        return None


def _error_of(found: dict[str, Any], code: int, result: Result | None) -> ParticleError:
    """The error that `--json` has printed, as one of the kind that leads to the exit code."""
    kind = next((each for each in ERRORS if each.exit_code == code), ParticleError)
    if result is not None and not result.boot:
        kind = Defective
    problems = found.get("problems") or []
    text = found.get("error") or "; ".join(str(each.get("message")) for each in problems)
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


def worst(ends: Sequence[BuildEnd]) -> BuildEnd:
    """The worst one of several builds, whose exit code and status are those of all.

    From the best one: good, a boot test that did not pass, a failed stage, a bad recipe,
    infrastructure, an internal error, a signal, the end of the whole command. A build that was not
    finished because of another one does not count.
    """
    codes = (0, EXIT_NOT_BOOTED, EXIT_STAGE, EXIT_USAGE, EXIT_INFRASTRUCTURE, EXIT_INTERNAL)

    def rank(end: BuildEnd) -> int:
        if end.exit_code is None:
            return -1 if end.error is None else len(codes) + 1
        return codes.index(end.exit_code) if end.exit_code in codes else len(codes)

    return max(ends, key=rank)
