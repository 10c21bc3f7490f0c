"""Finds the format of an image, and refuses an image that refers to other files.

An untrusted image could name any file of the host as a part of itself, and QEMU would open it.
"""

from __future__ import annotations

import os
from pathlib import Path

from particle_os.errors import InfrastructureError, UsageError
from particle_os.system import process
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular
from particle_os.vm.argv import ImageFormat, image_options

# The names for users, with QEMU's names.
FORMATS: dict[str, ImageFormat] = {
    "raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vhd": "vpc", "vpc": "vpc",
    "vhdx": "vhdx", "qcow": "qcow", "qed": "qed", "parallels": "parallels", "bochs": "bochs",
    "cloop": "cloop", "dmg": "dmg",
}  # fmt: skip
# Version 1 is a separate format, qcow (QEMU's block/qcow.c).
QCOW2, QCOW, VMDK = b"QFI\xfb", b"QFI\xfb\0\0\0\1", b"KDMV"
# The offset of each format's magic number; a fixed VHD has it only in its last sector.
MAGIC = (
    ("vmdk", 0, VMDK),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vdi", 64, b"\x7f\x10\xda\xbe"),
    ("vhd", 0, b"conectix"),
    ("vhd", -512, b"conectix"),
    ("vhdx", 0, b"vhdxfile"),
    ("qcow", 0, QCOW),
    ("qed", 0, b"QED\0"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
    ("bochs", 0, b"Bochs Virtual HD Image\0"),
    ("cloop", 0, b"#!/bin/sh\n#V2.0 Format\n"),
    ("dmg", -512, b"koly"),
)
# The place of the encryption method (docs/interop/qcow2.txt: crypt_method).
# The methods are AES and LUKS.
LAST_METHOD = 2
CRYPT_METHOD = {"qcow2": slice(32, 36), "qcow": slice(36, 40)}
COMPRESSED = (
    (b"\x28\xb5\x2f\xfd", "zstd -d"),
    (b"\x1f\x8b", "gzip -d"),
    (b"\xfd7zXZ\0", "xz -d"),
    (b"PK\3\4", "unzip"),
    (b"BZh", "bzip2 -d"),
    (b"\x04\x22\x4d\x18", "lz4 -d"),
    (b"7z\xbc\xaf\x27\x1c", "7z x"),
)
# pax(1): the place of the magic number of an archive.
TAR, TAR_PLACE = b"ustar", 257
# QEMU searches these bytes for the parent of a VMDK (block/vmdk.c: vmdk_parent_open).
DESCRIPTOR = slice(512, 512 + 20 * 512)


def image_format(path: Path, given: str | None = None) -> ImageFormat:
    """Returns the format of an image: `given`, else qcow2 by its magic number, else raw.

    Raises UsageError when `path` is no regular file, is empty or encrypted, refers to other files,
    or has the magic number of another format.
    """
    try:
        # QEMU's JSON holds no other names.
        str(path.absolute()).encode()
        head, tail = _ends(path)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the name {path} is not UTF-8, and QEMU opens no such file", hint="Rename it."
        ) from error
    except OSError as error:
        raise UsageError(
            f"the image {path} cannot be read: {error.strerror}",
            hint="Name a regular file that you can read.",
        ) from error
    if not head:
        raise UsageError(
            f"the image {path} is empty: the file has no bytes",
            hint="The program that was to write it has failed or has not ended: make it again.",
        )
    if given is not None:
        found = FORMATS[given]
        _check_given(path, given, head, tail)
    else:
        found = "qcow2" if head.startswith(QCOW2) else "raw"
        _check_raw(path, head, tail)
    method = int.from_bytes(head[CRYPT_METHOD[found]], "big") if found in CRYPT_METHOD else 0
    if method > LAST_METHOD:
        raise UsageError(
            f"the header of {path} is damaged", hint="Make or download the image again."
        )
    if method:
        raise UsageError(
            f"{path} is encrypted; a key cannot be entered during the boot",
            hint="Decrypt it with 'qemu-img convert'.",
        )
    if _refers(found, head):
        raise UsageError(
            f"{path} refers to another file; only standalone images are booted",
            hint="Flatten it with 'qemu-img convert -O qcow2'.",
        )
    return found


