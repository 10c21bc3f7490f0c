"""An image from which nothing starts is named for what it holds."""

import shutil
import subprocess
import uuid

import pytest
from particle_agent.contract.contents import content_of
from particle_os.architecture import ARCHITECTURES
from particle_os.boot import contents, machine_choice

from ... import samples
from ...waiting import HANG_SECONDS

OUTCOME = ("no-bootable-device", "the firmware found no bootable device")
KIB = 1 << 10
# An MBR with one partition, of the type 0x83.
MBR = bytes(450) + b"\x83" + bytes(59) + b"\x55\xaa"


@pytest.fixture
def explain(tmp_path):
    """The words that `contents` adds to an outcome for a disk."""

    def explain(disk, driver="raw", firmware="bios"):
        status, message = contents.explain(OUTCOME, disk, driver, tmp_path, firmware)
        assert (status, message[: len(OUTCOME[1])]) == OUTCOME
        return message[len(OUTCOME[1]) :]

    return explain


@pytest.mark.parametrize("kind", samples.KINDS)
def test_an_image_is_named_for_what_it_holds(tmp_path, explain, kind):
    content = content_of(kind)
    words = explain(samples.write(kind, tmp_path / "disk"))
    assert words == f"; the whole image is {content.words}. {content.advice}"


@pytest.mark.parametrize("kind", samples.KINDS)
@pytest.mark.skipif(shutil.which("blkid", path="/sbin:/usr/sbin") is None, reason="needs blkid")
def test_the_host_and_libblkid_name_the_same_kind(tmp_path, kind):
    argv = ["/sbin/blkid", "--probe", "--match-tag", "TYPE", "--output", "value"]
    disk = samples.write(kind, tmp_path / "disk")
    told = subprocess.run([*argv, disk], check=True, capture_output=True, timeout=HANG_SECONDS)
    assert told.stdout.decode().strip() == kind


def test_the_disk_in_a_qcow2_image_is_named_too(tmp_path, explain):
    raw, image = samples.write("btrfs", tmp_path / "raw"), tmp_path / "image"
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image]
    subprocess.run(argv, check=True, timeout=HANG_SECONDS)
    assert "the file system btrfs" in explain(image, "qcow2")


def test_a_gpt_for_large_sectors_is_named(tmp_path, explain):
    words = explain(samples.write_large_sectors(tmp_path / "disk"))
    assert "sectors of 4096 bytes" in words


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(100 * KIB), "; nothing has been written to it: its first 68 KiB are zeroes"),
        (
            b"a letter\n" * 100,
            "; the image has no partition table: is the file an image of a disk?",
        ),
        (bytes(510) + b"\x55\xaa" + bytes(4 * KIB), ""),
        (bytes(512) + b"EFI PART" + bytes(100 * KIB), ""),
        # A hybrid image is a disk as well, and boot code may look like a superblock.
        (MBR + bytes(32769 - 512) + b"CD001", ""),
        (bytes(461) + b"\1" + bytes(48) + b"\x55\xaa" + bytes(32769 - 512) + b"CD001", ""),
        (MBR + bytes(1080 - 512) + b"\x53\xef", ""),
        (b"", ""),
    ],
)
def test_a_disk_without_a_known_content(tmp_path, explain, data, words):
    (tmp_path / "disk").write_bytes(data)
    assert explain(tmp_path / "disk") == words


def test_an_image_that_cannot_be_read_gets_no_words(tmp_path, explain):
    assert explain(tmp_path / "none") == ""
    (tmp_path / "image").write_bytes(b"no qcow2 image")
    assert explain(tmp_path / "image", "qcow2") == ""


@pytest.mark.parametrize("status", ["timed-out", "kernel-panic", "kernel-not-started"])
def test_other_outcomes_stay(tmp_path, status):
    disk = samples.write("crypto_LUKS", tmp_path / "disk")
    assert contents.explain((status, "x"), disk, "raw", tmp_path, "bios") == (status, "x")


