"""Boots an image through a throwaway overlay and questions the running system.

A boot passes only when the settled system answers with this run's nonce on a separate channel. The
console can only explain a failure. The image file is never written.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from particle_os.boot.attempt import Undecided, boot_once
from particle_os.boot.evidence import LOST_TIMER
from particle_os.boot.judgement import compared, not_rebooted
from particle_os.boot.observation.verdict import Observation, Verdict
from particle_os.boot.request import BootRequest
from particle_os.system.deadline import Deadline
from particle_os.vm import accel
from particle_os.vm.image_format import check_readable
from particle_os.vm.overlay import make_overlay

__all__ = ["Undecided", "boot"]

OVERLAY_SECONDS = 30.0
ATTEMPTS = 3


def boot(request: BootRequest, directory: Path) -> Verdict:
    """Boots the image of `request` on its machine and returns the verdict.

    The image is never written. `directory` is made, and is the boot's own. Raises
    InfrastructureError when QEMU or the host fails (Undecided after the start of a machine), and
    UsageError when the headers of the image are damaged.
    """
    check_readable(request.image, request.format)
    directory.mkdir(mode=0o700)
    request.evidence.clear()
    found = _boot_repeatedly(request, directory)
    return request.verdict(found)


def _boot_repeatedly(request: BootRequest, directory: Path) -> Observation:
    """Repeats the boot on one processor when the emulation fails rather than the image."""
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
    """Boots an overlay of the image, and boots it again when a check asks for a second boot."""
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
