"""Boots an image through a throwaway overlay and asks the running system itself.

Only the nonce of this run, answered on a channel of its own from inside the settled system, is a
pass; what the console says can only explain a failure. The image file is never written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from particle_os.boot.attempt import Undecided, boot_once
from particle_os.boot.evidence import Evidence
from particle_os.boot.judgement import compared, not_rebooted
from particle_os.boot.request import BootRequest, memory_for, seconds_for
from particle_os.boot.verdict import Observation, Verdict
from particle_os.recipe.checks.kinds import Check
from particle_os.system.deadline import Deadline
from particle_os.vm import accel
from particle_os.vm.accel import Acceleration
from particle_os.vm.argv import ImageFormat
from particle_os.vm.firmware import Firmware
from particle_os.vm.image_format import check_readable
from particle_os.vm.overlay import make_overlay

__all__ = ["Undecided", "boot"]

OVERLAY_SECONDS = 30.0
ATTEMPTS = 3
# A Linux that remaps interrupts panics when a busy host lets it miss ticks early in its start.
LOST_TIMER = "timer doesn't work through Interrupt-remapped IO-APIC"


def _unheard(phase: str, seconds: float) -> None:
    """Nobody wants to know of the phases as they pass."""


def boot(
    image: Path,
    acceleration: Acceleration,
    *,
    format: ImageFormat,  # noqa: A002 - the field's own word
    directory: Path,
    evidence: Evidence,
    firmware: Firmware = "bios",
    checks: Sequence[Check] = (),
    memory: int | None = None,
    timeout: float | None = None,
    on_phase: Callable[[str, float], None] = _unheard,
    console_only: bool = False,
) -> Verdict:
    """Boots `image` under a firmware and returns the verdict; the image is never written.

    `checks` must hold for a pass. `evidence` is kept whatever comes. `memory` is in bytes,
    `timeout` in seconds for each boot. `on_phase` hears of each phase and the seconds until it was
    seen. With `console_only` the system is not asked, and a login prompt is all that is waited for.
    Raises InfrastructureError when QEMU or the host fails: Undecided once a machine is started;
    UsageError for an image whose headers are damaged.
    """
    check_readable(image, format)
    directory.mkdir(mode=0o700)
    evidence.clear()
    request = BootRequest(
        image=image,
        format=format,
        firmware=firmware,
        acceleration=acceleration,
        processors=accel.processors(acceleration),
        evidence=evidence,
        checks=checks,
        memory=memory_for(checks, memory),
        seconds=timeout or seconds_for(checks, acceleration),
        on_phase=on_phase,
        console_only=console_only,
    )
    return _boot_repeatedly(request, directory).verdict(firmware)


def _boot_repeatedly(request: BootRequest, directory: Path) -> Observation:
    """Boots anew, on one processor, when emulation has failed, and not the image."""
    for number in range(1, ATTEMPTS + 1):
        try:
            found = _boot_and_reboot(request, directory / str(number))
        except Undecided as error:
            if number == ATTEMPTS or not error.qemu_aborted:
                raise
        else:
            if not request.processors.x2apic or LOST_TIMER not in found.message:
                break
        request = replace(request, processors=accel.processors(request.acceleration, 1))
    return found


def _boot_and_reboot(request: BootRequest, directory: Path) -> Observation:
    """Boots an overlay of the image, and once more when a check asks for it."""
    directory.mkdir(mode=0o700)
    overlay = directory / "overlay.qcow2"
    deadline = Deadline.after(OVERLAY_SECONDS, "making the overlay")
    make_overlay(overlay, request.image, request.format, deadline)
    first = boot_once(request, overlay, directory / "first", shut_down=request.reboots)
    if not request.reboots:
        return first
    if not first.passed:
        return not_rebooted(first)
    second = boot_once(request, overlay, directory / "second", shut_down=False)
    return compared(first, second)
