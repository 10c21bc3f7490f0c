"""The published files: the repository that machines update from, and the key of its signatures."""

from __future__ import annotations

import struct
from pathlib import Path

from particle_agent.ostree.repositories.commit_record import KEY, CommitRecord, workshop
from particle_agent.ostree.repositories.repository import OstreeRepository, archive
from particle_agent.system import tarball
from particle_agent.system.tarball import MIB
from particle_agent.target.target import Target

# ostree.summary(5) has it as a key.
MODIFIED = b"ostree.summary.last-modified\0"
# The owners and times of the files of a repository mean nothing; these make the archive the same.
OPTIONS = ("--owner=0", "--group=0", "--mode=u=rwX,go=rX", "--mtime=@0")


def write(target: Target, record: CommitRecord) -> None:
    """Writes what the stage `ostree` publishes, each to an output disk of its own."""
    if "repository" in record.publishes:
        _write_repository(target, record)
    if "key" in record.publishes:
        _write_key(target)


def _write_key(target: Target) -> None:
    data = (workshop(target) / KEY).read_bytes()
    disk = target.output_disk(-(-len(data) // MIB) * MIB, content=len(data), disk="key")
    with disk.open("r+b") as file:
        file.write(data)
    target.run(["sync"])
    target.reporter.disk_written(len(data), "key")


def _write_repository(target: Target, record: CommitRecord) -> None:
    repository = archive(target)
    repository.pull(OstreeRepository(target, workshop(target) / "repository"), record.ref)
    repository.run("summary", "--update")
    if target.source_date is not None:
        _date(repository.place / "summary", target.source_date)
    tarball.write(target, repository.place, "repository", OPTIONS)


def _date(summary: Path, date: int) -> None:
    """Sets the time of a summary, which is otherwise that of the build.

    It is a number of 64 bits in a GVariant, aligned to its size
    (https://docs.gtk.org/glib/gvariant-specification-1.0.html).
    """
    data = bytearray(summary.read_bytes())
    if (found := data.find(MODIFIED)) >= 0:
        struct.pack_into(">Q", data, -(-(found + len(MODIFIED)) // 8) * 8, date)
        summary.write_bytes(data)
