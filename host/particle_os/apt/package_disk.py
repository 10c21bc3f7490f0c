"""Writes the packages for a VM to a disk: decompressed, with their index, as squashfs."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from particle_agent.contract.packages import ARCHIVES, DATABASE, INDEX, LOOSE

from particle_os.errors import InfrastructureError
from particle_os.shortcuts import dpkg_database
from particle_os.system import process, tar_archive
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline

# The size of the header of an ar member, in bytes.
AR_HEADER = 60
CONTROL_LIMIT = 32 << 20


def write_disk(
    debs: Sequence[Path],
    disk: Path,
    work: Path,
    deadline: Deadline,
    *,
    log: Callable[[str], None] | None = None,
    database: bool = False,
    loose: bool = False,
) -> None:
    """Writes the decompressed packages and their index to the start of `disk`, as squashfs.

    `disk` keeps its size, because a running VM has it open. With `database`, the disk also contains
    dpkg's database of the unpacked packages. If only dpkg can unpack them, the disk has no
    database, and `log` gets a line. With `loose`, the disk lists the packages that tar can unpack.
    Raises InfrastructureError.
    """
    tree = work / "disk"
    archives = tree / ARCHIVES
    (archives / "partial").mkdir(parents=True)
    processors = os.cpu_count() or 1
    by_size = sorted(debs, key=lambda deb: deb.stat().st_size)
    stanzas: list[str] = []
    for start in range(0, len(by_size), processors):
        batch = by_size[start : start + processors]
        stanzas += _decompress(batch, archives, deadline)
    (tree / INDEX).write_text("".join(stanzas), errors="surrogateescape")
    if database:
        try:
            dpkg_database.write(sorted(archives.glob("*.deb")), tree / DATABASE)
        except dpkg_database.Unusual as unusual:
            if log is not None:
                log(f"dpkg has to unpack the packages itself: {unusual}")
    if loose:
        (tree / LOOSE).mkdir()
        try:
            dpkg_database.write_loose(sorted(archives.glob("*.deb")), tree / LOOSE)
        except dpkg_database.Unusual:
            # The files of the unusual package are unknown, and others may contain them too.
            shutil.rmtree(tree / LOOSE)
    image = work / "disk.squashfs"
    process.run(
        ["gensquashfs", "--quiet", "--all-root", "--compressor", "lz4"]
        + ["--pack-dir", tree, image],
        deadline=deadline,
        what="writing the disk of packages",
        within=Confinement(writes=(work,)),
    )
    with image.open("rb") as source, disk.open("r+b") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def _decompress(debs: Sequence[Path], directory: Path, deadline: Deadline) -> list[str]:
    """Writes a copy of each package with decompressed members; returns their index stanzas.

    A package is an ar archive with three members (deb(5)).
    """
    with ExitStack() as stack:
        under_way = []
        for deb in debs:
            made = stack.enter_context((directory / deb.name).open("xb"))
            control = _control_archive(deb, deadline)
            made.write(b"!<arch>\n" + _member(b"debian-binary", b"2.0\n"))
            made.write(_member(b"control.tar", control))
            # The header needs the size of the data, which is known after writing.
            header = made.tell()
            made.write(bytes(AR_HEADER))
            made.flush()
            limit = tar_archive.most_unpacked(deb.stat().st_size)
            argv: list[str | Path] = ["dpkg-deb", "--fsys-tarfile", deb]
            data = stack.enter_context(
                process.started(
                    argv,
                    within=Confinement(reads=(deb,), file_size=limit),
                    stdout=made,
                    stderr=subprocess.DEVNULL,
                )
            )
            under_way.append((made, header, data, control, limit))
        stanzas = []
        for made, header, data, control, limit in under_way:
            name = Path(made.name).name
            status = process.wait(data, deadline.remaining())
            end = made.seek(0, os.SEEK_END)
            if status != 0:
                why = ": it unpacks to too many bytes" if end >= limit else ""
                raise InfrastructureError(f"dpkg-deb cannot read {name}{why}")
            size = end - header - AR_HEADER
            made.write(b"\n" * (size % 2))
            total = made.tell()
            made.seek(header)
            made.write(_header(b"data.tar", size))
            stanzas.append(
                f"{_control(control, name, deadline).strip()}\n"
                f"Filename: ./{ARCHIVES}/{name}\nSize: {total}\n\n"
            )
        return stanzas


def _control_archive(deb: Path, deadline: Deadline) -> bytes:
    with process.started(
        ["dpkg-deb", "--ctrl-tarfile", deb],
        within=Confinement(reads=(deb,)),
        stderr=subprocess.DEVNULL,
    ) as program:
        data = process.output(program, deadline).read(CONTROL_LIMIT + 1)
        if len(data) > CONTROL_LIMIT:
            raise InfrastructureError(
                f"{deb.name} has more than {CONTROL_LIMIT} bytes of control files"
            )
        if process.wait(program, deadline.remaining()) != 0:
            raise InfrastructureError(f"dpkg-deb cannot read {deb.name}")
    return data


def _control(archive: bytes, deb: str, deadline: Deadline) -> str:
    try:
        tar_archive.check(io.BytesIO(archive), len(archive), deadline)
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            members = {member.name.removeprefix("./"): member for member in tar}
            if (file := tar.extractfile(members["control"])) is None:
                raise tarfile.ReadError("its control file is no file")
            return file.read().decode("utf-8", "surrogateescape")
    except dpkg_database.MALFORMED as error:
        raise InfrastructureError(f"{deb} cannot be read: {error}") from error


def _header(name: bytes, size: int) -> bytes:
    """The header of an ar member (ar(5))."""
    return b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, 0o100644, size)


def _member(name: bytes, data: bytes) -> bytes:
    return _header(name, len(data)) + data + b"\n" * (len(data) % 2)
