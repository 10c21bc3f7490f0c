"""The EFI system partition, filled without a mount."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
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
        sources = [str(path) for path in _copied(target, Path(directory), sorted(files))]
        if sources:
            target.run(["mcopy", "-Q", "-m", *image, *sources, f"{place}/"])


def _copied(target: Target, directory: Path, names: Sequence[str]) -> Iterator[Path]:
    """The regular files of a directory, with a note about the others.

    mcopy(1) would copy the file of the VM that a link leads to, and wait for a FIFO.
    """
    for path in (directory / name for name in names):
        if stat.S_ISREG(path.lstat().st_mode):
            yield path
        else:
            target.reporter.note(
                f"{path.name} in the EFI system partition is left out: FAT holds only regular files"
            )


def uuid_of(serial: str) -> str:
    """The serial number in the notation of blkid(8) and fstab(5)."""
    return f"{serial[:4]}-{serial[4:]}".upper()
