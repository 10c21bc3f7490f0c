"""Names what an image holds when nothing boots from it: a container, a CD, another file.

The host compares the first bytes of the disk with signatures, and follows nothing that they say.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from particle_agent.contract.contents import content_of

from particle_os.architecture import AMD64, ARCHITECTURES, Architecture
from particle_os.boot.observation.verdict import BootStatus, Outcome
from particle_os.errors import InfrastructureError
from particle_os.system import process
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular
from particle_os.vm.argv import ImageFormat, image_options
from particle_os.vm.firmware import Firmware

# The signatures of libblkid's kinds, with their offsets (libblkid/src/superblocks of util-linux).
SIGNATURES = (
    ("crypto_LUKS", 0, b"LUKS\xba\xbe"),
    ("BitLocker", 3, b"-FVE-FS-"),
    ("LVM2_member", 512, b"LABELONE"),
    ("LVM2_member", 0, b"LABELONE"),
    ("squashfs", 0, b"hsqs"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("iso9660", 32769, b"CD001"),
    ("btrfs", 65600, b"_BHRfS_M"),
    ("xfs", 0, b"XFSB"),
    ("ext4", 1080, b"\x53\xef"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
)
HEAD_BYTES = 68 << 10
GPT, BOOT_SIGNATURE, BOOT_SIGNATURE_PLACE = b"EFI PART", b"\x55\xaa", 510
# UEFI specification 2.10, 5.2 and 5.3: the code of an MBR, the type of the EFI System Partition in
# an MBR and in a GPT, and the place of the GPT's entries.
BOOT_CODE_BYTES, ESP_OF_MBR, GPT_ENTRIES = 440, 0xEF, slice(1024, 1024 + 128 * 128)
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le
ONLY_UEFI = (
    "the disk has no boot code for BIOS, but an EFI System Partition: boot it under UEFI "
    "(--firmware uefi)"
)
READ_SECONDS = 30.0
# The outcomes of an image whose disk holds nothing that starts.
NOTHING_STARTS: tuple[BootStatus, ...] = ("no-bootable-device", "boot-loader-failed")


def explain(
    outcome: Outcome, image: Path, driver: ImageFormat, directory: Path, firmware: Firmware
) -> Outcome:
    """Adds what the image holds to the outcome of a disk from which nothing has started.

    Temporary files go to `directory`.
    """
    status, message = outcome
    if status not in NOTHING_STARTS:
        return outcome
    head = _head(image, driver, directory)
    words = ONLY_UEFI if firmware == "bios" and _needs_uefi(head) else description(head)
    return status, f"{message}; {words}" if words else message


def description(head: bytes) -> str:
    """The content of a disk that begins with `head`, and advice; empty for a usual disk."""
    if not head or head[512:].startswith(GPT):
        return ""
    if head[4096:].startswith(GPT):
        return (
            "its GPT is for disks with sectors of 4096 bytes, and the disk of this test has "
            "sectors of 512: make the partition table for such a disk"
        )
    if _has_partitions(head):
        return ""
    kind = next((kind for kind, at, magic in SIGNATURES if head[at:].startswith(magic)), None)
    if kind is not None:
        content = content_of(kind)
        return f"the whole image is {content.words}. {content.advice}"
    if not any(head):
        return f"nothing has been written to it: its first {len(head) >> 10} KiB are zeroes"
    if _is_boot_sector(head):
        return ""
    return "the image has no partition table: is the file an image of a disk?"


def needs_uefi(image: Path, driver: ImageFormat, directory: Path) -> bool:
    """Whether only UEFI can start the disk: it has an EFI System Partition, and no code for BIOS.

    Temporary files go to `directory`.
    """
    return _needs_uefi(_head(image, driver, directory))


def architecture(image: Path, driver: ImageFormat, directory: Path) -> Architecture | None:
    """The architecture of the disk's root partition; None if nothing in the head says it.

    Only PCs have a BIOS. Temporary files go to `directory`.
    """
    head = _head(image, driver, directory)
    if head[512:].startswith(GPT):
        entries = head[GPT_ENTRIES]
        types = {entries[place : place + 16] for place in range(0, len(entries), 128)}
        for record in ARCHITECTURES.values():
            if uuid.UUID(record.image.root_type).bytes_le in types:
                return record
    return AMD64 if _is_boot_sector(head) and any(head[:BOOT_CODE_BYTES]) else None


def _needs_uefi(head: bytes) -> bool:
    return bool(head) and not any(head[:BOOT_CODE_BYTES]) and _has_system_partition(head)


def _has_system_partition(head: bytes) -> bool:
    if head[512:].startswith(GPT):
        entries = head[GPT_ENTRIES]
        return any(entries[place:].startswith(ESP) for place in range(0, len(entries), 128))
    return _has_partitions(head) and ESP_OF_MBR in head[450:510:16]


def _is_boot_sector(head: bytes) -> bool:
    return head[BOOT_SIGNATURE_PLACE:].startswith(BOOT_SIGNATURE)


def _has_partitions(head: bytes) -> bool:
    """Whether the disk has an MBR; the boot sector of a file system has code in its place."""
    entries = [head[place : place + 16] for place in range(446, 446 + 4 * 16, 16)]
    if not _is_boot_sector(head) or any(entry[0] not in (0, 0x80) for entry in entries):
        return False
    # The partition of a hybrid image may have the type 0, but has a size.
    return any(entry[4] or any(entry[12:]) for entry in entries)


def _head(image: Path, driver: ImageFormat, directory: Path) -> bytes:
    """The first bytes of the disk in an image; empty if they cannot be read."""
    try:
        if driver == "raw":
            with open_regular(image) as file:
                return file.read(HEAD_BYTES)
        copy = directory / "head"
        process.run(
            ["qemu-img", "dd", "--image-opts", "-O", "raw", f"bs={HEAD_BYTES}", "count=1"]
            + [f"if={image_options(image, driver)}", f"of={copy}"],
            deadline=Deadline.after(READ_SECONDS, "reading the beginning of the image"),
            what="reading the beginning of the image",
            within=Confinement(reads=(image,), writes=(directory,)),
        )
        return copy.read_bytes()
    except (OSError, InfrastructureError):
        return b""
