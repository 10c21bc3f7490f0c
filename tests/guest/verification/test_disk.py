"""The verification of a disk with a real table and real file systems. Only mounting is replaced."""

import shutil
import subprocess
from contextlib import contextmanager

import pytest
from particle_agent import verification
from particle_agent.disk import reading
from particle_agent.verification import volumes

from ...waiting import HANG_SECONDS
from ..disk.extlinux import BOOT_SECTOR, CORE, CORE_OFFSET

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name, path="/sbin:/usr/sbin") for name in ("sfdisk", "mke2fs", "blkid")),
    reason="needs the packages fdisk, e2fsprogs and util-linux",
)
MIB = 1 << 20
SIZE = 40 * MIB
UUID = "a6cdd9c7-f5cb-4d61-aed1-5b849a34a970"
TABLE = "label: gpt\nstart=1MiB, size=16MiB, type=linux, attrs=LegacyBIOSBootable\nstart=17MiB\n"
MENU = f"""\
DEFAULT linux
LABEL linux
LINUX /boot/vmlinuz
INITRD /boot/initrd
APPEND root=UUID={UUID}
"""
SYSTEM = {
    "usr/bin/init": "program",
    "etc/fstab": f"UUID={UUID} / ext4 defaults 0 1\n",
    "boot/vmlinuz": "kernel",
    "boot/initrd": "cpio",
    "boot/extlinux/ldlinux.c32": "x",
    "boot/extlinux/extlinux.conf": MENU,
}


class Disk:
    """A disk with a system on its first partition. Each partition is also a separate file."""

    def __init__(self, directory):
        self.path, self.tree = directory / "disk", directory / "tree"
        self.parts = [directory / "part1", directory / "part2"]
        for path, text in SYSTEM.items():
            (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / path).write_text(text)
        (self.tree / "boot/extlinux/ldlinux.sys").write_bytes(CORE)
        (self.tree / "sbin").symlink_to("usr/bin")
        (self.tree / "usr/bin/init").chmod(0o755)
        with self.path.open("wb") as file:
            file.truncate(SIZE)
        self.run("/sbin/sfdisk", "-q", self.path, text=TABLE)
        self.write(0, b"\x33\xc0".ljust(400, b"\x90") + b"Missing OS\r\n")
        self.write(MIB, BOOT_SECTOR)
        self.write(MIB + CORE_OFFSET, CORE)
        self.make(0, UUID)
        self.make(1, "11111111-2222-3333-4444-555555555555")
        self.mountable = True

    def run(self, *argv, text=""):
        subprocess.run(
            argv, input=text, text=True, check=True, capture_output=True, timeout=HANG_SECONDS
        )

    def make(self, index, uuid):
        self.parts[index].unlink(missing_ok=True)
        self.run("/sbin/mke2fs", "-q", "-t", "ext4", "-U", uuid, self.parts[index], "16M")

    def write(self, offset, data):
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def node(self, device, entry):
        return self.parts[entry.number - 1] if entry else device

    @contextmanager
    def mounted(self, node, kind):
        assert kind in ("ext4", "")
        yield self.tree if node == self.parts[0] and self.mountable else self.tree / "no-such"

    def judged(self):
        reported = []
        verification.of_disk(self.path, reported.append)
        return sorted(finding.code for finding in reported)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    made = Disk(tmp_path)
    monkeypatch.setattr(volumes, "_node", made.node)
    monkeypatch.setattr(reading, "mounted", made.mounted)
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    return made


def test_nothing_is_wrong_with_a_good_disk(disk):
    assert disk.judged() == []


def test_every_part_of_the_disk_is_looked_at(disk):
    disk.write(SIZE - 512, bytes(512))
    disk.run("/sbin/debugfs", "-w", "-R", "freeb 300 10", disk.parts[1])
    (disk.tree / "etc/fstab").write_text("UUID=none / ext4 defaults 0 1\n")
    (disk.tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (disk.tree / "etc/open").write_text("x")
    (disk.tree / "etc/open").chmod(0o666)
    (disk.tree / "boot/initrd").unlink()
    assert disk.judged() == [
        "boot-menu-file-missing", "file-system-broken", "fstab-device-missing",
        "gpt-backup-broken", "machine-id-set", "world-writable",
    ]  # fmt: skip


def test_a_partition_without_a_file_system_is_one_yet(disk):
    disk.parts[1].write_bytes(bytes(MIB))
    (disk.tree / "etc/fstab").write_text("/dev/sda2 /etc ext4 defaults 0 1\n")
    assert disk.judged() == ["fstab-unstable"]
    (disk.tree / "etc/fstab").write_text("/dev/sda3 /etc ext4 defaults 0 1\n")
    assert disk.judged() == ["fstab-device-missing"]


def test_two_file_systems_of_one_name(disk):
    disk.make(1, UUID)
    assert disk.judged() == ["file-system-duplicate"]


def test_a_disk_without_a_system(disk):
    disk.mountable = False
    assert disk.judged() == ["boot-loader-file-missing", "system-not-found"]


def test_a_disk_whose_only_file_system_is_destroyed(disk):
    for part in disk.parts:
        part.write_bytes(bytes(MIB))
    disk.mountable = False
    assert set(disk.judged()) == {"boot-loader-file-missing", "system-not-found"}


def test_a_file_system_that_cannot_be_mounted(disk, monkeypatch):
    @contextmanager
    def refused(node, kind):
        yield None

    monkeypatch.setattr(reading, "mounted", refused)
    assert disk.judged() == ["file-system-unreadable"] * 2 + ["system-not-found"]


def test_an_empty_disk(disk):
    disk.path.write_bytes(bytes(MIB))
    assert disk.judged() == ["partition-table-missing", "system-not-found"]


def test_the_disk_is_not_written(disk):
    before = [path.read_bytes() for path in (disk.path, *disk.parts)]
    disk.judged()
    assert [path.read_bytes() for path in (disk.path, *disk.parts)] == before
