"""The published files: the repository that machines update from, its key, a container image."""

from __future__ import annotations

import json
import os
import shutil
import struct
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from particle_agent.contract.wire import OutputName
from particle_agent.disk import ext4
from particle_agent.ostree.container import archive as container
from particle_agent.ostree.container.layer import VarDirectory
from particle_agent.ostree.repositories import difference
from particle_agent.ostree.repositories.commit_record import (
    KEY,
    VAR_DIRECTORIES,
    CommitRecord,
    workshop,
)
from particle_agent.ostree.repositories.repository import OstreeRepository, archive
from particle_agent.system import tarball
from particle_agent.system.tarball import MIB
from particle_agent.target import disks
from particle_agent.target.target import Target

# ostree.summary(5) has it as a key.
MODIFIED = b"ostree.summary.last-modified\0"
# One file for everything, also large files. Their comparison takes 17 times their size of memory.
DELTA = ("--inline", "--min-fallback-size=0", "--max-bsdiff-size=16")
# The bytes of an offset in a GVariant, by its size.
WIDTHS = (1, 2, 4, 8)
# The owners and times of the files of a repository mean nothing; these make the archive the same.
OPTIONS = ("--owner=0", "--group=0", "--mode=u=rwX,go=rX", "--mtime=@0")


def collect(target: Target, record: CommitRecord) -> None:
    """Puts the commit into the repository to publish, if one is published or compared.

    It compresses each file of the commit.
    """
    if _wanted(record) or record.parent is not None:
        made = OstreeRepository(target, workshop(target) / "repository")
        archive(target).pull(made, record.ref)


@contextmanager
def collecting(target: Target, record: CommitRecord) -> Iterator[None]:
    """Collects beside the work of the context: the compression keeps one processor busy."""
    with ThreadPoolExecutor(1) as pool:
        collected = pool.submit(collect, target, record)
        yield
        collected.result()


def write(target: Target, record: CommitRecord) -> None:
    """Writes what the stage `ostree` publishes, each to an output disk of its own.

    The commit has been collected.
    """
    if (wanted := _wanted(record)) or record.parent is not None:
        repository = archive(target)
        if record.collection is not None:
            repository.run("config", "set", "core.collection-id", record.collection)
        if "delta" in wanted:
            _write_file(target, _delta(target, repository, record), "delta")
        if wanted - {"delta"}:
            _summarize(target, repository)
        if "repository" in wanted:
            tarball.write(target, repository.place, "repository", OPTIONS)
        if "update" in wanted:
            _write_update(target, repository)
    if container.DISK in record.publishes:
        directories = _directories(target)
        container.write(target, record.ref, record.checksum, record.version, directories)
    if "key" in record.publishes:
        _write_file(target, workshop(target) / KEY, "key")
    difference.write(target, record, archive(target))


def _wanted(record: CommitRecord) -> set[str]:
    """The output disks that get something from the repository."""
    wanted: set[str] = {"repository", "delta"}.intersection(record.publishes)
    return wanted | ({"update"} if disks.is_attached("update") else set())


def _directories(target: Target) -> list[VarDirectory]:
    """The directories of /var in the image before it became a commit; none if /var has stayed."""
    file = workshop(target) / VAR_DIRECTORIES
    return (
        [VarDirectory(**found) for found in json.loads(file.read_text())] if file.exists() else []
    )


def _write_file(target: Target, file: Path, name: OutputName) -> None:
    size = file.stat().st_size
    disk = target.output_disk(-(-size // MIB) * MIB, content=size, disk=name)
    with file.open("rb") as data, disk.open("r+b") as sink:
        shutil.copyfileobj(data, sink, MIB)
    target.run(["sync"])
    target.reporter.disk_written(size, name)


def _summarize(target: Target, repository: OstreeRepository) -> None:
    """Writes the list of the branches, which remotes read first."""
    repository.run("summary", "--update")
    if target.source_date is not None:
        _date(repository.place / "summary", target.source_date)


def _write_update(target: Target, repository: OstreeRepository) -> None:
    """Writes the repository as a file system, which a machine under test updates from."""
    files = [path for path in repository.place.rglob("*") if path.is_file()]
    blocks = sum(1 + path.stat().st_size // ext4.BLOCK for path in files)
    size = -(-(blocks * ext4.BLOCK * 9 // 8 + 64 * MIB) // MIB) * MIB
    disk = target.output_disk(size, content=blocks * ext4.BLOCK, disk="update")
    ext4.make(
        target,
        disk,
        repository.place,
        label="update",
        uuid=str(uuid.UUID(int=0)),
        hash_seed=str(uuid.UUID(int=0)),
        size=size,
        inodes=2 * len(files) + 1024,
        for_extlinux=False,
    )
    target.run(["sync"])
    target.reporter.disk_written(size, "update")


def _delta(target: Target, repository: OstreeRepository, record: CommitRecord) -> Path:
    """The difference of the commit to its parent, in one file."""
    file = workshop(target) / "delta"
    words = [f"--from={record.parent}", f"--to={record.checksum}", f"--filename={file}"]
    repository.run("static-delta", "generate", *DELTA, *words)
    if target.source_date is not None:
        _date_delta(file, target.source_date)
    return file


def _date(summary: Path, date: int) -> None:
    """Sets the time of a summary, which is otherwise that of the build.

    It is a number of 64 bits in a GVariant, aligned to its size
    (https://docs.gtk.org/glib/gvariant-specification-1.0.html).
    """
    data = bytearray(summary.read_bytes())
    if (found := data.find(MODIFIED)) >= 0:
        struct.pack_into(">Q", data, _aligned(found + len(MODIFIED)), date)
        summary.write_bytes(data)


def _date_delta(delta: Path, date: int) -> None:
    """Sets the time of a delta: a number of 64 bits behind the first member of a GVariant.

    The last bytes of the file are the end of this member.
    """
    with delta.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        width = next(width for width in WIDTHS if size < 1 << 8 * width)
        file.seek(-width, os.SEEK_END)
        file.seek(_aligned(int.from_bytes(file.read(width), "little")))
        file.write(struct.pack(">Q", date))


def _aligned(place: int) -> int:
    return -(-place // 8) * 8