def disk_for_uefi(label, *, code=b""):
    """The beginning of a disk with an EFI System Partition, and with boot code if any is given."""
    entry = contents.ESP + bytes(112)
    table = {"gpt": b"EFI PART" + bytes(504) + bytes(128) + entry, "dos": b""}[label]
    kind = {"gpt": b"\xee", "dos": b"\xef"}[label]
    mbr = code.ljust(446, b"\0") + bytes(4) + kind + b"\0\0\0\1\0\0\0\1\0\0\0"
    return mbr.ljust(510, b"\0") + b"\x55\xaa" + table + bytes(66 * KIB)


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_a_disk_that_only_uefi_starts_is_known(tmp_path, explain, label):
    disk = tmp_path / "disk"
    disk.write_bytes(disk_for_uefi(label))
    assert contents.needs_uefi(disk, "raw", tmp_path)
    assert "boot it under UEFI" in explain(disk)
    assert explain(disk, firmware="uefi") == ""
    disk.write_bytes(disk_for_uefi(label, code=b"\xeb\x63"))
    assert not contents.needs_uefi(disk, "raw", tmp_path)
    assert explain(disk) == ""


@pytest.mark.parametrize("data", [b"", bytes(68 * KIB), MBR, bytes(512) + b"EFI PART"])
def test_other_disks_are_not(tmp_path, data):
    (tmp_path / "disk").write_bytes(data)
    assert not contents.needs_uefi(tmp_path / "disk", "raw", tmp_path)


def test_the_firmware_follows_the_disk_unless_the_architecture_has_one_only(tmp_path):
    disk, notes = tmp_path / "disk", []
    disk.write_bytes(disk_for_uefi("gpt"))
    amd64, arm64 = ARCHITECTURES["amd64"], ARCHITECTURES["arm64"]
    assert machine_choice.usual(disk, "raw", amd64, notes.append) == "uefi"
    assert notes == [machine_choice.ONLY_UEFI]
    disk.write_bytes(MBR)
    assert machine_choice.usual(disk, "raw", amd64, notes.append) == "bios"
    assert machine_choice.usual(disk, "raw", arm64, notes.append) == "uefi"
    assert len(notes) == 1


@pytest.mark.parametrize("name", ["amd64", "arm64"])
def test_the_root_partition_says_the_architecture(tmp_path, name):
    disk = bytearray(disk_for_uefi("gpt"))
    disk[1152:1168] = uuid.UUID(ARCHITECTURES[name].image.root_type).bytes_le
    (tmp_path / "disk").write_bytes(disk)
    assert contents.architecture(tmp_path / "disk", "raw", tmp_path) == ARCHITECTURES[name]


def test_a_disk_with_code_for_bios_is_a_pcs(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(disk_for_uefi("dos", code=b"\xeb\x63"))
    assert contents.architecture(disk, "raw", tmp_path) == ARCHITECTURES["amd64"]
    for data in (b"", b"text", bytes(68 * KIB), disk_for_uefi("gpt"), disk_for_uefi("dos")):
        disk.write_bytes(data)
        assert contents.architecture(disk, "raw", tmp_path) is None


def test_the_machine_is_one_for_the_disk(tmp_path, monkeypatch):
    disk, notes = tmp_path / "disk", []
    amd64, arm64 = ARCHITECTURES["amd64"], ARCHITECTURES["arm64"]
    monkeypatch.setattr(machine_choice, "usual_architecture", lambda: arm64)
    disk.write_bytes(disk_for_uefi("gpt"))
    assert machine_choice.architecture_of(None, disk, "raw", notes.append) == arm64
    assert notes == []
    disk.write_bytes(disk_for_uefi("dos", code=b"\xeb\x63"))
    assert machine_choice.architecture_of(None, disk, "raw", notes.append) == amd64
    assert len(notes) == 1
    assert "the disk is for amd64" in notes[0]
    assert machine_choice.architecture_of(arm64, disk, "raw", notes.append) == arm64
    assert len(notes) == 1