def foreign_format(raw: Path) -> str | None:
    """The format that a program which guesses can take a raw disk for; None for no other format.

    Raises OSError.
    """
    head, tail = _ends(raw)
    # block/vmdk.c: vmdk_probe skips comments and empty lines.
    first = next((line for line in head.split(b"\n") if line.strip(b" \r")[:1] not in b"#"), b"")
    if first.startswith(b"version="):
        return "vmdk"
    return next(
        (n for n, at, magic in (*MAGIC, ("qcow2", 0, QCOW2)) if _is_at(at, magic, head, tail)), None
    )


def _is_at(place: int, magic: bytes, head: bytes, tail: bytes) -> bool:
    return (head[place:] if place >= 0 else tail).startswith(magic)


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first bytes of a regular file, and its last sector. Raises OSError."""
    with open_regular(path) as file:
        head = file.read(DESCRIPTOR.stop)
        file.seek(-min(512, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return head, file.read(512)


def check_readable(path: Path, image_format: ImageFormat) -> None:
    """Raises UsageError when QEMU cannot open an image because its headers are damaged."""
    if image_format == "raw":
        return
    try:
        process.run(
            [
                "qemu-img",
                "info",
                "--force-share",
                "--image-opts",
                image_options(path, image_format),
            ],
            deadline=Deadline.after(30, "reading the image's headers"),
            what="reading the image's headers",
            within=Confinement(reads=(path,)),
        )
    except InfrastructureError as error:
        # Without output of qemu-img, the host is to blame.
        if not error.tail:
            raise
        raise UsageError(f"{path} is a damaged {image_format} image", tail=error.tail) from error


def _check_given(path: Path, given: str, head: bytes, tail: bytes) -> None:
    """Raises UsageError when the magic number contradicts the format `given` by the user."""
    known = [m for m in (("qcow2", 0, QCOW2), *MAGIC) if FORMATS[m[0]] == FORMATS[given]]
    found = any(_is_at(at, magic, head, tail) for _, at, magic in known)
    if (known and not found) or (given == "qcow2" and head.startswith(QCOW)):
        raise UsageError(
            f"{path} is not an image of the format {given}",
            hint="Without --format, raw and qcow2 are recognized automatically.",
        )


def _check_raw(path: Path, head: bytes, tail: bytes) -> None:
    for name, place, magic in MAGIC:
        if _is_at(place, magic, head, tail):
            raise UsageError(
                f"{path} is an image of the format {name}",
                hint=f"Use --format {name}.",
            )
    for magic, program in COMPRESSED:
        if head.startswith(magic):
            raise UsageError(f"{path} is compressed", hint=f"Decompress it first: {program} {path}")
    if head[TAR_PLACE:].startswith(TAR):
        raise UsageError(
            f"{path} is a tar archive",
            hint=f"Unpack a disk image from it: tar -xf {path}. A base image is tar:{path}.",
        )


def _refers(found: ImageFormat, head: bytes) -> bool:
    """Whether an image has a backing file or an external data file.

    Sources in QEMU: docs/interop/qcow2.txt (backing_file_offset, incompatible feature bit 2),
    block/qcow.c (equal offset), docs/interop/qed_spec.txt (feature bit 0). A VMDK without a
    capacity describes other files (block/vmdk.c: vmdk_open_vmdk4), and so does a text VMDK.
    """
    if found == "qcow2" and head.startswith(QCOW2):
        version = int.from_bytes(head[4:8], "big")
        external = version >= 3 and int.from_bytes(head[72:80], "big") & 4
        return bool(int.from_bytes(head[8:16], "big") or external)
    if found == "qcow":
        return any(head[8:16])
    if found == "qed":
        return bool(int.from_bytes(head[16:24], "little") & 1)
    if found == "vmdk":
        has_capacity = int.from_bytes(head[12:20], "little") != 0
        return not head.startswith(VMDK) or not has_capacity or b"parentFile" in head[DESCRIPTOR]
    return False
