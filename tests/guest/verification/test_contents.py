"""A disk that holds something else than a system is named for what it holds."""

import shutil
import struct
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from particle_agent import verification
from particle_agent.contract.contents import CONTENTS, SEALED, content_of
from particle_agent.disk import reading
from particle_agent.disk.reading import Tree
from particle_agent.verification import inspection, table, volumes

from ... import samples
from ...waiting import HANG_SECONDS

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name, path="/sbin:/usr/sbin") for name in ("sfdisk", "mke2fs", "blkid")),
    reason="needs the packages fdisk, e2fsprogs and util-linux",
)
MIB = 1 << 20


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Only mounting is replaced: each file system has the files of `tmp_path`/tree."""
    tree = tmp_path / "tree"
    tree.mkdir()

    @contextmanager
    def mounted(node, kind):
        yield tree if kind in reading.MOUNTED else None

    @contextmanager
    def looped(device, sector):
        yield device

    monkeypatch.setattr(reading, "mounted", mounted)
    monkeypatch.setattr(inspection, "mounted", mounted)
    monkeypatch.setattr(reading, "looped", looped)
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    return tree


def judged(path):
    """The messages of the findings by their codes."""
    reported = []
    verification.of_disk(path, reported.append)
    return {finding.code: finding.message for finding in reported}


def make_system(tree):
    for name in ("usr/bin", "etc"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/hostname").write_text("box\n")
    (tree / "usr/bin/init").write_text("program")


@pytest.mark.parametrize("kind", samples.KINDS)
def test_a_disk_is_named_for_what_it_holds(tmp_path, kind):
    found = judged(samples.write(kind, tmp_path / "disk"))
    content = content_of(kind)
    assert "partition-table-missing" not in found
    assert "file-system-unreadable" not in found
    assert f"the whole disk is {content.words}. {content.advice}" in found["boot-loader-missing"]
    assert ("its content is not read" in found["system-not-found"]) == (kind in SEALED)


@pytest.mark.parametrize("kind", samples.KINDS)
def test_an_inspection_has_the_kind(tmp_path, kind):
    found = inspection.of_disk(samples.write(kind, tmp_path / "disk"))
    assert [part.file_system.kind for part in found.partitions] == [kind]


def test_a_disk_to_which_nothing_was_written_is_named_so(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(2 * MIB))
    assert judged(path)["partition-table-missing"].startswith("nothing has been written to it")
    path.write_bytes(b"some text\n" * 1000)
    assert "is the file an image" in judged(path)["partition-table-missing"]


def test_a_root_in_a_container_is_no_missing_system_without_a_word(tmp_path, monkeypatch):
    disk, luks = tmp_path / "disk", samples.write("crypto_LUKS", tmp_path / "luks")
    with disk.open("wb") as file:
        file.truncate(8 * MIB)
    script = "label: gpt\nstart=1MiB, size=2MiB\nstart=3MiB\n"
    argv = ["/sbin/sfdisk", "-q", disk]
    subprocess.run(argv, input=script, text=True, check=True, timeout=HANG_SECONDS)
    monkeypatch.setattr(volumes, "_node", lambda device, entry: luks if entry else device)
    assert judged(disk)["system-not-found"].count("is a LUKS container (encrypted), and") == 2


# GPT for large sectors


def test_a_gpt_for_large_sectors_is_whole(tmp_path):
    path = samples.write_large_sectors(tmp_path / "disk")
    found = judged(path)
    assert found.keys() == {"gpt-sector-size", "boot-loader-missing", "system-not-found"}
    assert "sectors of 4096 bytes" in found["gpt-sector-size"]
    with path.open("rb") as disk:
        entries = table.read(disk, path.stat().st_size, _NoFindings()).entries
    assert [(e.name, e.start // MIB) for e in entries] == [("esp", 1), ("root", 2)]


@pytest.mark.parametrize("copy", [4096, samples.LARGE_SECTOR_BYTES - 4096])
def test_each_damaged_copy_of_a_gpt_for_large_sectors_is_found(tmp_path, copy):
    path = samples.write_large_sectors(tmp_path / "disk")
    with path.open("r+b") as disk:
        disk.seek(copy)
        disk.write(bytes(16))
    broken = "gpt-primary-broken" if copy == 4096 else "gpt-backup-broken"
    found = judged(path)
    assert [code for code in found if code.startswith("gpt-")] == ["gpt-sector-size", broken]


def test_a_disk_of_large_sectors_is_read_through_a_device_of_such_sectors(tmp_path, monkeypatch):
    asked = []

    @contextmanager
    def looped(device, sector):
        asked.append(sector)
        yield device

    monkeypatch.setattr(reading, "looped", looped)
    path = samples.write_large_sectors(tmp_path / "disk")
    judged(path)
    inspection.of_disk(path)
    assert asked == [4096, 4096]


def test_the_partitions_of_a_device_with_a_number_have_a_letter():
    assert reading.partition(Path("/dev/vda"), 2) == Path("/dev/vda2")
    assert reading.partition(Path("/dev/loop0"), 2) == Path("/dev/loop0p2")


class _NoFindings:
    def add(self, *finding):
        """Ignores a finding."""


# Hybrid images


WHOLE, ESP = (0, 740, 0x17), (200, 100, 0xEF)


def make_hybrid(path, *partitions):
    """Gives an ISO 9660 image boot code and partitions, each with first sector, length and type."""
    with path.open("r+b") as disk:
        disk.write(b"\xfa\x90" + b"\x90" * 400)
        for index, (start, count, kind) in enumerate(partitions):
            disk.seek(446 + 16 * index)
            disk.write(struct.pack("<B3xB3xII", 0x80 if index == 0 else 0, kind, start, count))
        disk.seek(510)
        disk.write(b"\x55\xaa")


@pytest.fixture
def hybrid(tmp_path):
    path = samples.write("iso9660", tmp_path / "disk")
    make_hybrid(path, WHOLE, ESP)
    return path


@pytest.mark.parametrize("start", [0, 1, 64])
@pytest.mark.parametrize("kind", [0, 0x17, 0xCD])
def test_a_hybrid_image_for_bios_alone_has_no_errors(tmp_path, start, kind):
    path = samples.write("iso9660", tmp_path / "disk")
    make_hybrid(path, (start, 740 - start, kind))
    assert judged(path).keys() == {"system-not-found"}
    (part,) = inspection.of_disk(path).partitions
    assert part.file_system.kind == "iso9660"


def test_a_gpt_beside_the_mbr_of_a_hybrid_image_is_none(hybrid):
    """isohybrid writes one that Linux ignores (option -isohybrid-gpt-basdat of xorriso)."""
    with hybrid.open("r+b") as disk:
        disk.seek(512)
        disk.write(b"EFI PART" + bytes(504))
    assert judged(hybrid).keys() == {"boot-loader-file-missing", "system-not-found"}


def test_the_partitions_of_a_hybrid_image_may_lie_in_it(hybrid, machine):
    found = judged(hybrid)
    assert found.keys() == {"boot-loader-file-missing", "system-not-found"}
    assert "whose live system is in one of its files" in found["system-not-found"]


def test_the_file_system_of_a_hybrid_image_is_that_of_the_whole_disk(hybrid):
    found = inspection.of_disk(hybrid)
    kinds = [part.file_system and part.file_system.kind for part in found.partitions]
    assert kinds == ["iso9660", None]


def test_a_partition_table_behind_an_old_iso_is_judged_as_ever(hybrid):
    make_hybrid(hybrid, (150, 100, 0x83), ESP)
    assert {"partition-overlap", "partition-unaligned"} <= judged(hybrid).keys()


# Btrfs


@pytest.mark.parametrize("subvolume", ["", "@", "@rootfs"])
def test_a_system_in_a_subvolume_is_found(tmp_path, machine, subvolume):
    make_system(machine / subvolume)
    path = samples.write("btrfs", tmp_path / "disk")
    assert inspection.of_disk(path).system.hostname == "box"
    assert "system-not-found" not in judged(path)


def test_the_default_subvolume_comes_first(machine, monkeypatch):
    for place in ("@old", "@/.snapshots/1/snapshot"):
        make_system(machine / place)
    told = "ID 259 gen 12 top level 256 path @/.snapshots/1/snapshot\n"
    monkeypatch.setattr(reading, "ask", lambda *argv: told)
    found = reading.system_in(Tree(machine), "btrfs")
    assert found.root == machine / "@/.snapshots/1/snapshot"
    monkeypatch.setattr(reading, "ask", lambda *argv: "ID 5 (FS_TREE)\n")
    assert reading.system_in(Tree(machine), "btrfs").root == machine / "@old"


def test_only_btrfs_has_subvolumes(machine):
    make_system(machine / "@")
    assert reading.system_in(Tree(machine), "ext4") is None


# The table of words


def test_every_kind_says_what_it_is_and_what_to_do():
    for kind, content in CONTENTS.items():
        assert content.words.startswith(("a ", "an ", "the ", "swap")), kind
        assert content.advice.endswith("."), kind
    assert content_of("f2fs").words == "the file system f2fs"
