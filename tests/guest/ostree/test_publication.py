"""The archive of the repository that machines update from."""

import io
import struct
import tarfile
from dataclasses import replace

import pytest
from particle_agent.ostree.repositories import publication
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop
from particle_agent.ostree.repositories.publication import MODIFIED

RECORD = CommitRecord("edge", "0" * 64, "debian", "6.12", ("repository",), "origin", None)
NOW = 1_800_000_000


def summary(before, date):
    """A summary as ostree writes it: the value of the key is aligned to its size."""
    head = bytes(before) + MODIFIED
    return head + bytes(-len(head) % 8) + struct.pack(">Q", date) + b"\0t rest"


@pytest.fixture
def archive(target):
    """A function that publishes a repository, and returns the files of the archive."""

    def archive(text, date=None):
        target.source_date = date

        def run(command):
            if command.argv[1] == "summary":
                (workshop(target) / "archive/summary").write_bytes(text)

        target.when("ostree", run)
        publication.collect(target, RECORD)
        publication.write(target, RECORD)
        data = (target.directory / "repository").read_bytes()[: target.report.written[0]]
        with tarfile.open(fileobj=io.BytesIO(data)) as found:
            return {m.name: found.extractfile(m).read() for m in found if m.isfile()}

    return archive


@pytest.mark.parametrize("before", range(0, 64, 8))
def test_a_reproducible_image_has_a_summary_of_its_date(archive, before):
    """Also when bytes of the time itself are 0."""
    found = archive(summary(before, NOW << 32), 256)
    assert found == {"./summary": summary(before, 256)}


def test_another_image_keeps_the_time_of_its_summary(archive):
    assert archive(summary(8, NOW)) == {"./summary": summary(8, NOW)}


def test_a_summary_without_a_time_stays(archive):
    assert archive(b"no time", 1) == {"./summary": b"no time"}


def test_the_repository_has_the_newest_commit_of_the_ref_alone(archive, target):
    archive(b"")
    place = workshop(target)
    assert [command.argv[1:] for command in target.commands] == [
        ("init", f"--repo={place}/archive", "--mode=archive"),
        ("config", f"--repo={place}/archive", "set", "archive.zlib-level", "1"),
        ("pull-local", f"--repo={place}/archive", f"{place}/repository", "edge"),
        ("summary", f"--repo={place}/archive", "--update"),
    ]
    assert target.report.disks == ["repository"]


def delta(first, date, total):
    """A delta as ostree writes it: the time follows the first member, whose end is at the end."""
    width = 1 if total < 1 << 8 else 2 if total < 1 << 16 else 4
    head = bytes(first) + bytes(-first % 8) + struct.pack(">Q", date)
    return head.ljust(total - width, b"x") + first.to_bytes(width, "little")


@pytest.mark.parametrize("total", [200, 255, 256, 65535, 65536])
def test_the_delta_is_one_file_with_the_date_of_a_reproducible_image(target, total):
    target.source_date = 256

    def run(command):
        if command.argv[1] == "static-delta":
            (workshop(target) / "delta").write_bytes(delta(101, NOW, total))

    target.when("ostree", run)
    workshop(target).mkdir(exist_ok=True)
    record = replace(RECORD, publishes=("delta",), parent="1" * 64)
    publication.write(target, record)
    assert target.report.disks == ["delta"]
    written = (target.directory / "delta").read_bytes()[: target.report.written[0]]
    assert written == delta(101, 256, total)
    words = next(c.argv for c in target.commands if "static-delta" in c.argv)
    assert f"--from={'1' * 64}" in words
    assert f"--to={RECORD.checksum}" in words
    assert "--inline" in words
