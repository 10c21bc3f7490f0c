"""The scratch disk: its mounts, and the reading ahead of the last stage."""

import io
import os
import stat
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
from particle_agent.agent import scratch

from ...waiting import HANG_SECONDS


def test_reading_ahead_reads_files_only(tmp_path, monkeypatch):
    names = {"file", "a space", "a\nline", "-n", "directory/file"}
    tree = tmp_path / "tree"
    (tree / "directory").mkdir(parents=True)
    for name in names:
        (tree / name).write_text("x")
    (tree / "link").symlink_to("directory/file")
    (tree / "elsewhere").symlink_to("/")
    os.mkfifo(tree / "pipe")
    programs, read = tmp_path / "programs", tmp_path / "read"
    programs.mkdir()
    (programs / "python3").write_text(f"#!/bin/sh\ncat >{read}\n")
    (programs / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    scratch.read_ahead(tree).wait(HANG_SECONDS)
    found = read.read_text().split("\0")[:-1]
    assert sorted(found) == sorted(f"{tree}/{name}" for name in names)


def test_what_is_gone_does_not_end_reading_ahead(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    paths = [tmp_path / "gone", tmp_path / "link", tmp_path / "file"]
    standard_input = io.BytesIO(b"".join(os.fsencode(path) + b"\0" for path in paths))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(standard_input))
    read = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda file, *_: read.append(os.readlink(f"/proc/self/fd/{file}"))
    )
    exec(scratch.WILL_NEED)
    assert read == [str(tmp_path / "file")]


class Vm:
    """Stands for the kernel: it notes mounts, programs and the freezing of the scratch disk."""

    def __init__(self, monkeypatch, directory):
        self.log = []
        self.failing = None
        self.disk = directory / "vda"
        self.disk.touch()
        monkeypatch.setattr(scratch, "SCRATCH", directory / "scratch")
        monkeypatch.setattr(scratch, "ROOT", directory / "scratch/target")
        monkeypatch.setattr(scratch, "wait_for_disk", self.wait_for_disk)
        monkeypatch.setattr(scratch, "mount", self.mount)
        monkeypatch.setattr(scratch, "mounted", self.mounted)
        monkeypatch.setattr(scratch.subprocess, "run", self.run)
        monkeypatch.setattr(scratch.fcntl, "ioctl", lambda _, request, __: self.log.append(request))
        monkeypatch.setattr(scratch.os, "mknod", lambda *arguments: self.log.append(arguments))

    def wait_for_disk(self, serial, size, timeout):
        self.log.append(serial)
        return self.disk

    def mount(self, source, place, kind="", flags=0, data=""):
        # The kernel mounts on what exists only.
        assert place.exists()
        self.log.append((str(source), place, kind, flags, data))

    @contextmanager
    def mounted(self, source, place, *arguments, **options):
        self.mount(source, place, *arguments, **options)
        yield
        self.log.append(f"end of {place.name}")

    def run(self, argv, *, check=False, timeout):
        self.log.append(argv[0])
        if self.failing == argv[0] and check:
            raise subprocess.CalledProcessError(1, argv)


@pytest.fixture
def vm(monkeypatch, tmp_path):
    return Vm(monkeypatch, tmp_path)


def test_the_scratch_disk_is_made_and_mounted_once(vm, monkeypatch):
    root = scratch.prepare_scratch()
    options = scratch.MS_NOATIME | scratch.MS_NODEV
    assert vm.log == [
        "scratch", "mkfs.ext4", "scratch",
        (str(vm.disk), root.parent, "ext4", options, ""),
        ("", root.parent, "", scratch.MS_SHARED, ""),
    ]  # fmt: skip
    assert root.stat().st_mode & 0o7777 == 0o755
    assert scratch.mount_scratch()
    monkeypatch.setattr(type(root), "is_mount", lambda self: True)
    vm.log.clear()
    assert not scratch.mount_scratch()
    assert vm.log == []


def test_without_its_file_system_the_scratch_disk_is_not_used(vm):
    vm.failing = "mkfs.ext4"
    with pytest.raises(subprocess.CalledProcessError):
        scratch.prepare_scratch()
    assert vm.log == ["scratch", "mkfs.ext4"]


