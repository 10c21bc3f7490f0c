"""ext4 file systems, made and changed by the programs of e2fsprogs."""

import filecmp
import shutil
import subprocess

import pytest
from particle_agent.disk import ext4

MIB, DATE = 1 << 20, 1_000_000_000
TIMES = ("atime", "ctime", "mtime", "crtime")
needs_programs = pytest.mark.skipif(
    shutil.which("debugfs", path="/usr/sbin:/sbin") is None, reason="no e2fsprogs"
)


def ask(partition, request):
    argv = ["/usr/sbin/debugfs", "-R", request, str(partition)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def made(target, tmp_path, monkeypatch):
    """Makes a file system of the files in the target, with the real programs at a fixed time."""
    monkeypatch.setenv("E2FSPROGS_FAKE_TIME", str(DATE))

    def run(command):
        argv = [f"/usr/sbin/{command.argv[0]}", *command.argv[1:]]
        done = subprocess.run(argv, input=command.stdin, capture_output=True, text=True, check=True)
        assert "not found" not in done.stderr

    for program in ("mke2fs", "debugfs"):
        target.when(program, run)

    def make(inodes):
        partition = tmp_path / "partition"
        with partition.open("wb") as file:
            file.truncate(16 * MIB)
        identifier = "a6cdd9c7-f5cb-4d61-aed1-5b849a34a970"
        ext4.make(
            target, partition, target.root, label="root", uuid=identifier,
            hash_seed=identifier, size=16 * MIB, inodes=inodes, for_extlinux=False,
        )  # fmt: skip
        return partition

    return make


@needs_programs
@pytest.mark.parametrize("entries", [3, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_directory_becomes_immutable_and_the_file_system_stays_whole(target, made, entries):
    """Also a directory of many blocks, which has an index."""
    path = "/ostree/deploy/debian/deploy/0123.0"
    for number in range(entries):
        target.path(path).mkdir(parents=True, exist_ok=True)
        (target.path(path) / f"a name that is as long as others are {number}").touch()
    partition = made(inodes=entries + 20)
    ext4.make_immutable(target, partition, [path])
    assert "Flags: 0x80010" in ask(partition, f"stat {path}")
    assert "Flags: 0x80000" in ask(partition, "stat /ostree/deploy")
    argv = ["/usr/sbin/e2fsck", "-fn", str(partition)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@needs_programs
def test_no_trace_of_a_mount_is_left(target, made, tmp_path):
    """A kernel gives inodes random generations, and counts mounts and changes."""
    target.write("/boot/grub/grubenv", "x")
    partition, other = made(inodes=20), tmp_path / "mounted"
    shutil.copy(partition, other)
    fields = [f"{name}{value}" for name in TIMES for value in (" @5", "_extra 6")]
    fields += ["generation 7", "version 7"]
    script = [f"set_inode_field /boot/grub/grubenv {field}" for field in fields]
    script += [f"set_super_value {field} 8" for field in ("mtime", "mnt_count", "kbytes_written")]
    target.run(["debugfs", "-w", "-f", "-", str(other)], stdin="\n".join(script) + "\n")
    assert not filecmp.cmp(partition, other, shallow=False)
    for each in (partition, other):
        ext4.forget(target, each, DATE, ["grubenv"], "/boot/grub")
    assert filecmp.cmp(partition, other, shallow=False)


def test_nothing_is_asked_of_a_file_system_without_such_directories(target, tmp_path):
    ext4.make_immutable(target, tmp_path / "partition", ())
    assert target.commands == []
