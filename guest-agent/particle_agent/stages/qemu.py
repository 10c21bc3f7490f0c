"""The bootable disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from particle_agent import generalize
from particle_agent.checksum import tree_sha256
from particle_agent.disk import boot, copied, ext4, growth, vfat, volumes
from particle_agent.disk.boot import Booting, BootLoader
from particle_agent.disk.extlinux import DIRECTORY, Extlinux
from particle_agent.disk.grub import Grub
from particle_agent.disk.identity import Identifiers
from particle_agent.disk.systemd_boot import SystemdBoot
from particle_agent.disk.volumes import Volume
from particle_agent.options import AtLeastOne, DiskSize, StageOptions, SwapSize, bytes_of
from particle_agent.target import Target

BLOCK = 4096
SWAP_FILE = "/swapfile"
# An MBR counts sectors of 512 bytes in 32 bits.
MSDOS_LIMIT = 2 << 40
Firmware = Literal["bios", "uefi", "uefi-secure"]
Format = Literal["raw", "qcow2", "vmdk", "vdi", "vhd"]
# The firmwares that start a boot loader, those of the boot test first.
FIRMWARES: dict[str, tuple[Firmware, ...]] = {
    "extlinux": ("bios",),
    "grub": ("bios", "uefi", "uefi-secure"),
    "systemd-boot": ("uefi", "uefi-secure"),
}
# Options of fstab(5) and the order of fsck(8).
MOUNT_OPTIONS = {
    "ext4": ("errors=remount-ro", 1),
    "xfs": ("defaults", 0),
    "btrfs": ("defaults", 0),
    "vfat": ("umask=0077", 2),
}


@dataclass(frozen=True, kw_only=True)
class Qemu(StageOptions):
    """Writes the system to a bootable disk: partitions, file systems, a boot loader.

    The last stage of a recipe that makes an image. It also takes out what must differ between
    machines (machine-id, SSH host keys, random seed) and what the build left behind.
    """

    uses_name: ClassVar[bool] = True
    type: Literal["qemu"] = "qemu"
    formats: Annotated[tuple[Format, ...], AtLeastOne()] = ("raw",)
    """The image files to make; all are converted on the host from the verified raw disk."""
    compress: Literal["none", "zstd"] = "none"
    """With zstd, a qcow2 image is compressed within, and the raw disk becomes NAME.raw.zst."""
    size: DiskSize = "auto"
    """The disk's size; auto is the content plus a quarter and 96 MiB, minimal as small as the
    file system goes."""
    boot_loader: Literal["extlinux", "grub", "systemd-boot"] = "extlinux"
    """The boot loader: extlinux starts from BIOS, grub from BIOS and UEFI, systemd-boot from
    UEFI."""
    unified_kernel_image: bool = False
    """Whether systemd-boot starts kernel, initramfs and command line as one program."""
    partition_table: Literal["gpt", "msdos"] = "gpt"
    """The partition table."""
    file_system: Literal["ext4", "xfs", "btrfs"] = "ext4"
    """The root file system."""
    swap: SwapSize = "none"
    """The size of a swap file."""
    grow: bool = False
    """Whether the root file system grows at boot when the disk has become larger."""

    def __post_init__(self) -> None:
        if self.boot_loader == "systemd-boot" and self.partition_table == "msdos":
            raise ValueError(
                "partition-table: systemd-boot finds its EFI system partition in a GPT only"
            )
        if self.unified_kernel_image and self.boot_loader != "systemd-boot":
            raise ValueError(
                f"unified-kernel-image: {self.boot_loader} starts none; it needs "
                "'boot-loader: systemd-boot'"
            )
        given = self.size not in ("auto", "minimal")
        if given and self.partition_table == "msdos" and bytes_of(self.size) > MSDOS_LIMIT:
            raise ValueError("size: the partition table msdos ends at 2 TiB; gpt does not")
        if self.compress != "none" and not {"raw", "qcow2"} & set(self.formats):
            raise ValueError("compress: only the formats raw and qcow2 are compressed by it")

    def refusal(self, firmware: Firmware) -> str | None:
        """Why the image cannot boot under `firmware`, if it cannot."""
        if firmware not in FIRMWARES[self.boot_loader]:
            served = " and ".join(FIRMWARES[self.boot_loader])
            return f"{self.boot_loader} starts from {served}, not from {firmware}"
        if firmware == "uefi-secure" and self.unified_kernel_image:
            return "a unified kernel image is not signed, and Secure Boot refuses it"
        return None

    @property
    def firmwares(self) -> tuple[Firmware, ...]:
        """The firmwares under which the image boots; but for Secure Boot, which needs packages."""
        return tuple(f for f in FIRMWARES[self.boot_loader] if f != "uefi-secure")

    def run(self, target: Target) -> None:
        loader, ids = self._loader(), Identifiers(target)
        kernel = boot.newest_kernel(target)
        self._check(target, loader)
        copied.prepare_initramfs(target, self.file_system, kernel.version)
        generalize.run(target)
        parts = [*loader.volumes(), Volume("root", self.file_system, "/")]
        if not any(part.active for part in parts):
            parts[-1] = replace(parts[-1], active=True)
        target.write("/etc/fstab", self._mounts(parts, ids))
        if self.grow:
            growth.set_up(target, self.partition_table)
        separate = parts[0].name == "boot"
        booting = Booting(
            kernel=kernel,
            command_line=boot.command_line(target, ids["root file system"]),
            boot_uuid=ids["boot file system" if separate else "root file system"],
            separate=separate,
            table=self.partition_table,
            file_system=self.file_system,
        )
        loader.prepare(target, booting)
        # Without the mounts that the chroot needs, just the tree.
        with target.mounted(target.root, "--bind") as tree:
            generalize.empty(tree)
            trees = _split(target, parts, tree)
            parts = [self._measured(target, part, trees) for part in parts]
            self._make_swap(target, ids)
            if target.source_date is not None:
                _clamp_times(trees.values(), target.source_date)
            disk, parts = self._fill(target, parts, trees, ids)
        self._install(target, loader, disk, parts)
        self._tell(target, disk, parts)

    def _loader(self) -> BootLoader:
        if self.boot_loader == "grub":
            return Grub(self.partition_table)
        if self.boot_loader == "systemd-boot":
            return SystemdBoot(self.unified_kernel_image)
        return Extlinux(self.partition_table, separate=self.file_system != "ext4")

    @property
    def _swap_bytes(self) -> int:
        return 0 if self.swap == "none" else bytes_of(self.swap)

    def _check(self, target: Target, loader: BootLoader) -> None:
        """Raises StageError naming the package that the image lacks, before the work begins."""
        loader.check(target)
        copied.check(target, self.file_system)
        if self.grow:
            growth.check(target, self.partition_table)

    def _mounts(self, parts: Sequence[Volume], ids: Identifiers) -> str:
        """fstab(5)."""
        lines = []
        for part in sorted(parts, key=lambda part: part.mount):
            if not part.mount:
                continue
            options, order = MOUNT_OPTIONS[part.kind]
            if part.mount == "/" and self.grow:
                options = f"{options},{growth.MOUNT_OPTION}"
            elif part.kind == "ext4" and part.mount != "/":
                order = 2
            uuid = ids[f"{part.name} file system"]
            if part.kind == "vfat":
                uuid = vfat.uuid_of(ids.short("esp file system"))
            lines.append(f"UUID={uuid} {part.mount} {part.kind} {options} 0 {order}\n")
        if self._swap_bytes:
            lines.append(f"{SWAP_FILE} none swap defaults 0 0\n")
        return "".join(lines)

    def _measured(self, target: Target, part: Volume, trees: dict[str, Path]) -> Volume:
        if part.name not in trees:
            return part
        content, inodes = _measure(trees[part.name])
        if part.name == "root":
            content += self._swap_bytes
        return replace(part, content=content, inodes=inodes)

    def _make_swap(self, target: Target, ids: Identifiers) -> None:
        """In ext4, the swap file is one of the tree that gets its blocks later."""
        if not self._swap_bytes or self.file_system != "ext4":
            return
        place = target.path(SWAP_FILE, follow=False)
        target.write(SWAP_FILE, "", mode=0o600)
        os.truncate(place, self._swap_bytes)
        target.run(["mkswap", "-q", "-U", ids["swap"], str(place)])

    def _fill(
        self, target: Target, parts: list[Volume], trees: dict[str, Path], ids: Identifiers
    ) -> tuple[Path, list[Volume]]:
        """The disk with its file systems, and the partitions with their sizes."""
        parts = volumes.sized(parts, self.size)
        content = sum(part.content for part in parts) - self._swap_bytes
        disk = target.output_disk(volumes.disk_size(parts), content=content)
        volumes.partition(target, disk, self.partition_table, parts, ids)
        for part in parts:
            if part.name in trees:
                device = volumes.node(disk, parts, part.name)
                self._make_file_system(target, part, device, trees[part.name], ids)
        if self.size == "minimal" and self.file_system == "ext4":
            least = ext4.shrink(target, volumes.node(disk, parts, "root"))
            parts[-1] = replace(parts[-1], size=least)
            disk = target.output_disk(volumes.disk_size(parts), content=content)
            volumes.partition(target, disk, self.partition_table, parts, ids)
        return disk, parts

    def _make_file_system(
        self, target: Target, part: Volume, device: Path, tree: Path, ids: Identifiers
    ) -> None:
        uuid = ids[f"{part.name} file system"]
        if part.kind == "vfat":
            vfat.make(target, device, tree, label="ESP", serial=ids.short("esp file system"))
        elif part.kind == "ext4":
            ext4.make(
                target,
                device,
                tree,
                label=part.name,
                uuid=uuid,
                hash_seed=ids[f"hash seed {part.name}"],
                size=part.size,
                inodes=part.inodes,
                for_extlinux=self.boot_loader == "extlinux",
            )
            if part.name == "root" and self._swap_bytes:
                ext4.allocate(target, device, SWAP_FILE, self._swap_bytes)
        elif part.kind in ("xfs", "btrfs"):
            swap = (self._swap_bytes, ids["swap"])
            copied.make(target, part.kind, device, tree, label=part.name, uuid=uuid, swap=swap)

    def _install(self, target: Target, loader: BootLoader, disk: Path, parts: list[Volume]) -> None:
        files = loader.install(target, disk, parts)
        for part in parts:
            if part.kind == "ext4":
                device = volumes.node(disk, parts, part.name)
                if files and part.active and target.source_date is not None:
                    directory = DIRECTORY.removeprefix("/boot" if part.name == "boot" else "")
                    ext4.forget(target, device, target.source_date, files, directory)
                ext4.add_journal(target, device, small=self.size == "minimal")
        loader.write_boot_code(target, disk, parts)
        target.run(["sync"])

    def _tell(self, target: Target, disk: Path, parts: Sequence[Volume]) -> None:
        """Tells the host the size and the checksum of the finished disk."""
        size = volumes.disk_size(parts)
        unused: list[tuple[int, int]] = []
        for part in parts:
            # What was moved to shrink a file system has left its traces.
            if part.kind == "ext4" and self.size != "minimal":
                device = volumes.node(disk, parts, part.name)
                unused += ext4.unused(target, device, volumes.start_of(parts, part.name))
        with target.timings.part("checksum of the disk"):
            checksum = tree_sha256(disk, size, unused)
        target.reporter.disk_written(size, checksum)


def _split(target: Target, parts: Sequence[Volume], tree: Path) -> dict[str, Path]:
    """The directory that each file system is made from; those of partitions are taken out."""
    trees = {"root": tree}
    for part in parts:
        if part.mount not in ("", "/"):
            target.make_directory(part.mount)
            place = target.path(part.mount)
            trees[part.name] = target.root.parent / f"particle-os-{part.name}"
            # Within one mount: `tree` is another.
            place.rename(trees[part.name])
            target.make_directory(part.mount)
    return trees


def _clamp_times(trees: Iterable[Path], latest: int) -> None:
    for tree in trees:
        for directory, _, files in os.walk(tree):
            for name in ("", *files):
                generalize.clamp_time(Path(directory, name), latest)


def _measure(tree: Path) -> tuple[int, int]:
    """The bytes that the tree takes in whole blocks, and its number of inodes."""
    seen: set[int] = set()
    blocks = 0
    for directory, directories, files in os.walk(tree):
        # What a directory takes here depends on what was in it once.
        entries = sum(12 + len(os.fsencode(name)) for name in (*directories, *files))
        blocks += 1 + entries // BLOCK
        seen.add(os.lstat(directory).st_ino)
        for name in files:
            status = os.lstat(os.path.join(directory, name))
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                blocks += max(1, -(-status.st_size // BLOCK))
    return blocks * BLOCK, len(seen)
