"""Reads the architecture of a root file system's tarball, from the headers of its programs."""

from __future__ import annotations

import tarfile
from pathlib import Path

from particle_os.architecture import ARCHITECTURES
from particle_os.base import layout
from particle_os.errors import UsageError
from particle_os.system import tar_archive
from particle_os.system.deadline import Deadline

SECONDS = 300.0
# ELF specification: e_machine, the 16-bit number at offset 18.
ELF_MACHINES = {
    3: "i386",
    21: "ppc64el",
    22: "s390x",
    40: "arm",
    **{each.elf_machine: each.name for each in ARCHITECTURES.values()},
}


def architecture_of(path: Path) -> str | None:
    """The Debian architecture of the first program in /usr/bin or /bin of a tarball.

    Nothing is unpacked. None when the tarball has no program. Raises UsageError when the file is
    not a tar archive or exceeds a limit, DeadlineExceeded when reading it takes too long.
    """
    try:
        with tar_archive.opened(path, Deadline.after(SECONDS, f"reading {path}")) as archive:
            for member in archive:
                name = member.name.removeprefix("./").lstrip("/")
                if not member.regular or not name.startswith(("usr/bin/", "bin/")):
                    continue
                if found := architecture_of_program(archive.read(20)):
                    return found
    except tar_archive.Excessive as error:
        raise UsageError(
            f"{path} is refused: {error}",
            hint="Put the programs in /usr/bin first in the archive, or leave large files out.",
        ) from error
    except (tarfile.TarError, OSError) as error:
        raise UsageError(
            f"{path} cannot be read as a tar archive (plain, gzip, bzip2, xz, lz4 or zstd): {error}"
        ) from error
    return None


def architecture_of_program(head: bytes) -> str | None:
    """The Debian architecture of a program with these first 20 bytes; None for another file."""
    if head[:4] != b"\x7fELF" or len(head) != 20:
        return None
    number = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return ELF_MACHINES.get(number, f"ELF machine {number}")


def image_archive_of(path: Path) -> str | None:
    """The transport for an archive of a container image; None for another tar archive."""
    deadline = Deadline.after(SECONDS, f"reading {path}")
    found = layout.members(path, [layout.INDEX, layout.DOCKER_INDEX], deadline)
    # Newer versions of `docker save` write both.
    kinds = {layout.INDEX: "oci-archive", layout.DOCKER_INDEX: "docker-archive"}
    return next((kind for name, kind in kinds.items() if name in found), None)
