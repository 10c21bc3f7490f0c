"""The EFI system partition, filled without a mount."""

from __future__ import annotations

import os
from pathlib import Path

from particle_agent.target.target import Target


def make(target: Target, partition: Path, tree: Path, *, label: str, serial: str) -> None:
    """Makes a FAT32 file system with the files of `tree`; `serial` is eight hexadecimal digits."""
    target.run(["mkfs.vfat", "-F", "32", "-n", label, "-i", serial, str(partition)])
    image = ["-i", str(partition)]
    # Sort the files, so that the file system is reproducible.
    for directory, directories, files in os.walk(tree):
        directories.sort()
        place = "::" + "/".join(["", *Path(directory).relative_to(tree).parts])
        if place != "::":
            target.run(["mmd", *image, place])
        if files:
            sources = [str(Path(directory, name)) for name in sorted(files)]
            target.run(["mcopy", "-Q", "-m", *image, *sources, f"{place}/"])


def uuid_of(serial: str) -> str:
    """The serial number in the notation of blkid(8) and fstab(5)."""
    return f"{serial[:4]}-{serial[4:]}".upper()
