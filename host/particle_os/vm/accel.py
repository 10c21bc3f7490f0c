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
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from particle_os.architecture import AMD64, Architecture, native
from particle_os.errors import InfrastructureError, ParticleError
from particle_os.system import host_packages, process, publication
from particle_os.system.deadline import Deadline
from particle_os.system.gate import Gate
from particle_os.system.regular_file import read_regular
from particle_os.vm.argv import MIB, DirectBoot, MachineSpec
from particle_os.vm.console import ConsoleLog
from particle_os.vm.machine import running

Mode = Literal["auto", "kvm", "tcg"]
DEVICE = Path("/dev/kvm")
# The cache's file with the result of the last trial of KVM.
KVM_MEMORY = "kvm.json"
MEMORY_LIMIT = 1 << 16
PROBE_SECONDS = 10.0
TCG_FACTOR = 4.0
EMULATED = "emulated by TCG, which QEMU does not consider a security boundary"


@dataclass(frozen=True)
class Acceleration:
    """The chosen accelerator, the reason, and the factor for time limits under it.

    It runs machines of one `architecture`.
    """

    name: Literal["kvm", "tcg"]
    reason: str
    factor: float
    architecture: Architecture = AMD64

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
    emulated, vm = acceleration.name == "tcg", acceleration.architecture.vm
    x2apic = emulated and vm.x2apic and _emulates_x2apic(vm.qemu)
    # Each emulated processor occupies a processor of the host.
    several = x2apic or not vm.x2apic
    best = 2 if not emulated else min(2, len(os.sched_getaffinity(0))) if several else 1
    count = wanted or best
    return Processors(count, x2apic and count > 1)


def _emulates_x2apic(qemu: str) -> bool:
    """Whether QEMU is version 9.0 or later (QEMU's ChangeLog: "TCG: x2APIC")."""
    return (version_of(qemu) or (0, 0)) >= (9, 0)


@functools.cache
def version_of(qemu: str) -> tuple[int, int] | None:
    """The major and minor version of a program of QEMU; None when it shows none.

    Raises InfrastructureError when it does not run.
    """
    found = re.search(r"version (\d+)\.(\d+)", process.version(qemu))
    return None if found is None else (int(found[1]), int(found[2]))


@dataclass(frozen=True)
class OldQemu:
    """A version of QEMU that lacks something that particle-os needs, and the least that has it."""

    version: str
    least: str


def outdated(architecture: Architecture) -> OldQemu | None:
    """The version of the installed QEMU, if it is too old for machines of an architecture.

    Raises InfrastructureError when the program does not run.
    """
    vm = architecture.vm
    found = version_of(vm.qemu)
    if found is None or found >= vm.least_qemu:
        return None
    return OldQemu(*(".".join(map(str, numbers)) for numbers in (found, vm.least_qemu)))


def choose(
    mode: Mode,
    *,
    kernel: Path,
    initrd: Path,
    memory_file: Path,
    directory: Path,
    note: Callable[[str], None],
    architecture: Architecture = AMD64,
) -> Acceleration:
    """Returns the accelerator for `mode`, for machines of an architecture.

    `kernel` and `initrd` belong to the helper VM and can compute a test value. `memory_file` stores
    the result of the trial. Raises InfrastructureError when `mode` is "kvm" and KVM does not work.
    """
    if mode == "tcg":
        return emulated(architecture)
    if (foreign := _foreign(architecture)) is not None:
        if mode == "kvm":
            raise _unusable(foreign)
        note(f"{foreign}: emulating with TCG, which is slower")
        return Acceleration("tcg", foreign, TCG_FACTOR, architecture)
    probe = _Probe(architecture, kernel, initrd, directory)
    works, reason = _kvm_works(probe, memory_file, note)
    if works:
        return Acceleration("kvm", reason, 1.0, architecture)
    if mode == "kvm":
        raise _unusable(reason)
    note(f"no KVM ({reason}): emulating with TCG, which is slower")
    return Acceleration("tcg", reason, TCG_FACTOR, architecture)


def emulated(architecture: Architecture) -> Acceleration:
    """The emulation that a user asks for."""
    return replace(TCG, architecture=architecture)


def _foreign(architecture: Architecture) -> str | None:
    """The reason why KVM of this host never runs such machines; None if it may."""
    if native() == architecture:
        return None
    return f"KVM of this host runs no machine of {architecture.name}"


