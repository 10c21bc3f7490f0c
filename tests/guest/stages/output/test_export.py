import io
import os
import subprocess
import tarfile

import pytest
from particle_agent.stages.output.export import Export


def test_the_system_is_written_as_an_archive(target):
    target.write("/etc/motd", "hello\n" * 1000, mode=0o640)
    target.symlink("/etc/link", "motd")
    os.link(target.root / "etc/motd", target.root / "etc/hard")
    target.make_directory(f"/srv/{'long' * 40}")
    for number in range(300):
        target.write(f"/srv/{number}", "")
    Export().run(target)
    (size,) = target.report.written
    ((asked, _),) = target.report.needed
    assert size <= asked
    data = (target.directory / "disk").read_bytes()
    assert not any(data[size:])
    with tarfile.open(fileobj=io.BytesIO(data[:size])) as archive:
        members = {member.name: member for member in archive}
    assert members["./etc/motd"].mode == 0o640 or members["./etc/hard"].mode == 0o640
    assert members["./etc/link"].linkname == "motd"
    assert {members["./etc/motd"].islnk(), members["./etc/hard"].islnk()} == {True, False}
    assert len(members) >= 300


def test_the_archive_of_an_empty_system_fits(target):
    Export().run(target)
    assert target.report.written[0] <= target.report.needed[0][0]


def test_an_archive_that_does_not_reach_the_disk_is_an_error(target, tmp_path, monkeypatch):
    (tmp_path / "sync").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(subprocess.CalledProcessError):
        Export().run(target)
    assert target.report.written == []
