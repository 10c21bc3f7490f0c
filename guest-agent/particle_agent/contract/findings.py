"""The kinds of findings on an image. Each has a severity and a code that never changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

from particle_agent.contract.wire import Finding

# An image with an error does not boot as intended, is unreliable, or leaks a secret.
ERRORS = {
    "partition-table-missing": "there is neither a partition table nor a file system",
    "gpt-primary-broken": "the GPT at the start of the disk is missing or damaged",
    "gpt-backup-broken": "the second copy of the GPT is missing or damaged",
    "gpt-copies-differ": "the two copies of the GPT differ",
    "protective-mbr-missing": "a GPT lacks the MBR by which systems recognise it",
    "partition-outside": "a partition lies outside the disk",
    "partition-overlap": "two partitions overlap",
    "partition-duplicate": "two partitions have the same UUID",
    "file-system-broken": "the file system's own checker finds errors",
    "file-system-duplicate": "two file systems have the same UUID",
    "file-system-unreadable": "a file system of a known type cannot be mounted",
    "boot-loader-missing": "there is no program that BIOS or UEFI can start",
    "boot-loader-file-missing": "a file of the boot loader is missing",
    "boot-code-broken": "the boot code for BIOS does not lead to a boot loader",
    "boot-partition-not-active": "no partition is marked as the one to boot",
    "boot-partition-ambiguous": "more than one partition is marked as the one to boot",
    "boot-menu-missing": "the boot loader has no menu",
    "boot-menu-default-missing": "the boot loader's menu starts nothing by default",
    "boot-menu-file-missing": "the boot loader's menu names a file that does not exist",
    "boot-menu-device-missing": "the boot loader's menu names a file system that does not exist",
    "unified-kernel-image-broken": "a unified kernel image lacks a part or is cut off",
    "root-missing": "the kernel's command line names a root file system that does not exist",
    "init-missing": "the root file system has no init that the kernel can start",
    "ostree-repository-broken": "an object of the OSTree repository is missing or damaged",
    "deployment-changed": "a deployment has other files than its commit",
    "deployment-missing": "a boot entry names a deployment that does not exist",
    "deployment-kernel-differs": "a boot entry starts another kernel than its deployment has",
    "boot-menu-differs": "GRUB's menu has other entries than OSTree has written",
    "fstab-device-missing": "fstab requires a file system that does not exist",
    "fstab-type-wrong": "fstab names a type that differs from the file system's type",
    "fstab-swap-broken": "fstab names a swap file that is missing or was never prepared",
    "machine-id-set": "every machine that starts from the image gets the same machine-id",
    "ssh-host-key": "every machine that starts from the image gets the same SSH host key",
    "credential-secret": "every machine that starts from the image gets the same credential key",
    "build-file": "a working file of particle-os is left from the build",
}  # fmt: skip
WARNINGS = {
    "gpt-sector-size": "the GPT is for disks with sectors of 4096 bytes",
    "gpt-backup-misplaced": "the second copy of the GPT is not at the end of the disk",
    "partition-unaligned": "a partition does not start at a multiple of 4 KiB",
    "file-system-not-unmounted": "the file system was in use when the image was made",
    "file-system-not-checked": "the file system could not be checked",
    "system-not-found": "there is no readable root file system",
    "ostree-repository-not-checked": "the objects of the OSTree repository could not be checked",
    "deployment-not-in-menu": "no boot entry starts a deployment",
    "deployment-origin-missing": "a deployment names no branch to update from",
    "deployment-remote-missing": "a deployment updates from a server that no file configures",
    "update-room-missing": "the file system has no room for a second version of the system",
    "root-unstable": "the name of the root file system depends on the hardware",
    "resume-missing": "the kernel's command line names a swap space that does not exist",
    "fstab-line-broken": "a line of fstab is malformed",
    "fstab-unstable": "fstab names a disk by a name that depends on the hardware",
    "fstab-mount-point-missing": "a mount point of fstab does not exist",
    "fstab-bind-missing": "a directory that fstab mounts in another place does not exist",
    "container-file": "a container runtime left it; systemd may take the machine for a container",
    "policy-rc-d": "a policy keeps services from starting when packages are installed",
    "resolv-conf": "name resolution goes through the machine that the image was made on",
    "random-seed": "every machine that starts from the image gets the same random seed",
    "private-key": "every machine that starts from the image gets the same private key",
    "apt-lists": "package lists, which apt downloads again",
    "apt-archives": "packages that are already installed",
    "apt-cache": "files that apt derives from its lists",
    "apt-proxy": "apt goes through a proxy on the machine that the image was made on",
    "log": "logs of the machine that the image was made on",
    "shell-history": "a shell's history of typed commands",
    "temporary-file": "files in a directory for temporary files",
    "world-writable": "everybody can write to the file, and no package owns it",
    "setuid": "the file runs with the rights of its owner, and no package owns it",
    "capability": "the file runs with capabilities, and no package owns it",
}  # fmt: skip
# The number of findings of one code that are reported one by one. The rest are only counted.
LIMIT = 20
# The characters of a place, and of a message.
TEXT_LIMIT = 300


class Findings:
    """Reports findings through `report`, at most `LIMIT` of each code."""

    def __init__(self, report: Callable[[Finding], None]) -> None:
        self._report = report
        self._counts: Counter[str] = Counter()
        self._reported: set[Finding] = set()

    def add(self, code: str, place: str, message: str) -> None:
        """Reports a finding. `place` is a partition or a file; `message` describes the defect."""
        assert severity(code) is not None, code
        finding = Finding(code=code, place=_cut(place), message=_cut(message))
        # Two boot loaders may share a menu, so the same finding may come twice.
        if finding in self._reported:
            return
        self._counts[code] += 1
        if self._counts[code] <= LIMIT:
            self._reported.add(finding)
            self._report(finding)

    def finish(self) -> None:
        """Reports, for each code, the number of findings beyond `LIMIT`."""
        for code, count in self._counts.items():
            if count > LIMIT:
                self._report(Finding(code=code, place="", message=f"and {count - LIMIT} more"))


def severity(code: str) -> Literal["error", "warning"] | None:
    """The severity of findings with this code; None for an unknown code."""
    if code in ERRORS:
        return "error"
    return "warning" if code in WARNINGS else None


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT - 1]}…"
