"""The result of a boot test, as data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import pydantic

from particle_os.architecture import AMD64, MachineFacts
from particle_os.vm.firmware import Firmware

BootStatus = Literal[
    "passed",
    # A login prompt, where the user asked for no more than that.
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
    # An update of an OSTree system, or the return from it.
    "upgrade-failed",
    "rollback-failed",
    "fallback-failed",
    "infrastructure",
]
# The boots of the tests of an update: the parent's system, which takes the new commit; the new
# version; the parent's version again. Then the image, which takes an update that is bad, and the
# image again, after the bad update was left.
UpdateStep = Literal["parent", "upgrade", "rollback", "bad-update", "fallback"]
SILENT = (
    "; the kernel prints nothing on the serial console (console={}), and its screen shows none "
    "of the known failures. The picture of the screen may show more: --evidence"
)
NO_REASON = "its console does not say why (docs/troubleshooting.md lists what an answer needs)"
PROMPT_HINT = ". To accept the prompt, use --console-only"
# What is missing when a phase was the last one.
LAST_SEEN = {
    "answer": "; systemd has not settled because a job does not end, or another program has taken "
    "{}, which carries the answer",
    "checks": "; a check has not ended",
}
# The status of a boot, and the message that gives the reason.
Outcome = tuple[BootStatus, str]


def machine_name(firmware: Firmware, devices: str, step: UpdateStep | None = None) -> str:
    """Returns the name of a boot in results, and of its directory of evidence."""
    return "-".join(filter(None, (firmware, devices, step)))


class CheckResult(pydantic.BaseModel):
    """The result of one check; `detail` is the finding. The texts are untrusted and escaped."""

    model_config = pydantic.ConfigDict(frozen=True)

    name: str
    passed: bool
    detail: str


class Verdict(pydantic.BaseModel):
    """The verdict on one image on one machine."""

    model_config = pydantic.ConfigDict(frozen=True)

    status: BootStatus
    firmware: Firmware = "bios"
    # What sets the machine apart from the usual one, such as nvme-e1000e; empty for the usual one.
    devices: str = ""
    # The boot's place in the test of an update; None for the boot of the image as it is.
    step: UpdateStep | None = None
    seconds: float
    message: str
    # Seconds until each phase appeared; after a restart, the phases of the last start.
    phases: dict[str, float] = {}
    # The number of restarts by the machine itself before it answered.
    restarts: int = 0
    # The number of restarts by the test because the boot menu counted down without end: on a
    # busy host, GRUB can measure its clock wrongly.
    new_starts: int = 0
    checks: tuple[CheckResult, ...] = ()
    # The facts in the running system's answer; empty without an answer. Untrusted text, escaped.
    facts: dict[str, str] = {}
    console_tail: tuple[str, ...] = ()
    # The screen of a bad boot in text mode. Untrusted text, escaped.
    screen: tuple[str, ...] = ()

    @property
    def machine(self) -> str:
        """The name of the boot: the firmware, what else is not usual, the step of an update."""
        return machine_name(self.firmware, self.devices, self.step)

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def accepted(self) -> bool:
        """Whether the image passed, or showed a login prompt where the user asked for no more."""
        return self.status in ("passed", "console-only")


@dataclass(frozen=True)
class BootProgress:
    """The progress of a booting machine; see `Verdict` for the fields."""

    phases: Mapping[str, float] = field(default_factory=dict)
    restarts: int = 0
    new_starts: int = 0


@dataclass(frozen=True)
class Observation:
    """The observation of one boot, or of two boots of one system, before the verdict."""

    status: BootStatus
    message: str
    seconds: float
    progress: BootProgress
    checks: tuple[CheckResult, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    console_tail: tuple[str, ...] = ()
    screen: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def verdict(self, firmware: Firmware, devices: str, step: UpdateStep | None = None) -> Verdict:
        """Returns the verdict on the image that was booted under `firmware` with `devices`."""
        return Verdict(
            status=self.status,
            firmware=firmware,
            devices=devices,
            step=step,
            seconds=self.seconds,
            message=self.message,
            phases=dict(self.progress.phases),
            restarts=self.progress.restarts,
            new_starts=self.progress.new_starts,
            checks=self.checks,
            facts=dict(self.facts),
            console_tail=self.console_tail,
            screen=self.screen,
        )


def stopped(quiet: float, reasons: Collection[str], *, boot_loader: bool) -> Outcome:
    """The outcome for a boot loader, or for the code before it, that was quiet for some seconds.

    The console has given `reasons` for that.
    """
    if not boot_loader:
        message = f"the disk's boot code has printed and read nothing for {quiet:.0f} s"
        return "boot-loader-failed", message
    return (
        "kernel-not-started",
        f"the boot loader has loaded no kernel and has read nothing for {quiet:.0f} s; "
        + ("; ".join(reasons) or "it may be waiting for a key"),
    )


def time_out(
    progress: BootProgress,
    seconds: float,
    limit: str,
    reasons: Collection[str],
    *,
    silent: bool,
    vm: MachineFacts = AMD64.vm,
) -> str:
    """The message for a boot without an answer after `seconds`, which are more than `limit`.

    The console has given `reasons` why the system cannot answer. The kernel of a `silent` boot
    prints nothing on the serial console of the machine `vm`.
    """
    phases = progress.phases
    last = [*phases][-1] if phases else "nothing"
    text = f"no answer within {limit}; last seen: {last}"
    if phases:
        spans = zip(phases, pairwise([*phases.values(), seconds]), strict=True)
        took = ", ".join(f"{name} {end - began:.1f} s" for name, (began, end) in spans)
        text += f" ({took} so far)"
    if last == "login prompt" and not silent:
        text += f"; the system cannot be questioned: {'; '.join(reasons) or NO_REASON}{PROMPT_HINT}"
    else:
        text += "".join(f"; {reason}" for reason in reasons) or (
            SILENT.format(vm.console) if silent else ""
        )
        text += LAST_SEEN.get(last, "").format(vm.answers)
    if progress.restarts:
        text += f"; the machine has restarted itself {progress.restarts} times"
    return text
