"""Examines the host: the requirements of a build, and how to meet those that are missing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from particle_os.architecture import ARCHITECTURES, Architecture, usual
from particle_os.errors import InfrastructureError, ParticleError
from particle_os.report.table import human_bytes
from particle_os.sandbox.template import templates
from particle_os.system import host_packages, process
from particle_os.system.confinement import landlock_abi
from particle_os.system.workspace import ADVICE as CACHE_ADVICE
from particle_os.system.workspace import cache_directory, free_bytes
from particle_os.vm import accel, firmware

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ROOM = 6 << 30
PROGRAMS = (
    "qemu-img", "apt-get", "dpkg-deb", "mmdebstrap", "tar2sqfs", "gensquashfs", "zstd",
)  # fmt: skip
# Programs that only some bases need, and the reason.
OPTIONAL = {"skopeo": "bases from container images need it"}
# Ubuntu 24.04 and later set it: an ordinary user's new user namespace has no capabilities.
NAMESPACE_LIMIT = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
SLOW_QEMU = 9


@dataclass(frozen=True)
class Diagnosis:
    """One requirement and its status; `advice` is what to do unless the status is 'ok'."""

    what: str
    status: Literal["ok", "warning", "missing"]
    detail: str
    advice: str | None = None


def examine() -> list[Diagnosis]:
    """Examines everything that a build needs from the host."""
    own = usual()
    findings = [_host(), _emulator(own), *map(_program, PROGRAMS)]
    findings += [_optional(name, why) for name, why in OPTIONAL.items()]
    findings += [_path("Debian's signing keys", KEYRING), _uefi(own), _landlock()]
    findings += [_foreign(each) for each in ARCHITECTURES.values() if each is not own]
    try:
        cache = cache_directory()
    except InfrastructureError as error:
        findings.append(Diagnosis("cache", "missing", error.brief, error.hint))
    else:
        if not os.access(cache, os.W_OK | os.X_OK):
            detail = f"{cache} cannot be written to"
            findings.append(Diagnosis("cache", "missing", detail, CACHE_ADVICE))
        findings += [_kvm(cache), _room(cache)]
    count = len(templates())
    findings.append(
        Diagnosis(
            "helper templates",
            "ok" if count else "missing",
            f"{count} found",
            None if count else "reinstall particle-os",
        )
    )
    return findings


def _landlock() -> Diagnosis:
    if (abi := landlock_abi()) != 0:
        return Diagnosis("Landlock", "ok", f"version {abi}", None)
    advice = "use Linux 5.19 or later, and a container that allows landlock_restrict_self(2)"
    return Diagnosis("Landlock", "warning", "QEMU and others can open your files", advice)


def _host() -> Diagnosis:
    title = host_packages.release().get("PRETTY_NAME", "a Linux without os-release")
    try:
        limited = NAMESPACE_LIMIT.read_text().strip() == "1"
    except OSError:
        limited = False
    if limited:
        title += "; AppArmor limits user namespaces, which does not matter: builds use none"
    return Diagnosis("host", "ok", title)


def _program(name: str) -> Diagnosis:
    found = shutil.which(name)
    if found is None:
        return Diagnosis(name, "missing", "not installed", host_packages.advice(name))
    try:
        version = process.version(found)
    except (OSError, ParticleError):
        return Diagnosis(name, "missing", f"{found} does not run", host_packages.advice(name))
    if name.startswith("qemu-system"):
        words = [w for w in version.split() if w[:1].isdigit()]
        if words and int(words[0].split(".")[0]) < SLOW_QEMU:
            return Diagnosis(name, "warning", version, _newer_qemu())
    return Diagnosis(name, "ok", version)


def _newer_qemu() -> str:
    return f"QEMU 10 emulates twice as fast{_backports()}"


def _backports() -> str:
    """The place of a newer QEMU for a host with Debian 12, as the end of a sentence."""
    codename = host_packages.release().get("VERSION_CODENAME")
    return " (bookworm-backports)" if codename == "bookworm" else ""


def _optional(name: str, why: str) -> Diagnosis:
    found = _program(name)
    if found.status != "missing":
        return found
    return Diagnosis(name, "warning", f"{found.detail}: {why}", found.advice)


def _path(what: str, path: Path) -> Diagnosis:
    if path.exists():
        return Diagnosis(what, "ok", str(path))
    advice = host_packages.advice(str(path))
    return Diagnosis(what, "missing", f"{path} does not exist", advice)


def architectures() -> list[str]:
    """The architectures of the images that this machine can build: its own, and emulated ones."""
    own = usual()
    return [each.name for each in ARCHITECTURES.values() if each is own or not _lacking(each)]


def _lacking(architecture: Architecture) -> list[Diagnosis]:
    """The requirements of images of an architecture that this machine does not meet."""
    found = (_emulator(architecture), _uefi(architecture))
    return [each for each in found if each.status == "missing"]


def _emulator(architecture: Architecture) -> Diagnosis:
    """Examines the program that runs machines of an architecture."""
    name = architecture.vm.qemu
    found = _program(name)
    if found.status == "missing" or (old := accel.outdated(architecture)) is None:
        return found
    advice = f"install QEMU {old.least} or later{_backports()}"
    return Diagnosis(name, "missing", f"{old.version} is too old", advice)


def _foreign(architecture: Architecture) -> Diagnosis:
    """Examines what images of another architecture than the host's need."""
    what = f"images of {architecture.name}"
    if missing := _lacking(architecture):
        reasons = ", ".join(f"{each.what} {each.detail}" for each in missing)
        advice = "; ".join(each.advice for each in missing if each.advice)
        return Diagnosis(what, "warning", f"not possible: {reasons}", advice)
    emulator = _emulator(architecture)
    detail, advice_of = f"built in emulated machines, by {emulator.detail}", [emulator.advice]
    if firmware.find("uefi", architecture) is None:
        detail, advice_of = f"{detail}, for BIOS only", [*advice_of, _uefi(architecture).advice]
    advice = "; ".join(filter(None, advice_of))
    return Diagnosis(what, "warning" if advice else "ok", detail, advice or None)


