"""The contents of disks and partitions in words for people, by libblkid's names (TYPE)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """A kind of content: what it is, and what to do with a disk that holds only this.

    `sealed` is true for a container whose content is not read.
    """

    words: str
    advice: str
    sealed: bool = False


CONTENTS = {
    "crypto_LUKS": Content(
        "a LUKS container (encrypted)",
        "Open it with 'cryptsetup open' and its key, and copy the disk that it holds.",
        sealed=True,
    ),
    "BitLocker": Content(
        "a BitLocker volume (encrypted by Windows)",
        "Open it with 'cryptsetup open --type bitlk' and its key, and copy what it holds.",
        sealed=True,
    ),
    "LVM2_member": Content(
        "a physical volume of LVM",
        "Activate its volume group with 'vgchange -ay', and copy the volume that is wanted.",
        sealed=True,
    ),
    "linux_raid_member": Content(
        "a member of a RAID array (mdadm)",
        "Assemble the array with 'mdadm --assemble', and copy the array.",
        sealed=True,
    ),
    "zfs_member": Content("a member of a ZFS pool", "Import the pool, and copy it.", sealed=True),
    "bcache": Content(
        "a device of bcache", "Register it with the kernel, and copy the device.", sealed=True
    ),
    "swap": Content("swap space", "It holds no files: name the disk with the system."),
    "swsuspend": Content(
        "the saved memory of a system that hibernates", "Name the disk with the system."
    ),
    "squashfs": Content(
        "a squashfs file system (read-only)",
        "For a base image, unpack it with unsquashfs(1) and pack the files with tar(1).",
    ),
    "erofs": Content(
        "an EROFS file system (read-only)",
        "For a base image, unpack it with 'fsck.erofs --extract' and pack the files with tar(1).",
    ),
    "iso9660": Content(
        "an ISO 9660 file system (the content of a CD)",
        "It starts from a CD drive only; a hybrid image would also start as a disk.",
    ),
    "udf": Content(
        "a UDF file system (the content of a DVD)", "Name the image of a disk with a system."
    ),
}
SEALED = frozenset(kind for kind, content in CONTENTS.items() if content.sealed)
A_FILE_SYSTEM = "Put it into a partition of a disk with a boot loader, as the stage 'qemu' does."


def content_of(kind: str) -> Content:
    """The content of a kind of libblkid's; a kind without an entry is a file system."""
    return CONTENTS.get(kind) or Content(f"the file system {kind}", A_FILE_SYSTEM)
