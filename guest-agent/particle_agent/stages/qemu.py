"""The bootable disk."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from particle_agent import generalize, kernels
from particle_agent.checksum import tree_sha256
from particle_agent.errors import StageError
from particle_agent.options import AtLeastOne, DiskSize, StageOptions, bytes_of
from particle_agent.target import Target

MIB = 1 << 20
BLOCK = 4096
# UEFI specification, 5.3, and the Discoverable Partitions Specification: "root on x86-64".
LINUX_ROOT_X86_64 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
# What extlinux(1) installs in its directory.
EXTLINUX_FILES = ("ldlinux.sys", "ldlinux.c32")
MBR_CODE_BYTES = 440
# COMMAND_LINE_SIZE of x86, with the NUL.
COMMAND_LINE_LIMIT = 2047
# dumpe2fs(8), for each group of blocks: "  Free blocks: 9234-32767, 32770".
FREE_BLOCKS = re.compile(r"^  Free blocks: (.+)$", re.MULTILINE)
FREE_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
# The name space of the identifiers of reproducible images.
IDENTIFIERS = uuid.UUID("8c1f2b6e-52a3-4c0e-9d1c-5d3f0c6f7a11")
GPT_MBR = Path("/usr/lib/syslinux/mbr/gptmbr.bin")


@dataclass(frozen=True, kw_only=True)
class Qemu(StageOptions):
    """Writes the system to a bootable disk: GPT, one ext4 partition, a boot loader for BIOS.

    The last stage of a recipe that makes an image. It also takes out what must differ between
    machines (machine-id, SSH host keys, random seed) and what the build left behind.
    """

    uses_name: ClassVar[bool] = True
    type: Literal["qemu"] = "qemu"
    formats: Annotated[tuple[Literal["raw", "qcow2"], ...], AtLeastOne()] = ("raw",)
    """The image files to make; qcow2 is converted on the host from the verified raw disk."""
    size: DiskSize = "auto"
    """The disk's size; auto is the content plus a quarter and 96 MiB."""
    bootloader: Literal["extlinux"] = "extlinux"
    """The boot loader; extlinux starts from BIOS."""

    def run(self, target: Target) -> None:
        kernel, initrd = _kernel(target)
        root_uuid = _identifier(target, "root file system")
        generalize.run(target)
        target.write("/etc/fstab", f"UUID={root_uuid} / ext4 errors=remount-ro 0 1\n")
        target.make_directory("/boot/extlinux")
        command_line = _command_line(target, root_uuid)
        target.write("/boot/extlinux/extlinux.conf", _menu(kernel, initrd, command_line))
        # Without the mounts that the chroot needs, just the tree.
        with target.mounted(target.root, "--bind") as tree:
            generalize.empty(tree)
            if target.source_date is not None:
                _clamp_times(tree, target.source_date)
            content, inodes = _measure(tree)
            size = _size(self.size, content)
            disk = target.output_disk(size, content=content)
            _partition(target, disk)
            partition = Path(f"{disk}1")
            _make_file_system(target, partition, tree, root_uuid, inodes)
        with target.mounted(partition, "-o", "noatime,noinit_itable") as mounted:
            target.run(["extlinux", "--install", str(mounted / "boot/extlinux")])
        if target.source_date is not None:
            _forget_mount(target, partition, target.source_date)
        # Only now: a journal would keep the traces of that mount.
        target.run(["tune2fs", "-O", "has_journal", str(partition)])
        _write_boot_code(disk)
        target.run(["sync"])
        with target.timings.part("checksum of the disk"):
            checksum = tree_sha256(disk, size, _unused(target, partition))
        target.reporter.disk_written(size, checksum)


def _kernel(target: Target) -> tuple[str, str]:
    """The kernel and initramfs to boot, as paths of the image.

    Debian keeps the links /vmlinuz and /initrd.img at the newest kernel (linux-update-symlinks),
    so that an upgrade in the running image needs no new boot loader menu.
    """
    if target.exists("/vmlinuz") and target.exists("/initrd.img"):
        return "/vmlinuz", "/initrd.img"
    versions = [
        n.removeprefix("vmlinuz-") for n in target.list("/boot") if n.startswith("vmlinuz-")
    ]
    if not versions:
        raise StageError(
            "the image has no kernel in /boot",
            hint="Add 'linux-image-cloud-amd64' (for virtual machines) or 'linux-image-amd64' to "
            "the packages of an apt stage.",
        )
    version = versions[-1]
    if not target.exists(f"/boot/initrd.img-{version}"):
        raise StageError(
            f"the image has no initramfs for its kernel {version}",
            hint="Add 'initramfs-tools' to the packages of an apt stage.",
        )
    return f"/boot/vmlinuz-{version}", f"/boot/initrd.img-{version}"


