"""ext4 file systems, made and changed by the programs of e2fsprogs."""

import shutil
import subprocess

import pytest
from particle_agent.disk import ext4

MIB = 1 << 20
needs_programs = pytest.mark.skipif(
    shutil.which("debugfs", path="/usr/sbin:/sbin") is None, reason="no e2fsprogs"
)


def ask(partition, request):
    argv = ["/usr/sbin/debugfs", "-R", request, str(partition)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@needs_programs
@pytest.mark.parametrize("entries", [3, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_directory_becomes_immutable_and_the_file_system_stays_whole(target, tmp_path, entries):
    """Also a directory of many blocks, which has an index."""
    partition, path = tmp_path / "partition", "/ostree/deploy/debian/deploy/0123.0"
    with partition.open("wb") as file:
        file.truncate(16 * MIB)
    for number in range(entries):
        target.path(path).mkdir(parents=True, exist_ok=True)
        (target.path(path) / f"a name that is as long as others are {number}").touch()

    def run(command):
        argv = [f"/usr/sbin/{command.argv[0]}", *command.argv[1:]]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert "not found" not in done.stderr

    for program in ("mke2fs", "debugfs"):
        target.when(program, run)
    ext4.make(
        target,
        partition,
        target.root,
        label="root",
        uuid="a6cdd9c7-f5cb-4d61-aed1-5b849a34a970",
        hash_seed="a6cdd9c7-f5cb-4d61-aed1-5b849a34a970",
        size=16 * MIB,
        inodes=entries + 20,
        for_extlinux=False,
    )
    ext4.make_immutable(target, partition, [path])
    assert "Flags: 0x80010" in ask(partition, f"stat {path}")
    assert "Flags: 0x80000" in ask(partition, "stat /ostree/deploy")
    argv = ["/usr/sbin/e2fsck", "-fn", str(partition)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_is_asked_of_a_file_system_without_such_directories(target, tmp_path):
    ext4.make_immutable(target, tmp_path / "partition", ())
    assert target.commands == []
