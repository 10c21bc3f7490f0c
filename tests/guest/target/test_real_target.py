"""The real Target, in a plain directory, without the substitutes of the recording one."""

import os
import subprocess

import pytest
from particle_agent.errors import CommandFailed
from particle_agent.target.target import Target

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
