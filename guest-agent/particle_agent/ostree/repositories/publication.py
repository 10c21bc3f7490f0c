"""The published files: the repository that machines update from, and the key of its signatures."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

from particle_agent.disk import ext4
from particle_agent.ostree.repositories.commit_record import KEY, CommitRecord, workshop
from particle_agent.ostree.repositories.repository import OstreeRepository, archive
from particle_agent.system import tarball
from particle_agent.system.tarball import MIB
from particle_agent.target import disks
from particle_agent.target.target import Target

# ostree.summary(5) has it as a key.
MODIFIED = b"ostree.summary.last-modified\0"
# The owners and times of the files of a repository mean nothing; these make the archive the same.
OPTIONS = ("--owner=0", "--group=0", "--mode=u=rwX,go=rX", "--mtime=@0")


def write(target: Target, record: CommitRecord) -> None:
    """Writes what the stage `ostree` publishes, each to an output disk of its own."""
    tested = disks.is_attached("update")
    if tested or "repository" in record.publishes:
        repository = _complete(target, record)
        if "repository" in record.publishes:
            tarball.write(target, repository.place, "repository", OPTIONS)
        if tested:
            _write_update(target, repository)
    if "key" in record.publishes:
        _write_key(target)


def _write_key(target: Target) -> None:
    data = (workshop(target) / KEY).read_bytes()
    disk = target.output_disk(-(-len(data) // MIB) * MIB, content=len(data), disk="key")
    with disk.open("r+b") as file:
        file.write(data)
    target.run(["sync"])
    target.reporter.disk_written(len(data), "key")


def _complete(target: Target, record: CommitRecord) -> OstreeRepository:
    """Adds the commit to the repository to publish."""
    repository = archive(target)
    repository.pull(OstreeRepository(target, workshop(target) / "repository"), record.ref)
    repository.run("summary", "--update")
    if target.source_date is not None:
        _date(repository.place / "summary", target.source_date)
    return repository


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


def _date(summary: Path, date: int) -> None:
    """Sets the time of a summary, which is otherwise that of the build.

    It is a number of 64 bits in a GVariant, aligned to its size
    (https://docs.gtk.org/glib/gvariant-specification-1.0.html).
    """
    data = bytearray(summary.read_bytes())
    if (found := data.find(MODIFIED)) >= 0:
        struct.pack_into(">Q", data, -(-(found + len(MODIFIED)) // 8) * 8, date)
        summary.write_bytes(data)
