"""Chooses the accelerator: KVM only after a guest has run under it, else TCG.

A successful open of /dev/kvm proves nothing: nested or filtered KVM may accept a virtual CPU and
then spin or fail in the guest's first instructions.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from particle_os.errors import InfrastructureError, ParticleError
from particle_os.system import process
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.system.regular_file import read_regular
from particle_os.vm.argv import MIB, DirectBoot, MachineSpec
from particle_os.vm.console import ConsoleLog
from particle_os.vm.machine import running

Mode = Literal["auto", "kvm", "tcg"]
QEMU = "qemu-system-x86_64"
DEVICE = Path("/dev/kvm")
# The cache's file with the result of the last trial of KVM.
KVM_MEMORY = "kvm.json"
MEMORY_LIMIT = 1 << 16
PROBE_SECONDS = 10.0
TCG_FACTOR = 4.0
EMULATED = "emulated by TCG, which QEMU does not consider a security boundary"


@dataclass(frozen=True)
class Acceleration:
    """The chosen accelerator, the reason, and the factor for time limits under it."""

    name: Literal["kvm", "tcg"]
    reason: str
    factor: float

    @property
    def security_note(self) -> str | None:
        """The remark about the sandbox's strength for the result (QEMU's docs/system/security)."""
        return EMULATED if self.name == "tcg" else None


TCG = Acceleration("tcg", "requested", TCG_FACTOR)


@dataclass(frozen=True)
class Processors:
    """The number of virtual processors of a machine, and whether they use x2APIC."""

    count: int
    x2apic: bool


def processors(acceleration: Acceleration, wanted: int | None = None) -> Processors:
    """Returns the processors of a machine that boots an image: `wanted`, or the best number."""
    emulated = acceleration.name == "tcg"
    x2apic = emulated and _emulates_x2apic()
    # Each emulated processor occupies a processor of the host.
    best = min(2, len(os.sched_getaffinity(0))) if x2apic else 1 if emulated else 2
    count = wanted or best
    return Processors(count, x2apic and count > 1)


@functools.cache
def _emulates_x2apic() -> bool:
    """Whether QEMU is version 9.0 or later (QEMU's ChangeLog: "TCG: x2APIC")."""
    found = re.search(r"version (\d+)\.", process.version(QEMU))
    return found is not None and int(found[1]) >= 9


def choose(
    mode: Mode,
    *,
    kernel: Path,
    initrd: Path,
    memory_file: Path,
    directory: Path,
    note: Callable[[str], None],
) -> Acceleration:
    """Returns the accelerator for `mode`.

    `kernel` and `initrd` belong to the helper VM and can compute a test value. `memory_file` stores
    the result of the trial. Raises InfrastructureError when `mode` is "kvm" and KVM does not work.
    """
    if mode == "tcg":
        return TCG
    works, reason = _kvm_works(kernel, initrd, memory_file, directory, note)
    if works:
        return Acceleration("kvm", reason, 1.0)
    if mode == "kvm":
        raise _unusable(reason)
    note(f"no KVM ({reason}): emulating with TCG, which is slower")
    return Acceleration("tcg", reason, TCG_FACTOR)


def check_device(mode: Mode) -> None:
    """Raises InfrastructureError when `mode` is "kvm" and /dev/kvm does not open."""
    if mode == "kvm" and (reason := _closed()):
        raise _unusable(reason)


def _unusable(reason: str) -> InfrastructureError:
    return InfrastructureError(
        f"KVM cannot be used: {reason}",
        hint="Use --accel tcg, or --accel auto for an automatic choice.",
    )


def _closed() -> str | None:
    """The reason why /dev/kvm does not open; None when it does."""
    if not DEVICE.exists():
        return "there is no /dev/kvm"
    if not device_opens():
        return "/dev/kvm is not accessible; membership in the group 'kvm' gives access"
    return None


def device_opens() -> bool:
    """Whether /dev/kvm exists and is accessible; a guest may still fail under KVM."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


def _kvm_works(
    kernel: Path, initrd: Path, memory_file: Path, directory: Path, note: Callable[[str], None]
) -> tuple[bool, str]:
    if reason := _closed():
        return False, reason
    status = DEVICE.stat()
    parts = [platform.release(), platform.version(), process.identity(QEMU), status.st_rdev]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    try:
        remembered = json.loads(read_regular(memory_file, MEMORY_LIMIT))
        if remembered["key"] == key:
            return bool(remembered["works"]), str(remembered["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    note(f"trying a guest under KVM, once (up to {PROBE_SECONDS:.0f} s)")
    works, reason = _run_guest(kernel, initrd, directory)
    temporary = memory_file.with_name(f".{memory_file.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"key": key, "works": works, "reason": reason}))
    temporary.replace(memory_file)
    return works, reason


def _run_guest(kernel: Path, initrd: Path, directory: Path) -> tuple[bool, str]:
    """Boots the helper's kernel under KVM and compares its result with the expected value."""
    numbers = "".join(f"{n}\n" for n in range(1, 2001))
    expected = hashlib.sha256(numbers.encode()).hexdigest()
    spec = MachineSpec(
        accelerator="kvm",
        memory=256 * MIB,
        cpus=1,
        direct_boot=DirectBoot(kernel, initrd, "console=ttyS0 quiet panic=-1 particle_os.probe"),
    )
    deadline = Deadline.after(PROBE_SECONDS, "a guest under KVM")
    # This guest gets no secret.
    log = ConsoleLog(directory.with_suffix(".log"), Gate())
    try:
        with running(spec, directory=directory, transcript=log, deadline=deadline) as machine:
            answer = machine.console.expect(r"PARTICLE-OS-PROBE ([0-9a-f]{64})", deadline)
            if answer.group(1).decode() == expected:
                return True, "a guest ran under it"
            return False, "a guest under it computed a wrong answer"
    except ParticleError as error:
        return False, f"a guest under it fails: {error.brief}"