def _command_line(target: Target, root_uuid: str) -> str:
    """The kernel's command line; of several consoles, the last one becomes /dev/console."""
    words = [f"root=UUID={root_uuid}", "ro", "console=tty0", "console=ttyS0,115200"]
    words += [word for word in kernels.command_line(target) if word not in words]
    line = " ".join(words)
    if len(line) > COMMAND_LINE_LIMIT:
        raise StageError(
            f"the kernel's command line has {len(line)} characters; the limit is "
            f"{COMMAND_LINE_LIMIT}"
        )
    if target.exists(kernels.COMMAND_LINE):
        # For a boot loader that is installed later.
        target.write(kernels.COMMAND_LINE, f"{line}\n")
    return line


def _menu(kernel: str, initrd: str, command_line: str) -> str:
    """extlinux.conf; see https://wiki.syslinux.org/wiki/index.php?title=Config."""
    return (
        "SERIAL 0 115200\nPROMPT 0\nTIMEOUT 10\nDEFAULT linux\n\n"
        f"LABEL linux\n  LINUX {kernel}\n  INITRD {initrd}\n"
        f"  APPEND {command_line}\n"
    )


def _identifier(target: Target, what: str) -> str:
    """A UUID: random, or the same in each build that is to be reproducible."""
    if target.source_date is None:
        return str(uuid.uuid4())
    return str(uuid.uuid5(IDENTIFIERS, f"{target.hostname} {target.source_date} {what}"))


def _clamp_times(tree: Path, latest: int) -> None:
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


def _size(wanted: str, content: int) -> int:
    """The disk's size in bytes. Raises StageError when the wanted one is too small."""
    # Inode tables take 1/64; the journal at most 64 MiB at these sizes.
    least = (content + content // 16 + 68 * MIB) // MIB + 1
    if wanted == "auto":
        return max(least, (content + content // 4) // MIB + 96) * MIB
    size = bytes_of(wanted)
    if size < least * MIB:
        raise StageError(
            f"size {wanted} is too small: the system holds {content // MIB} MiB and needs a disk "
            f"of at least {least} MiB",
            hint=f"Write 'size: {least}M' or more, or 'size: auto'.",
        )
    return size


def _partition(target: Target, disk: Path) -> None:
    table = (
        f"label: gpt\nlabel-id: {_identifier(target, 'disk')}\n"
        f"start=1MiB, type={LINUX_ROOT_X86_64}, uuid={_identifier(target, 'partition')}, "
        'name="root", attrs=LegacyBIOSBootable\n'
    )
    target.run(["sfdisk", "--quiet", "--wipe=always", str(disk)], stdin=table)


def _make_file_system(
    target: Target, partition: Path, tree: Path, root_uuid: str, inodes: int
) -> None:
    sectors = int(Path("/sys/class/block", partition.name, "size").read_text())
    count = max(sectors * 512 // 16384, inodes * 5 // 4)
    # extlinux reads the file system itself; it does not know the newest features.
    target.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^64bit,^metadata_csum,^orphan_file"]
        + ["-m", "1"]
        + ["-b", str(BLOCK), "-N", str(count), "-L", "root", "-U", root_uuid]
        + ["-E", f"root_owner=0:0,lazy_itable_init=1,hash_seed={_identifier(target, 'hash seed')}"]
        + ["-d", str(tree), str(partition)]
    )


def _forget_mount(target: Target, partition: Path, date: int) -> None:
    """Takes out of an ext4 file system when and how often it was mounted for extlinux."""
    script = [
        *(f"set_super_value {field} @{date}" for field in ("mtime", "wtime", "lastcheck")),
        *(f"set_super_value {field} 0" for field in ("mnt_count", "kbytes_written")),
    ]
    for path in ("/boot/extlinux", *(f"/boot/extlinux/{name}" for name in EXTLINUX_FILES)):
        for field in ("atime", "ctime", "mtime", "crtime"):
            script.append(f"set_inode_field {path} {field} @{date}")
            script.append(f"set_inode_field {path} {field}_extra 0")
        for field in ("generation", "version"):
            script.append(f"set_inode_field {path} {field} 0")
    target.run(["debugfs", "-w", "-f", "-", str(partition)], stdin="\n".join(script) + "\n")


def _unused(target: Target, partition: Path) -> list[tuple[int, int]]:
    """The ranges of the disk, in bytes, that a new file system has not used: they are zero.

    The host compares the checksum with what it has there, so a wrong range would not go unnoticed.
    """
    start = int(Path("/sys/class/block", partition.name, "start").read_text()) * 512
    ranges: list[list[int]] = []
    for line in FREE_BLOCKS.findall(target.capture_outside(["dumpe2fs", str(partition)])):
        for first, last in FREE_RANGE.findall(line):
            begin, end = int(first) * BLOCK, (int(last or first) + 1) * BLOCK
            if ranges and ranges[-1][1] == begin:
                ranges[-1][1] = end
            else:
                ranges.append([begin, end])
    return [(start + begin, start + end) for begin, end in ranges]


def _write_boot_code(disk: Path) -> None:
    code = GPT_MBR.read_bytes()
    if len(code) > MBR_CODE_BYTES:
        raise StageError(f"{GPT_MBR} has {len(code)} bytes; a master boot record holds 440")
    with disk.open("r+b") as file:
        file.write(code)
