"""systemd-boot: a boot loader for UEFI, with the kernels on the EFI system partition.

The image's kernel-install(8) puts the kernel there, in the build and at each update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_agent.contract import needs
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.record import Architecture, ImageFacts
from particle_agent.contract.needs import Need
from particle_agent.disk import boot
from particle_agent.disk.boot import Booting
from particle_agent.disk.volumes import Volume
from particle_agent.system import kernels
from particle_agent.target.target import Target

ESP = "/boot/efi"
BOOTCTL = "/usr/bin/bootctl"
PROGRAMS = "/usr/lib/systemd/boot/efi"
# The directory of the kernels and the prefix of their entries (kernel-install(8): entry-token). The
# default is the machine-id, which the image does not have yet.
ENTRIES = "debian"
INSTALL, INSTALL_UNIFIED = "layout=bls\n", "layout=uki\nuki_generator=ukify\n"
UKIFY = "/usr/lib/kernel/install.d/60-ukify.install"


@dataclass(frozen=True)
class SystemdBoot:
    """systemd-boot for UEFI, with an entry of the Boot Loader Specification for each kernel.

    With `unified`, kernel, initramfs and command line are one program (type 2). Otherwise they are
    separate files (type 1).
    """

    unified: bool
    architecture: Architecture = AMD64

    @property
    def _name(self) -> str:
        return f"systemd-boot{self.architecture.image.efi}.efi"

    @property
    def _program(self) -> str:
        return f"{PROGRAMS}/{self._name}"

    @property
    def _stub(self) -> str:
        """The program that ukify(1) puts before kernel and initramfs."""
        return f"{PROGRAMS}/linux{self.architecture.image.efi}.efi.stub"

    def needs(self) -> Iterator[Need]:
        # systemd-boot depends on the signed program (trixie) or on the other one (bookworm).
        yield needs.package("systemd-boot", BOOTCTL, "systemd-boot", "boot-loader")
        if self.unified:
            why, key = "a unified kernel image", "unified-kernel-image"
            yield needs.package("systemd-ukify", UKIFY, why, key)
            yield needs.package("systemd-boot-efi", self._stub, why, key)

    def signed_needs(self) -> Iterator[Need]:
        why, key = "Secure Boot", "boot-loader"
        image, name = self.architecture.image, self.architecture.name
        yield needs.package("shim-signed", shim(image)[image.efi_program], why, key)
        signed = f"systemd-boot-efi-{name}-signed"
        yield needs.package(signed, f"{self._program}.signed", why, key)

    def rewrites(self) -> Iterator[tuple[str, str]]:
        written = ("/etc/kernel/entry-token", "/etc/kernel/install.conf")
        yield from boot.menu_rewrites(f"{ESP}/loader/loader.conf", *written)
        yield f"{ESP}/loader/entries.srel", "leave it out: the stage writes it"
        image = self.architecture.image
        names = (f"systemd/{self._name}", *(f"BOOT/{name}" for name in shim(image)))
        for name in (*names, f"BOOT/{image.second_stage}"):
            yield f"{ESP}/EFI/{name}", boot.PROGRAM

    def check(self, target: Target) -> None:
        boot.need(target, BOOTCTL, "systemd-boot", "systemd-boot")
        if not target.exists(f"{self._program}.signed"):
            boot.need(target, self._program, "systemd-boot-efi", "systemd-boot")
        if self.unified:
            boot.need(target, UKIFY, "systemd-ukify", "a unified kernel image")
            boot.need(target, self._stub, "systemd-boot-efi", "a unified kernel image")

    def volumes(self) -> list[Volume]:
        return [Volume("esp", "vfat", ESP)]

    def prepare(self, target: Target, booting: Booting) -> None:
        self._copy_programs(target)
        target.write(f"{ESP}/loader/loader.conf", "timeout 1\n")
        # `bootctl install` writes this file; kernel-install(8) and bootctl(1) need it.
        target.write(f"{ESP}/loader/entries.srel", "type1\n")
        target.write("/etc/kernel/entry-token", f"{ENTRIES}\n")
        target.write("/etc/kernel/install.conf", INSTALL_UNIFIED if self.unified else INSTALL)
        target.write(kernels.COMMAND_LINE, f"{booting.command_line}\n")
        target.make_directory(f"{ESP}/{ENTRIES}")
        target.make_directory(f"{ESP}/EFI/Linux")
        kernel = booting.kernel
        files = [f"/boot/{name}-{kernel.version}" for name in ("vmlinuz", "initrd.img")]
        target.chroot(
            ["kernel-install", "add", kernel.version, *files],
            # The directory is no mount point yet, so name it as the root of the entries' paths.
            env={"BOOT_ROOT": ESP, "BOOT_MNT": ESP, "SYSTEMD_RELAX_ESP_CHECKS": "1"},
        )

    def _copy_programs(self, target: Target) -> None:
        """Copies the boot loader to the paths of bootctl(1), behind the shim if all is signed."""
        signed = f"{self._program}.signed"
        is_signed = target.exists(signed)
        program = signed if is_signed else self._program
        image = self.architecture.image
        before = shim(image)
        _copy(target, program, f"{ESP}/EFI/systemd/{self._name}")
        if is_signed and all(target.exists(path) for path in before.values()):
            for name, path in before.items():
                _copy(target, path, f"{ESP}/EFI/BOOT/{name}")
            _copy(target, program, f"{ESP}/EFI/BOOT/{image.second_stage}")
        else:
            _copy(target, program, f"{ESP}/EFI/BOOT/{image.efi_program}")

    def install(self, target: Target, disk: Path, parts: Sequence[Volume]) -> list[str]:
        return []

    def write_boot_code(self, target: Target, disk: Path, parts: Sequence[Volume]) -> None:
        pass


def shim(image: ImageFacts) -> dict[str, str]:
    """The names in EFI/BOOT of the shim's signed programs, and their files in Debian's packages."""
    found = {image.efi_program: f"shim{image.efi}", f"mm{image.efi}.efi": f"mm{image.efi}"}
    return {name: f"/usr/lib/shim/{file}.efi.signed" for name, file in found.items()}


def _copy(target: Target, source: str, path: str) -> None:
    with target.open(source) as data:
        target.write_from(data, path)
