"""The options of `bootc install to-filesystem`, of bootc 1.16.

https://bootc.dev/bootc/man/bootc-install-to-filesystem.8.html describes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from particle_agent.contract import keys
from particle_agent.contract.options import Options, Place, Text, refuse
from particle_agent.contract.values import KernelWord, SshPublicKey

# /run of the target is in memory: nothing of this directory becomes part of the image.
PLACE = "/run/particle-os/bootc"
KEYS = f"{PLACE}/authorized_keys"
# bootc's names of boot loaders.
LOADERS = {"grub": "grub", "systemd-boot": "systemd"}
ImageName = Annotated[
    str,
    Text(
        "the name of an image such as 'registry.example.org/edge:1'",
        r"[A-Za-z0-9/][A-Za-z0-9._:/@-]*",
        255,
    ),
]
MountSpec = Annotated[
    str,
    Text("a file system such as 'LABEL=root'", r"|(UUID|LABEL|PARTUUID|PARTLABEL)=[!-~]+", 100),
]
InstalledStateRoot = Annotated[str, Text("a name of a-z, 0-9 and '-'", r"[a-z0-9][a-z0-9-]*", 60)]


@dataclass(frozen=True, kw_only=True)
class BootcInstall(Options):
    """The options of `bootc install to-filesystem`."""

    target_imgref: ImageName
    """The image that machines update from."""
    target_transport: Literal["registry", "oci", "oci-archive", "containers-storage"] = "registry"
    """The kind of place that `target-imgref` names."""
    kargs: tuple[KernelWord, ...] = ()
    """More words for the kernel's command line."""
    karg_deletes: tuple[KernelWord, ...] = ()
    """Words that the image has for the kernel's command line, and the disk has not."""
    stateroot: InstalledStateRoot | None = None
    """The name of the system's directory; bootc's is `default`."""
    root_mount_spec: MountSpec | None = None
    """The root file system, as the kernel finds it; by default its UUID. An empty text leaves it
    out of the command line."""
    boot_mount_spec: MountSpec | None = None
    """The file system with /boot, as the system finds it."""
    root_ssh_authorized_keys: tuple[SshPublicKey, ...] = ()
    """Public keys that may log in as root."""
    generic_image: bool = True
    """Whether the disk is for many machines, and not for this one alone."""
    composefs_backend: bool = False
    """Whether bootc installs without OSTree, by composefs."""
    allow_missing_verity: bool = False
    """Whether composefs goes without fs-verity where the file system has none."""
    bound_images: Literal["stored", "skip"] = "skip"
    """The images that the image is bound to: `skip` leaves them out."""
    bootupd_skip_boot_uuid: bool = False
    """Whether bootupd writes no UUID of /boot into the configuration of the boot loader."""
    enforce_container_sigpolicy: bool = False
    """Whether machines take only images that their policy demands a signature for."""

    def __post_init__(self) -> None:
        refuse(self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        for index, key in enumerate(self.root_ssh_authorized_keys):
            if fault := keys.ssh_key_fault(key):
                yield ("root-ssh-authorized-keys", index), fault
        if self.allow_missing_verity and not self.composefs_backend:
            yield ("allow-missing-verity",), "allow-missing-verity: only composefs has it"

    def words(self, loader: str) -> Iterator[str]:
        """The words of the command line that the options stand for."""
        yield f"--target-transport={self.target_transport}"
        yield f"--target-imgref={self.target_imgref}"
        yield f"--bootloader={LOADERS[loader]}"
        yield f"--bound-images={self.bound_images}"
        yield from (f"--karg={word}" for word in self.kargs)
        yield from (f"--karg-delete={word}" for word in self.karg_deletes)
        for name in ("stateroot", "root_mount_spec", "boot_mount_spec"):
            if (value := getattr(self, name)) is not None:
                yield f"--{name.replace('_', '-')}={value}"
        for name in (
            "generic_image", "composefs_backend", "allow_missing_verity",
            "bootupd_skip_boot_uuid", "enforce_container_sigpolicy",
        ):  # fmt: skip
            if getattr(self, name):
                yield f"--{name.replace('_', '-')}"
        if self.root_ssh_authorized_keys:
            yield f"--root-ssh-authorized-keys={KEYS}"
