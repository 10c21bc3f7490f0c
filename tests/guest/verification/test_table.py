"""The verification of partition tables from sfdisk(8), intact and damaged."""

import binascii
import random
import shutil
import struct
import subprocess

import pytest
from particle_agent.contract.findings import Findings
from particle_agent.verification import table

from ...waiting import HANG_SECONDS

pytestmark = pytest.mark.skipif(
    shutil.which("sfdisk", path="/sbin:/usr/sbin") is None, reason="needs the package fdisk"
)
MIB = 1 << 20
SIZE = 64 * MIB
LAST = SIZE // 512 - 1
GPT = """label: gpt
first-lba: 2048
start=1MiB, size=8MiB, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b, name="esp"
start=9MiB, size=20MiB, type=linux, name="root", attrs=LegacyBIOSBootable
"""
DOS = """label: dos
label-id: 0x12345678
start=1MiB, size=8MiB, type=83, bootable
start=9MiB, size=40MiB, type=5
start=10MiB, size=8MiB, type=83
start=20MiB, size=8MiB, type=82
"""


@pytest.fixture
def make(tmp_path):
    def make(script):
        path = tmp_path / "disk"
        with path.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(
            ["/sbin/sfdisk", "--quiet", path],
            input=script,
            text=True,
            check=True,
            timeout=HANG_SECONDS,
        )
        return path

    return make


def judged(path):
    """The table, and the codes of the findings on it."""
    reported = []
    findings = Findings(reported.append)
    with path.open("rb") as disk:
        found = table.read(disk, path.stat().st_size, findings)
        if found is not None:
            table.check(found, findings)
    return found, [finding.code for finding in reported]


def messages(path):
    reported = []
    with path.open("rb") as disk:
        table.read(disk, path.stat().st_size, Findings(reported.append))
    return [finding.message for finding in reported]


def write(path, offset, data):
    with path.open("r+b") as disk:
        disk.seek(offset)
        disk.write(data)


def edit_header(path, sector, change):
    """Changes a GPT header and its entries, and updates their checksums."""
    with path.open("r+b") as disk:
        disk.seek(sector * 512)
        header = bytearray(disk.read(512))
        (where,) = struct.unpack_from("<Q", header, 72)
        disk.seek(where * 512)
        entries = bytearray(disk.read(128 * 128))
        change(header, entries)
        struct.pack_into("<I", header, 88, binascii.crc32(entries))
        struct.pack_into("<I", header, 16, 0)
        struct.pack_into("<I", header, 16, binascii.crc32(header[:92]))
        disk.seek(where * 512)
        disk.write(entries)
        disk.seek(sector * 512)
        disk.write(header)


def edit_both(path, change):
    edit_header(path, 1, change)
    edit_header(path, LAST, change)


def test_a_whole_gpt(make):
    found, codes = judged(make(GPT))
    assert codes == []
    assert found.label == "gpt"
    esp, root = found.entries
    assert (esp.number, esp.start, esp.end, esp.name) == (1, MIB, 9 * MIB, "esp")
    assert (esp.type, esp.active) == ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", False)
    assert (root.number, root.name, root.active) == (2, "root", True)