def check_emulator(architecture: Architecture) -> None:
    """Raises InfrastructureError when no QEMU of this host runs machines of an architecture."""
    vm = architecture.vm
    if shutil.which(vm.qemu) is None:
        raise InfrastructureError(
            f"'{vm.qemu}', which runs machines of {architecture.name}, is not installed",
            hint=f"Install it: {host_packages.advice(vm.qemu)}.",
        )
    if (old := outdated(architecture)) is not None:
        raise InfrastructureError(
            f"QEMU {old.version} cannot run the machines of {architecture.name} that particle-os "
            "needs",
            hint=f"Install QEMU {old.least} or later.",
        )


def check_device(mode: Mode, architecture: Architecture = AMD64) -> None:
    """Raises InfrastructureError when `mode` is "kvm" and /dev/kvm does not open.

    Also when KVM never runs machines of the architecture.
    """
    if mode == "kvm" and (reason := _foreign(architecture) or _closed()):
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


def hopeless(architecture: Architecture) -> str | None:
    """The reason why no trial of KVM is needed, because it fails; None if it may work."""
    if (foreign := _foreign(architecture)) is not None:
        return foreign
    return None if device_opens() else "no access to /dev/kvm"


def device_opens() -> bool:
    """Whether /dev/kvm exists and is accessible; a guest may still fail under KVM."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


@dataclass(frozen=True)
class Trial:
    """The outcome of a guest under KVM: whether KVM works, and why."""

    works: bool
    reason: str


def usable(architecture: Architecture, memory_file: Path) -> bool | None:
    """Whether KVM runs machines of an architecture, as far as it is known without a trial.

    None: the device opens, and no guest has tried it yet.
    """
    if hopeless(architecture) is not None:
        return False
    trial = remembered(architecture, memory_file)
    return None if trial is None else trial.works


def remembered(architecture: Architecture, memory_file: Path) -> Trial | None:
    """The last trial of KVM, from `memory_file`; None if it had another kernel, QEMU or device."""
    try:
        found = json.loads(read_regular(memory_file, MEMORY_LIMIT))
        if found["key"] != _trial_key(architecture):
            return None
        return Trial(bool(found["works"]), str(found["reason"]))
    except (OSError, ValueError, KeyError, TypeError, InfrastructureError):
        return None


def _trial_key(architecture: Architecture) -> str:
    """A digest of what a trial of KVM depends on. Raises InfrastructureError without a QEMU."""
    qemu = process.identity(architecture.vm.qemu)
    parts = [platform.release(), platform.version(), qemu, DEVICE.stat().st_rdev]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class _Probe:
    """A guest that tries KVM: the kernel and the initrd of the helper VM."""

    architecture: Architecture
    kernel: Path
    initrd: Path
    directory: Path


def _kvm_works(probe: _Probe, memory_file: Path, note: Callable[[str], None]) -> tuple[bool, str]:
    if reason := _closed():
        return False, reason
    key = _trial_key(probe.architecture)
    if (trial := remembered(probe.architecture, memory_file)) is not None:
        return trial.works, trial.reason
    note(f"trying a guest under KVM, once (up to {PROBE_SECONDS:.0f} s)")
    works, reason = _run_guest(probe)
    # Without the file, the next run tries again.
    with suppress(OSError):
        publication.replace(
            memory_file, json.dumps({"key": key, "works": works, "reason": reason}).encode()
        )
    return works, reason


def _run_guest(probe: _Probe) -> tuple[bool, str]:
    """Boots the helper's kernel under KVM and compares its result with the expected value."""
    numbers = "".join(f"{n}\n" for n in range(1, 2001))
    expected = hashlib.sha256(numbers.encode()).hexdigest()
    spec = MachineSpec(
        accelerator="kvm",
        memory=256 * MIB,
        cpus=1,
        architecture=probe.architecture,
        direct_boot=DirectBoot(
            probe.kernel,
            probe.initrd,
            f"console={probe.architecture.vm.console} quiet panic=-1 particle_os.probe",
        ),
    )
    deadline = Deadline.after(PROBE_SECONDS, "a guest under KVM")
    # This guest gets no secret.
    directory = probe.directory
    log = ConsoleLog(directory.with_suffix(".log"), Gate())
    try:
        with running(spec, directory=directory, transcript=log, deadline=deadline) as machine:
            answer = machine.console.expect(r"PARTICLE-OS-PROBE ([0-9a-f]{64})", deadline)
            if answer.group(1).decode() == expected:
                return True, "a guest ran under it"
            return False, "a guest under it computed a wrong answer"
    except ParticleError as error:
        return False, f"a guest under it fails: {error.brief}"
