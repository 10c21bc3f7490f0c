"""What a boot test found, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pydantic

from particle_os.vm.firmware import Firmware

BootStatus = Literal[
    "passed",
    # A login prompt where nothing better was asked for.
    "console-only",
    "no-bootable-device",
    "boot-loader-failed",
    "kernel-not-started",
    "kernel-panic",
    "root-not-found",
    "init-missing",
    "emergency-mode",
    "reboot-loop",
    "powered-off-early",
    "units-failed",
    "checks-failed",
    "timed-out",
    "infrastructure",
]
# How a boot ended, and the message that says why.
Outcome = tuple[BootStatus, str]


class CheckResult(pydantic.BaseModel):
    """Whether one thing that must hold does; `detail` is what was found. Untrusted, escaped."""

    model_config = pydantic.ConfigDict(frozen=True)

    name: str
    passed: bool
    detail: str


class Verdict(pydantic.BaseModel):
    """What one boot showed."""

    model_config = pydantic.ConfigDict(frozen=True)

    status: BootStatus
    firmware: Firmware = "bios"
    seconds: float
    message: str
    # Seconds until each phase showed itself; after a restart, of the last start.
    phases: dict[str, float] = {}
    # How often the machine restarted itself before it answered.
    restarts: int = 0
    # How often the test started it anew, because its boot menu counted down and did not go on: a
    # busy host can make GRUB measure a clock that hardly moves.
    new_starts: int = 0
    checks: tuple[CheckResult, ...] = ()
    # What the running system told; empty when it never answered. Untrusted text, escaped.
    facts: dict[str, str] = {}
    console_tail: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def accepted(self) -> bool:
        """Whether the image is as good as the user wanted to know."""
        return self.status in ("passed", "console-only")


@dataclass(frozen=True)
class BootProgress:
    """How far a machine came; see `Verdict` for the fields."""

    phases: Mapping[str, float] = field(default_factory=dict)
    restarts: int = 0
    new_starts: int = 0


@dataclass(frozen=True)
class Observation:
    """What one boot showed, or two boots of one system; the verdict is made of it, once."""

    status: BootStatus
    message: str
    seconds: float
    progress: BootProgress
    checks: tuple[CheckResult, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    console_tail: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def verdict(self, firmware: Firmware) -> Verdict:
        """The verdict on the image that was booted under `firmware`."""
        return Verdict(
            status=self.status,
            firmware=firmware,
            seconds=self.seconds,
            message=self.message,
            phases=dict(self.progress.phases),
            restarts=self.progress.restarts,
            new_starts=self.progress.new_starts,
            checks=self.checks,
            facts=dict(self.facts),
            console_tail=self.console_tail,
        )