def _uefi(architecture: Architecture) -> Diagnosis:
    what = "UEFI firmware"
    plain, secure = (firmware.find(name, architecture) for name in ("uefi", "uefi-secure"))
    if plain is None:
        advice = host_packages.advice(firmware.requirement(architecture))
        if "bios" not in architecture.image.firmwares:
            return Diagnosis(what, "missing", "not installed", advice)
        advice += "; without it, boot tests are possible under BIOS only"
        return Diagnosis(what, "warning", "not installed", advice)
    if secure is None:
        detail = f"{plain.code}, and none with Secure Boot and its keys"
        advice = "boot tests under uefi-secure need a firmware with the keys of retail machines"
        return Diagnosis(what, "warning", detail, advice)
    return Diagnosis(what, "ok", f"{plain.code}, {secure.code}")


def _room(cache: Path) -> Diagnosis:
    free = free_bytes(cache)
    if free >= ROOM:
        return Diagnosis("disk space", "ok", f"{human_bytes(free)} free in {cache}")
    advice = f"free {human_bytes(ROOM)}, or set XDG_CACHE_HOME elsewhere"
    return Diagnosis("disk space", "warning", f"{human_bytes(free)} free in {cache}", advice)


def _kvm(cache: Path) -> Diagnosis:
    if not accel.DEVICE.exists():
        return Diagnosis("KVM", "warning", "no /dev/kvm: builds are emulated, and slower")
    if not accel.device_opens():
        return Diagnosis(
            "KVM",
            "warning",
            "/dev/kvm is not accessible",
            "sudo usermod -aG kvm $USER, then log in again",
        )
    trial = accel.remembered(usual(), cache / accel.KVM_MEMORY)
    if trial is None:
        return Diagnosis("KVM", "ok", "/dev/kvm opens; the first build tries a guest under it")
    status: Literal["ok", "warning"] = "ok" if trial.works else "warning"
    return Diagnosis("KVM", status, f"when it was last tried, {trial.reason}")
