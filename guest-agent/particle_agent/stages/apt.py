"""Debian packages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from particle_agent.errors import CommandFailed, InfrastructureError, StageError
from particle_agent.options import Options, PackageName
from particle_agent.target import Target

APT_GET = (
    "apt-get",
    "--yes",
    "--quiet",
    "-oAcquire::Languages=none",
    "-oAcquire::Retries=2",
    "-oAcquire::http::Timeout=20",
    "-oAcquire::https::Timeout=20",
    "-oAPT::Update::Error-Mode=any",
    "-oAPT::Sandbox::User=root",
    "-oDpkg::Use-Pty=0",
    # The scratch disk is thrown away unless the build succeeds: no need to sync each file.
    "-oDpkg::Options::=--force-unsafe-io",
    "-oDpkg::Options::=--force-confold",
)
POLICY = "/usr/sbin/policy-rc.d"
UPDATE_INITRAMFS = "/usr/sbin/update-initramfs"
ASIDE = f"{UPDATE_INITRAMFS}.particle-os"
ASKED_FOR = "/run/particle-os-initramfs"
# initramfs.conf(5) and initramfs-tools(7); the modules that do not exist are passed over.
INITRAMFS_CONF = "/etc/initramfs-tools/conf.d/particle-os"
INITRAMFS_MODULES = "/usr/share/initramfs-tools/modules.d/particle-os"
CLOUD_STORAGE = (
    "virtio_pci virtio_mmio virtio_blk virtio_scsi nvme ahci ata_piix sd_mod "
    "xen-blkfront hv_storvsc vmw_pvscsi mptspi ext4 crc32c_generic"
).split()
HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))
UNREACHABLE = re.compile(
    r"Could not (resolve|connect)|Temporary failure resolving|Unable to connect"
    r"|Connection (failed|timed out|refused)|Network is unreachable|Could not handshake"
    r"|No route to host"
)
URL_HOST = re.compile(r"https?://([^/\s:]+)|resolve '([^']+)'|connect to ([^\s:]+):")


@dataclass(frozen=True, kw_only=True)
class Apt(Options):
    """Installs Debian packages with the apt of the image.

    No service starts during the build, the initramfs is made once at the end, and apt's indexes
    and downloads stay outside of the image.
    """

    type: Literal["apt"] = "apt"
    packages: tuple[PackageName, ...] = ()
    """What to install; a name may carry :ARCH, =VERSION or /RELEASE as in apt-get(8)."""
    update: bool = True
    """Whether to fetch the package indexes first."""
    recommends: bool = False
    """Whether to install recommended packages too."""

    def run(self, target: Target) -> None:
        if not target.exists("/usr/bin/apt-get"):
            raise StageError(
                "the base has no apt-get",
                hint="Use a Debian base image that contains the 'apt' package.",
            )
        with ExitStack() as stack:
            stack.enter_context(target.network())
            stack.enter_context(_services_stay_off(target))
            stack.enter_context(_no_host_keys(target))
            stack.enter_context(_initramfs_made_once(target))
            if self.update:
                _apt_get(target, "update")
            if self.packages:
                recommends = "true" if self.recommends else "false"
                _apt_get(
                    target,
                    f"-oAPT::Install-Recommends={recommends}",
                    "install",
                    "--",
                    *self.packages,
                )


def _apt_get(target: Target, *arguments: str) -> None:
    try:
        target.chroot([*APT_GET, *arguments])
    except CommandFailed as failed:
        complaints = [line for line in failed.tail if line.startswith(("E:", "W:", "Err:"))]
        text = "\n".join(complaints)
        if UNREACHABLE.search("\n".join(failed.tail)):
            host = URL_HOST.search(text)
            name = next((g for g in host.groups() if g), "?") if host else "?"
            raise InfrastructureError(
                f"the package mirror {name} cannot be reached",
                hint="Check the network, or use a base with other sources.",
                tail=failed.tail,
            ) from failed
        errors = [line for line in complaints if line.startswith("E:")]
        raise StageError(
            f"apt-get: {errors[0][2:].strip()}" if errors else str(failed),
            hint="Check the name with 'apt-cache policy' against the suite of the base image."
            if "Unable to locate package" in text
            else None,
            tail=failed.tail,
        ) from failed


@contextmanager
def _services_stay_off(target: Target) -> Iterator[None]:
    """invoke-rc.d(8) asks policy-rc.d; 101 forbids the action."""
    if target.exists(POLICY):
        yield
        return
    target.write(POLICY, "#!/bin/sh\nexit 101\n", mode=0o755)
    try:
        yield
    finally:
        target.remove(POLICY)


@contextmanager
def _no_host_keys(target: Target) -> Iterator[None]:
    """openssh-server makes no keys where a file exists; the image makes its own at first boot."""
    placeholders = [path for path in HOST_KEYS if not target.exists(path)]
    had_directory = target.exists("/etc/ssh")
    for path in placeholders:
        target.write(path, "", mode=0o600)
    try:
        yield
    finally:
        for path in placeholders:
            if target.exists(path) and target.read(path) == "":
                target.remove(path)
        if not had_directory and not target.list("/etc/ssh"):
            target.remove("/etc/ssh")


@contextmanager
def _initramfs_made_once(target: Target) -> Iterator[None]:
    """update-initramfs only notes that it was called, and runs once for each kernel at the end."""
    divert = ["dpkg-divert", "--quiet", "--local", "--rename", "--divert", ASIDE]
    target.chroot([*divert, "--add", UPDATE_INITRAMFS])
    target.write(UPDATE_INITRAMFS, f'#!/bin/sh\necho "$@" >> {ASKED_FOR}\n', mode=0o755)
    try:
        yield
    finally:
        target.remove(UPDATE_INITRAMFS)
        target.chroot([*divert, "--remove", UPDATE_INITRAMFS])
    if target.exists(ASKED_FOR):
        target.remove(ASKED_FOR)
        for name in target.list("/boot"):
            if name.startswith("vmlinuz-"):
                _make_initramfs(target, name.removeprefix("vmlinuz-"))


def _make_initramfs(target: Target, version: str) -> None:
    """Makes the first initramfs of a kernel, quickly; updates in the running image are its own.

    Debian's cloud kernel only ever meets virtual hardware: a list of its storage drivers does.
    """
    settings = "COMPRESS=gzip\nCOMPRESSLEVEL=1\n"
    if "-cloud-" in version:
        settings += "MODULES=list\n"
    target.write(INITRAMFS_CONF, settings)
    target.write(INITRAMFS_MODULES, "".join(f"{name}\n" for name in CLOUD_STORAGE))
    try:
        target.chroot(["update-initramfs", "-c", "-k", version])
    finally:
        target.remove(INITRAMFS_CONF)
        target.remove(INITRAMFS_MODULES)
