import hashlib
import subprocess
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from particle_os.errors import InfrastructureError
from particle_os.jobs import artifact
from particle_os.system.checksum import tree_sha256
from particle_os.system.workspace import allocated_bytes

BLOCK = 4096
PIECES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 20 * BLOCK) | st.integers(0, 20).map(BLOCK.__mul__)),
    max_size=6,
)


@settings(max_examples=60)
@given(pieces=PIECES)
def test_holes_do_not_change_the_checksums(tmp_path_factory, pieces):
    path = tmp_path_factory.getbasetemp() / "sparse"
    with path.open("wb") as file:
        for is_hole, size in pieces:
            file.seek(size, 1) if is_hole else file.write(b"\xa5" * size)
        file.truncate(file.tell())
    found, size = artifact.checksums(path).result(20), path.stat().st_size
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.tree_sha256 == tree_sha256(path, size)


def test_a_file_that_is_one_large_hole(tmp_path):
    path = tmp_path / "hole"
    with path.open("wb") as file:
        file.truncate(3 * (1 << 20) + 5)
    whole = hashlib.sha256(path.read_bytes()).hexdigest()
    assert artifact.checksums(path).result(20).sha256 == whole


SIZE = 6 << 20


@pytest.fixture
def disk(tmp_path):
    """A sparse disk as the guest leaves it: larger than the SIZE that the guest reports."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.write(b"boot code")
        file.seek(5 << 20)
        file.write(b"content")
        file.truncate(8 << 20)
    return path


def test_the_disk_is_cut_and_stays_sparse(disk):
    sums = artifact.receive(disk, SIZE, artifact.checksums(disk, SIZE)).result(20)
    assert disk.stat().st_size == SIZE
    assert sums.sha256 == hashlib.sha256(disk.read_bytes()).hexdigest()
    assert allocated_bytes(disk) < 1 << 20


@pytest.mark.parametrize("position", [0, 3 << 20, SIZE - 1])
def test_a_write_after_the_report_of_the_guest_is_noticed(disk, position):
    early = artifact.checksums(disk, SIZE)
    early.result(20)
    with disk.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(InfrastructureError, match="checksums differ"):
        artifact.receive(disk, SIZE, early).result(20)


def with_crc32(data, place, wanted):
    """The data with four other bytes at `place`, so that its CRC-32 is `wanted`."""
    rows = []
    for bit in range(32):
        changed = bytearray(data)
        changed[place + bit // 8] ^= 1 << bit % 8
        rows.append((zlib.crc32(changed) ^ zlib.crc32(data), 1 << bit))
    left, flips = zlib.crc32(data) ^ wanted, 0
    for column in range(32):
        pivot = next((row for row in rows if row[0] >> column & 1), None)
        if pivot is None:
            continue
        rows = [
            (row[0] ^ pivot[0], row[1] ^ pivot[1]) if row[0] >> column & 1 else row
            for row in rows
            if row is not pivot
        ]
        if left >> column & 1:
            left, flips = left ^ pivot[0], flips ^ pivot[1]
    made = bytearray(data)
    for bit in range(32):
        made[place + bit // 8] ^= (flips >> bit & 1) << bit % 8
    return bytes(made)


def test_a_change_with_the_same_crc32_is_noticed(disk):
    """A guest can choose four bytes so that a CRC-32 stays equal."""
    early = artifact.checksums(disk, SIZE)
    early.result(20)
    chunk = disk.read_bytes()[: 1 << 20]
    forged = with_crc32(b"QFI\xfb" + chunk[4:], 4096, zlib.crc32(chunk))
    assert forged != chunk and zlib.crc32(forged) == zlib.crc32(chunk)
    with disk.open("r+b") as file:
        file.write(forged)
    with pytest.raises(InfrastructureError, match="checksums differ"):
        artifact.receive(disk, SIZE, early).result(20)


@pytest.mark.parametrize(
    ("place", "text", "found"),
    [
        (0, b"QFI\xfb\0\0\0\3", "qcow2"),
        (0, b"KDMV", "vmdk"),
        (0, b"COWD", "vmdk"),
        (0, b"# a comment\n\n  \n# Disk DescriptorFile\nversion=1\n", "vmdk"),
        (0, b"version=1\nCID=1\n", "vmdk"),
        (0, b"vhdxfile", "vhdx"),
        (0, b"conectix", "vhd"),
        (SIZE - 512, b"conectix", "vhd"),
        (SIZE - 512, b"koly", "dmg"),
        (0, b"QED\0", "qed"),
        (64, b"\x7f\x10\xda\xbe", "vdi"),
        (0, b"WithoutFreeSpace", "parallels"),
    ],
)
def test_a_raw_disk_that_poses_as_another_format_is_refused(disk, place, text, found):
    with disk.open("r+b") as file:
        file.seek(place)
        file.write(text)
        file.truncate(SIZE)
    with pytest.raises(InfrastructureError, match=f"format {found} does"):
        artifact.check_raw(disk)


@pytest.mark.parametrize("text", [b"\xeb\x63\x90", b"LUKS\xba\xbe\0\2", b"\0", b"#\n#\n", b"vers"])
def test_a_raw_disk_is_no_other_format(disk, text):
    with disk.open("r+b") as file:
        file.write(text + bytes(512))
    artifact.check_raw(disk)
    assert disk.read_bytes().startswith(text)


def test_the_checksums_of_an_unreadable_disk_raise_its_error(disk):
    early = artifact.checksums(disk, (8 << 20) + 1)
    with pytest.raises(EOFError):
        artifact.receive(disk, SIZE, early).result(20)


@pytest.mark.parametrize("image_format", [f for f in artifact.DRIVERS if f != "raw"])
def test_a_raw_disk_is_converted_as_raw_whatever_it_contains(tmp_path, soon, image_format):
    raw, image = tmp_path / "x.raw", tmp_path / "x.image"
    # The header of a qcow2 image, and a size that is no whole number of cylinders.
    header = b"QFI\xfb\0\0\0\x03" + bytes((5 << 20) - 8 - 512)
    raw.write_bytes(header + b"\xa5" * 512)
    artifact.convert(raw, image, image_format, soon, compressed=image_format == "qcow2")
    back = tmp_path / "back.raw"
    driver = artifact.DRIVERS[image_format]
    subprocess.run(
        ["qemu-img", "convert", "-f", driver, "-O", "raw", str(image), str(back)], check=True
    )
    assert back.read_bytes() == raw.read_bytes()


def test_an_image_that_does_not_hold_the_disk_is_noticed(tmp_path, soon, monkeypatch):
    """The converter writes another disk and reports success."""
    raw = tmp_path / "x.raw"
    raw.write_bytes(b"\xa5" * (1 << 20))
    other = tmp_path / "other.raw"
    other.write_bytes(bytes(1 << 20))
    convert = artifact.process.run

    def wrong(argv, **options):
        if "convert" in argv:
            argv = [str(argument).replace(str(raw), str(other)) for argument in argv]
        return convert(argv, **options)

    monkeypatch.setattr(artifact.process, "run", wrong)
    with pytest.raises(InfrastructureError, match="comparing"):
        artifact.convert(raw, tmp_path / "x.qcow2", "qcow2", soon)


def test_a_compressed_image_has_the_content_of_the_disk(tmp_path, soon):
    raw, packed = tmp_path / "x.raw", tmp_path / "x.raw.zst"
    raw.write_bytes(b"content" + bytes(3 << 20))
    sha256 = hashlib.sha256(raw.read_bytes()).hexdigest()
    artifact.compress(raw, packed, sha256, soon)
    back = subprocess.run(["zstd", "-dc", packed], check=True, capture_output=True).stdout
    assert back == raw.read_bytes()
    assert packed.stat().st_size < 10_000
    packed.unlink()
    with pytest.raises(InfrastructureError, match="checksums differ"):
        artifact.compress(raw, packed, "0" * 64, soon)