@pytest.mark.parametrize("extended", ["5", "f", "85"])
def test_a_whole_mbr_with_logical_partitions(make, extended):
    found, codes = judged(make(DOS.replace("type=5", f"type={extended}")))
    assert codes == []
    assert [(e.number, e.type, e.start // MIB) for e in found.entries] == [
        (1, "83", 1), (5, "83", 10), (6, "82", 20),
    ]  # fmt: skip
    assert [e.uuid for e in found.entries] == ["12345678-01", "12345678-05", "12345678-06"]
    assert [e.active for e in found.entries] == [True, False, False]


@pytest.mark.parametrize(
    ("offset", "code", "said"),
    [
        (512 + 56, "gpt-primary-broken", "header in sector 1 does not match its checksum"),
        (2 * 512, "gpt-primary-broken", "entries from sector 2 on do not match"),
        (LAST * 512, "gpt-backup-broken", f"there is no header in sector {LAST}"),
        (LAST * 512 + 56, "gpt-backup-broken", f"header in sector {LAST} does not match its"),
        ((LAST - 32) * 512, "gpt-backup-broken", f"entries from sector {LAST - 32} on do not"),
        (446, "protective-mbr-missing", "the MBR has no entry for the GPT"),
    ],
)
def test_each_copy_of_a_gpt_must_be_whole(make, offset, code, said):
    path = make(GPT)
    write(path, offset, b"\xaa" * 16)
    found, codes = judged(path)
    assert codes == [code]
    assert said in messages(path)[0]
    assert [e.name for e in found.entries] == ["esp", "root"], "the other copy is read"


def test_without_both_copies_there_is_no_table(make):
    path = make(GPT)
    for offset in (512, LAST * 512):
        write(path, offset, bytes(512))
    found, codes = judged(path)
    assert found is None
    assert codes == ["gpt-primary-broken", "gpt-backup-broken"]


def test_a_disk_that_has_grown_and_one_that_was_cut(make):
    path = make(GPT)
    with path.open("r+b") as disk:
        disk.truncate(SIZE + MIB)
    assert judged(path)[1] == ["gpt-backup-misplaced"]
    with path.open("r+b") as disk:
        disk.truncate(20 * MIB)
    assert judged(path)[1] == ["gpt-backup-broken", "partition-outside"]
    assert f"in sector {LAST}, but the disk has {20 * MIB // 512}" in messages(path)[0]


def test_copies_that_differ(make):
    path = make(GPT)
    edit_header(path, LAST, lambda header, entries: entries.__setitem__(slice(56, 58), b"E\0"))
    found, codes = judged(path)
    assert codes == ["gpt-copies-differ"]
    assert found.entries[0].name == "esp"


def entry(number, start, end, uuid=None):
    return table.PartitionEntry(
        number=number, start=int(start * MIB), end=end * MIB, type="x", uuid=uuid or str(number)
    )


@pytest.mark.parametrize(
    ("entries", "codes"),
    [
        ([entry(1, 1, 8), entry(2, 8, 64)], []),
        ([entry(1, 1, 9), entry(2, 8, 64)], ["partition-overlap"]),
        ([entry(1, 8, 64), entry(2, 1, 9)], ["partition-overlap"]),
        ([entry(1, 0, 8)], ["partition-outside"]),
        ([entry(1, 1, 65)], ["partition-outside"]),
        ([entry(1, 8, 8)], ["partition-outside"]),
        ([entry(1, 1 + 1 / 2048, 8)], ["partition-unaligned"]),
        ([entry(1, 1, 8, "c"), entry(2, 8, 9, "a"), entry(3, 9, 10, "c")], ["partition-duplicate"]),
    ],
)
def test_each_fault_of_a_table(entries, codes):
    found = []
    made = table.PartitionTable(label="gpt", entries=tuple(entries), first=MIB, last=64 * MIB)
    table.check(made, Findings(found.append))
    assert [finding.code for finding in found] == codes


@pytest.mark.slow
def test_partitions_that_cannot_be(make):
    def overlap(header, entries):
        struct.pack_into("<Q", entries, 40, 10 * MIB // 512)

    def duplicate(header, entries):
        entries[128 + 16 : 128 + 32] = entries[16:32]

    def unaligned(header, entries):
        struct.pack_into("<Q", entries, 32, 2049)

    def backwards(header, entries):
        struct.pack_into("<QQ", entries, 32, 4096, 2048)

    def outside(header, entries):
        struct.pack_into("<Q", entries, 128 + 40, 1 << 60)

    for change, code in (
        (overlap, "partition-overlap"),
        (duplicate, "partition-duplicate"),
        (unaligned, "partition-unaligned"),
        (backwards, "partition-outside"),
        (outside, "partition-outside"),
    ):
        path = make(GPT)
        edit_both(path, change)
        assert judged(path)[1] == [code], change.__name__


def test_partitions_of_an_mbr_that_cannot_be(make):
    path = make(DOS)
    write(path, 446 + 12, struct.pack("<I", 10 * MIB // 512))
    assert judged(path)[1] == ["partition-overlap"]
    path = make(DOS)
    write(path, 446 + 8, struct.pack("<II", SIZE // 512, 8))
    assert judged(path)[1] == ["partition-outside"]


@pytest.mark.parametrize("kind", [0x05, 0x0F, 0x85])
def test_extended_partitions_of_all_kinds_have_logical_ones(make, kind):
    path = make(DOS)
    write(path, 446 + 16 + 4, bytes([kind]))
    assert [entry.number for entry in judged(path)[0].entries] == [1, 5, 6]


def test_an_extended_partition_that_leads_back_to_itself_has_an_end(make):
    path = make(DOS)
    with path.open("rb") as disk:
        disk.seek(9 * MIB)
        own = disk.read(512)
    second = 9 * MIB + 512 * struct.unpack_from("<I", own, 446 + 16 + 8)[0]
    write(path, second + 446 + 16, struct.pack("<B3sB3sII", 0, b"", 5, b"", 0, 1))
    write(path, 9 * MIB + 446 + 16 + 8, struct.pack("<I", 1))
    write(path, 9 * MIB + 512, own[:-2] + b"\x55\xaa")
    found, _ = judged(path)
    assert len(found.entries) <= 4 + table.LOGICAL_LIMIT


def test_no_table(tmp_path):
    path = tmp_path / "disk"
    for content in (b"", bytes(MIB), b"text\n" * 1000, bytes(510) + b"\x55\xaa"):
        path.write_bytes(content)
        assert judged(path) == (None, [])


def test_garbage_is_no_trap(make):
    """The reader ends without an error and within its limits, whatever overwrites the tables."""
    path = make(GPT)
    start = path.read_bytes()[: 34 * 512]
    choice = random.Random(7)
    seen = set()
    for _ in range(300):
        data = bytearray(start)
        for _ in range(choice.randrange(1, 30)):
            data[choice.choice((446, 512, 1024)) + choice.randrange(512)] = choice.randrange(256)
        # Write a right checksum, so that the reader reads on.
        struct.pack_into("<I", data, 528, 0)
        struct.pack_into("<I", data, 528, binascii.crc32(data[512:604]))
        write(path, 0, data)
        found, codes = judged(path)
        seen.update(codes)
        assert found is None or len(found.entries) <= table.ENTRIES_LIMIT // table.ENTRY.size
    assert {"partition-outside", "partition-unaligned"} <= seen
