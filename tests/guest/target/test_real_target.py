"""The real Target, in a plain directory, without the substitutes of the recording one."""

import os
import subprocess

import pytest
from particle_agent.errors import CommandFailed, EnvironmentFailed
from particle_agent.target import command
from particle_agent.target import disks as disks_module
from particle_agent.target import target as target_module
from particle_agent.target.target import Target

from ...waiting import Clock

OWNER = (1234, 5678) if os.getuid() == 0 else (os.getuid(), os.getgid())


class Lines(list):
    """Keeps the output of the commands."""

    output = list.append


@pytest.fixture
def real(tmp_path):
    (tmp_path / "root").mkdir()
    return Target(tmp_path / "root", Lines(), hostname="box")


@pytest.mark.parametrize("mode", [0o600, 0o4755, 0o2755])
def test_a_file_has_its_mode_and_its_owner(real, mode):
    real.write("/etc/file", "text", mode=mode, owner=OWNER)
    status = (real.root / "etc/file").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, *OWNER)


@pytest.mark.parametrize("mode", [0o700, 0o1777, 0o2775])
def test_a_directory_has_its_mode_and_its_owner(real, mode):
    real.make_directory("/srv/data", mode=mode, owner=OWNER)
    status = (real.root / "srv/data").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, *OWNER)


def test_nobody_else_may_write_to_what_a_stage_makes_by_default(real):
    real.make_directory("/directory", owner=OWNER)
    real.write("/file", "text", owner=OWNER)
    modes = [(real.root / n).stat().st_mode & 0o7777 for n in ("directory", "file")]
    assert modes == [0o755, 0o644]


def test_the_output_of_a_command_that_fails_is_no_answer(real):
    assert real.capture_outside(["sh", "-c", "echo out; echo err >&2"]) == "out\n"
    with pytest.raises(CommandFailed) as failed:
        real.capture_outside(["sh", "-c", "echo out; echo reason >&2; exit 3"])
    assert (failed.value.status, failed.value.tail) == (3, ("reason",))


def test_a_command_that_fails_fails_the_stage(real):
    with pytest.raises(CommandFailed) as failed:
        real.run(["sh", "-c", "echo reason; exit 4"])
    assert (failed.value.status, failed.value.tail) == (4, ("reason",))


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """Puts programs before mount(8) and umount(8): they note their arguments and may fail."""
    log = tmp_path / "mounts"
    log.touch()
    for name in ("mount", "umount"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{log}\n[ ! -e {program}.fails ]\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "bin", lambda: log.read_text().splitlines()


def test_a_mount_ends_with_its_context(real, mounts):
    _, log = mounts
    with pytest.raises(KeyError), real.mounted("/dev/x", "-o", "ro") as place:
        assert place.stat().st_mode & 0o777 == 0o700
        raise KeyError
    assert log() == [f"mount -o ro /dev/x {place}", f"umount {place}"]
    assert not place.exists()


def ways(real):
    return [real.mounted("/dev/x"), real.mounted_inside(real.root, "/mnt")]


@pytest.mark.parametrize("way", [0, 1])
def test_nothing_goes_on_without_a_mount_that_failed(real, mounts, way):
    programs, log = mounts
    (programs / "mount.fails").touch()
    with pytest.raises(subprocess.CalledProcessError), ways(real)[way]:
        raise AssertionError
    assert [line.split()[0] for line in log()] == ["mount"]


@pytest.mark.parametrize("way", [0, 1])
def test_a_file_system_that_stays_mounted_is_an_error(real, mounts, way):
    programs, log = mounts
    (programs / "umount.fails").touch()
    with pytest.raises(subprocess.CalledProcessError), ways(real)[way]:
        pass
    assert [line.split()[0] for line in log()] == ["mount", "umount"]


class NotingEnclosure:
    """Notes the programs that it is to confine, and runs them without a confinement."""

    def __init__(self, root):
        self.root = root
        self.programs = []

    def start(self, argv, **options):
        self.programs.append(list(argv))
        return command.start(argv, **options)

    def close(self):
        self.programs.append("closed")


def test_every_program_of_the_target_is_confined_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(target_module, "Enclosure", NotingEnclosure)
    real = Target(tmp_path, Lines(), hostname="box")
    enclosure = real._enclosure
    assert enclosure.root == tmp_path
    real.chroot(["true", "1"])
    real.chroot_from(["cat"], [b"data"])
    assert real.capture(["echo", "3"]) == "3\n"
    assert enclosure.programs == [["true", "1"], ["cat"], ["echo", "3"]]
    real.run(["true"])
    assert real.capture_outside(["echo", "5"]) == "5\n"
    assert len(enclosure.programs) == 3
    real.end_programs()
    assert enclosure.programs[3:] == ["closed"]


@pytest.fixture
def disks(tmp_path, monkeypatch):
    """Adds a disk of the VM. The sticky bit stands for a block device."""

    def add(name, serial, size, *, is_block=True):
        place = tmp_path / "sys/block" / name
        place.mkdir(parents=True)
        (place / "serial").write_text(f"{serial}\n")
        (place / "size").write_text(f"{size // 512}\n")
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
        (tmp_path / "dev" / name).chmod(0o1600 if is_block else 0o600)
        return tmp_path / "dev" / name

    clock = Clock()
    monkeypatch.setattr(disks_module, "time", clock)
    monkeypatch.setattr(disks_module, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr(disks_module.stat, "S_ISBLK", lambda mode: bool(mode & 0o1000))
    return add


MIB = 1 << 20


@pytest.mark.slow
def test_a_disk_is_known_by_its_serial_number_and_its_size(disks):
    (disks("loop0", "", MIB).parent.parent / "sys/block/loop0/serial").unlink()
    disks("vda", "scratch", MIB)
    disks("vdb", "output", 2 * MIB)
    disks("vdc", "output", MIB, is_block=False)
    assert disks_module.is_attached("scratch")
    assert not disks_module.is_attached("update")
    with pytest.raises(EnvironmentFailed):
        disks_module.wait_for_disk("output", MIB, 60)
    found = disks("vdd", "output", MIB)
    assert disks_module.wait_for_disk("output", MIB, 60) == found
    assert disks_module.wait_for_disk("scratch", 0, 60).name == "vda"
    with pytest.raises(EnvironmentFailed, match="'output' of 512 bytes did not appear within 60 s"):
        disks_module.wait_for_disk("output", 512, 60)


def test_the_host_is_asked_for_the_output_disk_before_it_is_waited_for(real, disks):
    asked = []
    found = []
    real.reporter.disk_needed = lambda size, content, disk: (
        asked.append((size, content, disk)),
        found.append(disks("vda", disk, size)),
    )
    assert real.output_disk(2 * MIB, content=9, disk="repository") == found[0]
    assert asked == [(2 * MIB, 9, "repository")]
