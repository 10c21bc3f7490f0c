"""Which format an image has."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from particle_os.errors import UsageError

# QEMU's names.
ImageFormat = Literal["raw", "qcow2", "vmdk", "vdi", "vpc"]


def image_format(path: Path) -> Literal["raw", "qcow2"]:
    """The format of an image, by its magic number: qcow2, else raw.

    Raises UsageError for a qcow2 that refers to other files: an untrusted image could name any
    file of the host (docs/interop/qcow2.txt: backing_file_offset, incompatible feature bit 2).
    """
    with path.open("rb") as file:
        head = file.read(80)
    if not head.startswith(b"QFI\xfb"):
        return "raw"
    backing = int.from_bytes(head[8:16], "big")
    version = int.from_bytes(head[4:8], "big")
    external = version >= 3 and int.from_bytes(head[72:80], "big") & 4
    if backing or external:
        raise UsageError(
            f"{path} refers to another file; only images that stand alone are booted",
            hint="Flatten it with 'qemu-img convert -O qcow2'.",
        )
    return "qcow2"
