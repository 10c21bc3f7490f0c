"""Stage qemu: the bootable disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from particle_agent.contract import needs
from particle_agent.contract.architectures.amd64 import AMD64
from particle_agent.contract.architectures.record import Architecture, BootFirmware
from particle_agent.contract.needs import Need
from particle_agent.contract.options import AtLeastOne, Place, refuse, repeated
from particle_agent.contract.values import DiskSize, SwapSize, bytes_of
from particle_agent.contract.wire import OutputName
from particle_agent.disk import boot, copied, fstab, growth, vfat
from particle_agent.disk.boot import Booting, BootLoader, InstalledKernel
from particle_agent.disk.extlinux import Extlinux
from particle_agent.disk.fstab import FileSystemTable, FstabLine, Mount, own_line
from particle_agent.disk.grub import Grub
from particle_agent.disk.identity import Identifiers
from particle_agent.disk.systemd_boot import SystemdBoot
from particle_agent.disk.volumes import Volume
from particle_agent.disk.writer import SWAP_FILE, DiskLayout, Writer, check_mount_points
from particle_agent.ostree import boot_counting, sysroot
from particle_agent.ostree.boot_menu import DeploymentGrub
from particle_agent.ostree.container import installer
from particle_agent.ostree.container.empty_disk import InstalledDisk
from particle_agent.ostree.container.install_options import LOADERS, BootcInstall
from particle_agent.ostree.repositories import publication
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop
from particle_agent.ostree.repositories.repository import OstreeRepository, archive
from particle_agent.stages.base import StageOptions
from particle_agent.system import first_boots, generalize, kernels
from particle_agent.target import disks
from particle_agent.target.target import Target

# The swap file of a disk that OSTree updates, on its machine. All its versions share /var.
DEPLOYED_SWAP_FILE = "/var/swapfile"
# The host lets the VM write no more. An MBR, and QEMU's VHD, end at twice that.
DISK_LIMIT = 1 << 40
Format = Literal["raw", "qcow2", "vmdk", "vdi", "vhd"]
# The firmwares that each boot loader starts from. The boot test uses the first ones by default.
FIRMWARES: dict[str, tuple[BootFirmware, ...]] = {
    "extlinux": ("bios",),
    "grub": ("bios", "uefi", "uefi-secure"),
    "systemd-boot": ("uefi", "uefi-secure"),
}


@dataclass(frozen=True, kw_only=True)
class Qemu(StageOptions):
    """Writes the system to a bootable disk with partitions, file systems and a boot loader.

    It is the last stage of a recipe for an image. It also removes what must differ between machines
    (machine-id, SSH host keys, random seed) and the leftovers of the build.
    """

    uses_name: ClassVar[bool] = True
    only_configures: ClassVar[bool] = True
    type: Literal["qemu"] = "qemu"
    formats: Annotated[tuple[Format, ...], AtLeastOne()] = ("raw",)
    """The formats of the image. The host converts the verified raw disk to each of them."""
    compress: Literal["none", "zstd"] = "none"
    """With `zstd`, a qcow2 image is compressed inside, and the raw disk becomes NAME.raw.zst."""
    size: DiskSize = "auto"
    """The size of the disk. `auto` is the content plus a quarter and 96 MiB. `minimal` is as small
    as the file system allows: ext4 and btrfs are shrunk after they are filled; xfs cannot shrink
    and gets the least size that certainly suffices."""
    boot_loader: Literal["extlinux", "grub", "systemd-boot"] = "extlinux"
    """The boot loader. extlinux starts from BIOS, systemd-boot from UEFI, and grub from both."""
    unified_kernel_image: bool = False
    """Whether systemd-boot starts the kernel, initramfs and command line as one EFI program."""
    partition_table: Literal["gpt", "msdos"] = "gpt"
    """The partition table."""
    file_system: Literal["ext4", "xfs", "btrfs"] = "ext4"
    """The root file system."""
    swap: SwapSize = "none"
    """The size of a swap file: /swapfile, or /var/swapfile after the stage `ostree`."""
    first_boot: bool = False
    """Whether systemd treats the first boot as one: units with ConditionFirstBoot= run, and presets
    are applied to units that the recipe has not disabled. systemd asks no questions then. Otherwise
    such units never run."""
    mounts: tuple[Mount, ...] = ()
    """More lines of /etc/fstab, and more options for the image's own file systems."""
    grow: bool = False
    """Whether the root file system grows at boot to fill a larger disk."""
    installer: Literal["particle-os", "bootc"] = "particle-os"
    """The program that installs the system on the disk. `bootc` is experimental: the image's own
    /usr/bin/bootc runs `install to-filesystem`. No suite of Debian has it."""
    bootc: BootcInstall | None = None
    """The options of `bootc install to-filesystem`."""

    def __post_init__(self) -> None:
        refuse((place, f"{place[0]}: {message}") for place, message in self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        if self.boot_loader == "systemd-boot" and self.partition_table == "msdos":
            message = "systemd-boot finds its EFI system partition in a GPT only"
            yield ("partition-table",), message
        if self.unified_kernel_image and self.boot_loader != "systemd-boot":
            message = f"{self.boot_loader} starts none; it needs 'boot-loader: systemd-boot'"
            yield ("unified-kernel-image",), message
        given = self.size not in ("auto", "minimal")
        if given and bytes_of(self.size) > DISK_LIMIT:
            message = (
                "a disk has at most 1024G; with 'grow: true' it grows to a larger disk at boot"
            )
            yield ("size",), message
        if given and self.swap != "none" and bytes_of(self.swap) >= bytes_of(self.size):
            yield ("swap",), f"a disk of {self.size} has no room for {self.swap} of it"
        own = {"/", *(volume.mount for volume in self._loader().volumes())}
        for index, mount in enumerate(self.mounts):
            yield from ((("mounts", index, *place), why) for place, why in mount.faults(own))
            if self.swap != "none" and mount.what == SWAP_FILE:
                yield ("mounts", index), f"the option 'swap' makes {SWAP_FILE}; leave the line out"
        where = ((("mounts", i), m.where) for i, m in enumerate(self.mounts) if m.where != "none")
        yield from repeated("the mount point", where)
        spaces = ((("mounts", i), m.what) for i, m in enumerate(self.mounts) if m.where == "none")
        yield from repeated("the swap space", ((place, what) for place, what in spaces if what))
        for index, name in enumerate(self.formats):
            if name in self.formats[:index]:
                yield ("formats", index), f"'{name}' is named twice"
        yield from self._faults_of_bootc()
        if self.compress != "none" and not {"raw", "qcow2"} & set(self.formats):
            yield ("compress",), "it compresses only the formats raw and qcow2"

    def _faults_of_bootc(self) -> Iterator[tuple[Place, str]]:
        if self.installer != "bootc":
            if self.bootc is not None:
                yield ("bootc",), "the options are those of 'installer: bootc'"
            return
        if self.bootc is None:
            yield ("installer",), "write 'bootc: {target-imgref: IMAGE}', too"
        if self.boot_loader not in LOADERS:
            message = f"bootc installs no {self.boot_loader}; write 'grub'"
            yield ("boot-loader",), message
        if self.size == "minimal":
            yield ("size",), "only bootc knows how much it will write"
        unknown = {
            "swap": self.swap != "none", "first-boot": self.first_boot, "grow": self.grow,
            "mounts": bool(self.mounts), "unified-kernel-image": self.unified_kernel_image,
        }  # fmt: skip
        for key in (key for key, given in unknown.items() if given):
            yield (key,), "'installer: bootc' leaves it to the image"

    def refusal(self, firmware: BootFirmware, architecture: Architecture = AMD64) -> str | None:
        """The reason why the image cannot boot under `firmware`; None if it can."""
        if firmware not in architecture.image.firmwares:
            known = " and ".join(architecture.image.firmwares)
            return f"machines of {architecture.name} have {known}, no {firmware}"
        if firmware not in FIRMWARES[self.boot_loader]:
            served = " and ".join(FIRMWARES[self.boot_loader])
            return f"{self.boot_loader} starts from {served}, not from {firmware}"
        if firmware == "uefi-secure" and self.unified_kernel_image:
            return "a unified kernel image is not signed, and Secure Boot refuses it"
        return None

    def firmwares_on(self, architecture: Architecture) -> tuple[BootFirmware, ...]:
        """The firmwares that start the image, without Secure Boot, which needs more packages."""
        served = [f for f in FIRMWARES[self.boot_loader] if f in architecture.image.firmwares]
        return tuple(f for f in served if f != "uefi-secure")

    def obstacles(self, architecture: Architecture) -> Iterator[tuple[Place, str, str]]:
        """The options with which no machine boots: the place, the reason, and what to do."""
        if not self.firmwares_on(architecture):
            known = " and ".join(architecture.image.firmwares)
            served = " and ".join(FIRMWARES[self.boot_loader])
            why = f"{self.boot_loader} starts from {served}, and {architecture.name} has {known}"
            yield ("boot-loader",), why, "write 'systemd-boot' or 'grub', and install its package"
        if self.partition_table == "msdos" and "bios" not in architecture.image.firmwares:
            why = f"a machine of {architecture.name} starts from UEFI, which wants a GPT"
            yield ("partition-table",), why, "write 'gpt', or leave it out"

    def boot_needs(self, architecture: Architecture) -> Iterator[Need]:
        yield boot.kernel_need(architecture)
        yield boot.init_need()
        if self.installer != "bootc":
            yield from self._loader(architecture).needs()

    def needs(self) -> Iterator[Need]:
        if self.installer == "bootc":
            yield installer.need()
            yield from copied.package_needs(self.file_system)
            return
        yield from copied.package_needs(self.file_system)
        if self.grow:
            yield growth.need(self.partition_table)
        if self.first_boot:
            yield first_boots.need()
        for index, mount in enumerate(self.mounts):
            yield from needs.mount(mount.type or "", mount.where, "mounts", index, "type")

    def rewrites(self) -> Iterator[tuple[str, str]]:
        if self.installer != "bootc":
            yield fstab.PATH, "name the mounts in the option 'mounts' of the stage"
            yield from self._loader().rewrites()
        if self.file_system != "ext4":
            yield from kernels.rewrites()
        if self.swap != "none":
            yield SWAP_FILE, "leave it out: the option 'swap' makes it"
        if self.grow:
            yield from growth.rewrites(self.partition_table)
        if self.first_boot:
            yield from first_boots.rewrites()
        yield from generalize.rewrites()

    def signed_needs(self, architecture: Architecture) -> Iterator[Need]:
        """The additional needs of an image for Secure Boot."""
        yield from self._loader(architecture).signed_needs()

    def run(self, target: Target) -> None:
        if self.bootc is not None:
            copied.check(target, self.file_system)
            parts = self._parts(self._loader(target.architecture), target.architecture)
            disk = InstalledDisk(self.partition_table, self.size, parts, self.boot_loader)
            installer.install(target, self.bootc, disk)
            return
        if (record := CommitRecord.read(target)) is not None:
            self._deploy_all(target, record)
            return
        loader, ids = self._loader(target.architecture), Identifiers(target)
        kernel = boot.newest_kernel(target)
        check_mount_points(target, loader.volumes())
        self._check(target, loader)
        copied.prepare_initramfs(target, self.file_system, kernel.version)
        generalize.run(target, first_boot=self.first_boot)
        parts = self._parts(loader, target.architecture)
        FileSystemTable(list(self._file_systems(parts, ids)), self.mounts).write(target)
        if self.grow:
            growth.set_up(target, self.partition_table)
        line = boot.command_line(target, ids["root file system"])
        loader.prepare(target, self._booting(kernel, line, parts, ids))
        # The bind mount shows the tree without the mounts that the chroot needs.
        with target.mounted(target.root, "--bind") as tree:
            generalize.empty(tree)
            self._write(Writer(target, self._layout, parts, ids), tree, loader)

    def _deploy_all(self, target: Target, record: CommitRecord) -> None:
        """Writes the disk of the commit, and what the host needs to test an update to it."""
        if disks.is_attached("parent"):
            self._deploy(target, record.of_parent(), archive(target), "parent")
        made = OstreeRepository(target, workshop(target) / "repository")
        self._deploy(target, record, made, "output")
        publication.write(target, record)

    def _deploy(
        self, target: Target, record: CommitRecord, source: OstreeRepository, disk: OutputName
    ) -> None:
        """Writes a disk that boots a commit."""
        loader = DeploymentGrub(self.partition_table, target.architecture)
        ids, parts = Identifiers(target), self._parts(loader, target.architecture)
        loader.check(target)
        if self.grow:
            growth.check(target, self.partition_table)
        line = boot.command_line(target, ids["root file system"], writable=True)
        line = boot_counting.arguments(line)
        kernel = InstalledKernel(record.kernel, "", "")
        loader.prepare(target, self._booting(kernel, line, parts, ids))
        # The parent's disk is made of the archive, which has the new commit only afterwards.
        beside = publication.collecting(target, record) if disk == "output" else nullcontext()
        with beside:
            system = sysroot.make(target, record, source, line.split(), disk)
            system.take_boot_files(target)
            self._complete(system.deployment, parts, ids)
            swap_file = f"{system.stateroot}{DEPLOYED_SWAP_FILE}"
            layout = replace(self._layout, for_updates=True, swap_file=swap_file)
            files = (system.immutable,)
            writer = Writer(system.disk, layout, parts, ids, disk=disk, immutable=files)
            self._write(writer, system.disk.root, loader)

    def _complete(self, deployment: Target, parts: Sequence[Volume], ids: Identifiers) -> None:
        """Writes the files of the deployment that depend on its disk."""
        listed = self._file_systems(parts, ids, swap_file=DEPLOYED_SWAP_FILE)
        own = [line for line in listed if line.where != "/"]
        FileSystemTable(own, self.mounts).write(deployment, points=False)
        if self.grow:
            growth.set_up_deployment(deployment, self.partition_table)

    def _write(self, writer: Writer, tree: Path, loader: BootLoader) -> None:
        writer.take(tree)
        writer.fill()
        writer.install(loader)
        writer.report_finished()

    def _parts(self, loader: BootLoader, architecture: Architecture) -> list[Volume]:
        parts = [*loader.volumes(), Volume("root", self.file_system, "/")]
        if "bios" in self.firmwares_on(architecture) and not any(part.active for part in parts):
            parts[-1] = replace(parts[-1], active=True)
        return parts

    def _loader(self, architecture: Architecture = AMD64) -> BootLoader:
        if self.boot_loader == "grub":
            return Grub(self.partition_table, architecture)
        if self.boot_loader == "systemd-boot":
            return SystemdBoot(self.unified_kernel_image, architecture)
        return Extlinux(self.partition_table, separate=self.file_system != "ext4")

    @property
    def _layout(self) -> DiskLayout:
        return DiskLayout(
            table=self.partition_table,
            file_system=self.file_system,
            size=self.size,
            swap=0 if self.swap == "none" else bytes_of(self.swap),
            for_extlinux=self.boot_loader == "extlinux",
        )

    def _check(self, target: Target, loader: BootLoader) -> None:
        """Raises StageError that names a package that the image lacks, before the work begins."""
        loader.check(target)
        copied.check(target, self.file_system)
        if self.grow:
            growth.check(target, self.partition_table)

    def _booting(
        self, kernel: InstalledKernel, line: str, parts: Sequence[Volume], ids: Identifiers
    ) -> Booting:
        separate = parts[0].name == "boot"
        return Booting(
            kernel=kernel,
            command_line=line,
            boot_uuid=ids["boot file system" if separate else "root file system"],
            file_system=self.file_system,
        )

    def _file_systems(
        self, parts: Sequence[Volume], ids: Identifiers, *, swap_file: str = SWAP_FILE
    ) -> Iterator[FstabLine]:
        """The lines of fstab(5) for the disk's own file systems and the swap file."""
        for part in sorted(parts, key=lambda part: part.mount):
            if part.mount:
                grows = part.mount == "/" and self.grow
                what = f"{part.name} file system"
                uuid = vfat.uuid_of(ids.short(what)) if part.kind == "vfat" else ids[what]
                options = (growth.MOUNT_OPTION,) if grows else ()
                yield own_line(f"UUID={uuid}", part.mount, part.kind, *options)
        if self.swap != "none":
            yield FstabLine(swap_file, "none", "swap", ())