@pytest.mark.parametrize("failing", [None, "mount", "umount"])
def test_the_disk_of_packages_is_mounted_for_as_long_as_the_context_lasts(vm, failing, monkeypatch):
    monkeypatch.setattr(scratch, "Path", lambda path: vm.disk.parent / "packages")
    vm.failing = failing
    fails = pytest.raises(subprocess.CalledProcessError) if failing else nullcontext()
    with fails, scratch.packages_disk() as place:
        assert place == vm.disk.parent / "packages"
        vm.log.append("used")
    used = [] if failing == "mount" else ["used", "umount"]
    assert vm.log == ["packages", "mount", *used]


def test_the_scratch_disk_thaws_after_an_error(vm):
    scratch.SCRATCH.mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KeyError), scratch.frozen_scratch():
        vm.log.append("kept")
        raise KeyError
    assert vm.log == [scratch.FIFREEZE, "kept", scratch.FITHAW]
    assert os.listdir("/proc/self/fd") == before


def test_the_target_gets_its_own_mounts_and_devices(vm, tmp_path):
    root = tmp_path / "scratch/target"
    with scratch.mounted_for_chroot(root):
        mounts = [entry for entry in vm.log if len(entry) == 5 and isinstance(entry, tuple)]
        assert "end of proc" not in vm.log
    quiet = scratch.MS_NOSUID | scratch.MS_NODEV
    apt = tmp_path / "scratch/apt"
    assert mounts == [
        ("proc", root / "proc", "proc", 0, ""),
        ("sysfs", root / "sys", "sysfs", 0, ""),
        ("tmpfs", root / "dev", "tmpfs", quiet, "mode=0755"),
        *((f"/dev/{n}", root / "dev" / n, "", scratch.MS_BIND, "") for n in scratch.DEVICES),
        ("devpts", root / "dev/pts", "devpts", scratch.MS_NOSUID | scratch.MS_NOEXEC,
         "ptmxmode=0666,mode=0620,gid=5"),
        ("tmpfs", root / "dev/shm", "tmpfs", quiet, "mode=1777"),
        ("tmpfs", root / "run", "tmpfs", scratch.MS_NODEV, "mode=0755"),
        ("tmpfs", root / "tmp", "tmpfs", scratch.MS_NODEV, "mode=1777"),
        (str(apt / "lists"), root / "var/lib/apt/lists", "", scratch.MS_BIND, ""),
        (str(apt / "archives"), root / "var/cache/apt/archives", "", scratch.MS_BIND, ""),
    ]  # fmt: skip
    assert (root / "dev/vda", stat.S_IFBLK, 0) in vm.log
    assert os.readlink(root / "dev/fd") == "/proc/self/fd"
    assert (apt / "archives/partial").is_dir()
    assert [entry for entry in vm.log if str(entry).startswith("end of")] == [
        f"end of {name}" for name in ("archives", "lists", "tmp", "run", "dev", "sys", "proc")
    ]


def test_no_link_of_the_target_leads_a_mount_out(vm, tmp_path):
    root, outside = tmp_path / "scratch/target", tmp_path / "outside"
    root.mkdir(parents=True)
    for name in ("proc", "run"):
        (root / name).symlink_to("../../outside")
    (root / "sys").symlink_to(outside)
    with scratch.mounted_for_chroot(root):
        places = [entry[1] for entry in vm.log if isinstance(entry, tuple) and len(entry) == 5]
    assert all(place.is_relative_to(root) for place in places)
    assert not outside.exists()


@pytest.mark.parametrize(("blocks", "fits"), [(999, True), (1000, False), (5000, False)])
def test_a_disk_is_read_ahead_only_into_half_of_the_memory(vm, monkeypatch, blocks, fits):
    disk = SimpleNamespace(f_blocks=blocks + 7, f_bfree=7, f_frsize=1024)
    memory = "MemTotal: 9000 kB\nMemAvailable:    2000 kB\n"
    monkeypatch.setattr(scratch.os, "statvfs", lambda path: disk)
    monkeypatch.setattr(scratch, "Path", lambda path: SimpleNamespace(read_text=lambda: memory))
    assert scratch.fits_into_memory() == fits
