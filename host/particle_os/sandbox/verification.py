"""The findings of a helper VM about an image; the host itself never reads the image."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

import pydantic
from particle_agent.contract import wire
from particle_agent.contract.findings import ERRORS, LIMIT, WARNINGS, severity

from particle_os.errors import Defective, VmError, printable

# The most findings that a correct agent reports.
FINDINGS_LIMIT = (len(ERRORS) + len(WARNINGS)) * (LIMIT + 1)
TEXT_LIMIT = 1000
TAIL_FINDINGS = 15


class FindingResult(pydantic.BaseModel):
    """A finding: its code, place and message. The texts are untrusted, and therefore escaped."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    code: str
    severity: Literal["error", "warning"]
    place: str
    message: str
    # Whether the recipe accepts the error.
    accepted: bool = False

    def accepted_if(self, accepted: bool) -> FindingResult:
        """A copy of the finding, accepted or not."""
        return FindingResult(
            code=self.code,
            severity=self.severity,
            place=self.place,
            message=self.message,
            accepted=accepted,
        )

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.message} [{self.code}]{' (accepted)' if self.accepted else ''}"


class Verification(pydantic.BaseModel):
    """All findings about an image, the errors first; `seconds` by the VM's clock."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    seconds: float
    findings: tuple[FindingResult, ...]

    @property
    def errors(self) -> tuple[FindingResult, ...]:
        """The errors that are not accepted."""
        return tuple(f for f in self.findings if f.severity == "error" and not f.accepted)

    def accepting(self, codes: Collection[str]) -> Verification:
        """A copy in which the findings with these codes are accepted."""
        findings = tuple(each.accepted_if(each.code in codes) for each in self.findings)
        return Verification(seconds=self.seconds, findings=findings)


class FindingCollector:
    """Collects the agent's findings about a disk, and refuses impossible ones."""

    def __init__(self) -> None:
        self._findings: list[FindingResult] = []
        self._seconds: float | None = None

    def hear(self, event: wire.AgentEvent) -> bool:
        """Takes an event of the verification; returns False for other events.

        Raises VmError for an unknown code, or for too many findings.
        """
        if isinstance(event, wire.Verified):
            self._seconds = event.seconds
            return True
        if not isinstance(event, wire.Finding):
            return False
        known = severity(event.code)
        if known is None or len(self._findings) >= FINDINGS_LIMIT:
            raise VmError(f"the agent reported an impossible finding: {printable(event.code)}")
        self._findings.append(
            FindingResult(
                code=event.code,
                severity=known,
                place=printable(event.place, TEXT_LIMIT),
                message=printable(event.message, TEXT_LIMIT),
            )
        )
        return True

    def result(self) -> Verification:
        """The result. Raises VmError unless the verification has finished."""
        if self._seconds is None:
            raise VmError("the agent said 'done' before it had verified the image")
        order = sorted(self._findings, key=lambda finding: finding.severity)
        return Verification(seconds=self._seconds, findings=tuple(order))


def lines(found: Verification) -> Iterator[tuple[str, str]]:
    """Yields the severity and the text of each finding."""
    for finding in found.findings:
        yield finding.severity, str(finding)


def defective(found: Verification, log: Path | None) -> Defective:
    """The error to show to the user for the errors in an image."""
    count = len(found.errors)
    return Defective(
        f"the image has {count} error{'s' if count > 1 else ''}",
        hint="docs/verification.md explains each code.",
        tail=[str(finding) for finding in found.errors[:TAIL_FINDINGS]],
        log=log,
    )
