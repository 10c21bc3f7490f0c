"""Reads the architecture of a root file system's tarball, from the headers of its programs."""

from __future__ import annotations

import gzip
import lzma
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from particle_os.errors import UsageError
from particle_os.system import process
from particle_os.system.confinement import Confinement

SCAN_MEMBERS = 200_000
# ELF specification: e_machine, the 16-bit number at offset 18.
ELF_MACHINES = {3: "i386", 21: "ppc64el", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64"}


@contextmanager
def _decompressed(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        with gzip.open(path) as stream:
            yield cast(BinaryIO, stream)
    elif magic.startswith(b"\xfd7zXZ"):
        with lzma.open(path) as stream:
            yield cast(BinaryIO, stream)
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        argv: list[str | Path] = ["zstd", "--decompress", "--stdout", "--quiet", path]
        within = Confinement(reads=(path,))
        with process.started(argv, within=within, stderr=subprocess.DEVNULL) as decompressor:
            with cast(BinaryIO, decompressor.stdout) as stream:
                yield stream
    else:
        with path.open("rb") as stream:
            yield stream


def architecture_of(path: Path) -> str | None:
    """The Debian architecture of the first program in /usr/bin or /bin of a tarball.

    Nothing is unpacked. None when the tarball has no program. Raises UsageError when the file is
    not a tar archive.
    """
    try:
        with _decompressed(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(archive):
                if count > SCAN_MEMBERS:
                    break
                name = member.name.removeprefix("./").lstrip("/")
                if not member.isreg() or not name.startswith(("usr/bin/", "bin/")):
                    continue
                file = archive.extractfile(member)
                head = file.read(20) if file else b""
                if head[:4] == b"\x7fELF" and len(head) == 20:
                    order = "little" if head[5] == 1 else "big"
                    number = int.from_bytes(head[18:20], order)  # type: ignore[arg-type]
                    return ELF_MACHINES.get(number, f"ELF machine {number}")
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError) as error:
        raise UsageError(
            f"{path} cannot be read as a tar archive (plain, gzip, xz or zstd): {error}"
        ) from error
    return None
