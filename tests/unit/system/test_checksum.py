import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from particle_os.errors import DeadlineExceeded
from particle_os.system import checksum
from particle_os.system.checksum import file_sha256, of_one_reading, tree_sha256

from ...limited import limited

PIECES = st.lists(
    st.one_of(st.binary(max_size=100), st.integers(0, 100).map(bytes)), max_size=8
).map(b"".join)


def by_definition(data, chunk):
    chunks = [data[i : i + chunk] for i in range(0, len(data), chunk)]
    digests = b"".join(hashlib.sha256(each).digest() for each in chunks)
    return hashlib.sha256(digests).hexdigest()


def both(path, size):
    found = tree_sha256(path, size)
    at_once = of_one_reading(path, size)
    assert found == at_once.tree_sha256
    assert at_once.sha256 == hashlib.sha256(path.read_bytes()[:size]).hexdigest()
    return found


@pytest.mark.slow
@given(data=PIECES, chunk=st.integers(1, 70), extra=st.binary(max_size=20))
def test_it_is_what_it_is_defined_to_be(tmp_path_factory, data, chunk, extra):
    path = tmp_path_factory.getbasetemp() / "checksum"
    path.write_bytes(data + extra)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksum, "CHUNK", chunk)
        assert both(path, len(data)) == by_definition(data, chunk)


def test_a_sparse_disk_of_several_chunks(tmp_path):
    path = tmp_path / "disk"
    size = 2 * checksum.CHUNK + 12345
    with path.open("wb") as file:
        file.seek(checksum.CHUNK + 7)
        file.write(b"data")
        file.truncate(size)
    assert both(path, size) == by_definition(path.read_bytes(), checksum.CHUNK)


@pytest.mark.parametrize("extra", [0, 1, checksum.CHUNK - 1])
def test_holes_before_between_and_after_data(tmp_path, monkeypatch, extra):
    monkeypatch.setattr(checksum, "WINDOW", 3)
    monkeypatch.setattr(checksum, "HOLE_WINDOW", 2)
    path = tmp_path / "disk"
    size = 40 * checksum.CHUNK + extra
    with path.open("wb") as file:
        for place in (7 * checksum.CHUNK - 1, 9 * checksum.CHUNK + 5, 23 * checksum.CHUNK):
            file.seek(place)
            file.write(b"data")
        file.truncate(size + 4096)
    whole = path.read_bytes()[:size]
    assert tree_sha256(path, size) == by_definition(whole, checksum.CHUNK)


TERABYTE = """
from pathlib import Path
from particle_os.system.checksum import tree_sha256
"""


def test_a_terabyte_of_zeros_costs_little_memory_and_time(tmp_path):
    path = tmp_path / "disk"
    path.touch()
    size = 1 << 40
    os.truncate(path, size)
    zeros = hashlib.sha256(bytes(checksum.CHUNK)).digest()
    found = limited(TERABYTE, f"print(tree_sha256(Path(sys.argv[1]), {size}))", path)
    assert found.strip() == hashlib.sha256(zeros * (size // checksum.CHUNK)).hexdigest()


@pytest.mark.parametrize("read", [tree_sha256, of_one_reading])
def test_reading_a_disk_ends_at_the_deadline(tmp_path, monkeypatch, clock, read):
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 10)
    over = clock.deadline(0, "the build")
    with pytest.raises(DeadlineExceeded, match="the build took longer"):
        read(path, 10, over)
    monkeypatch.setattr(checksum, "READ_SECONDS", 0)
    with pytest.raises(DeadlineExceeded, match="reading"):
        read(path, 10)


def test_a_disk_that_is_shorter_than_told_is_an_error(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"short")
    for read in (tree_sha256, of_one_reading):
        with pytest.raises(EOFError):
            read(path, 6)


@pytest.mark.parametrize("position", [0, 99, 100, 12_344])
def test_any_changed_byte_changes_it(tmp_path, position):
    path = tmp_path / "disk"
    data = bytearray(12_345)
    path.write_bytes(data)
    before = both(path, len(data))
    data[position] = 1
    path.write_bytes(data)
    assert both(path, len(data)) != before


def test_the_checksum_of_a_whole_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content" * 1000)
    assert file_sha256(path) == hashlib.sha256(b"content" * 1000).hexdigest()


@pytest.mark.parametrize("read", [tree_sha256, of_one_reading])
def test_neither_a_link_nor_a_fifo_is_a_disk(tmp_path, read):
    (tmp_path / "disk").write_bytes(bytes(10))
    (tmp_path / "link").symlink_to("disk")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(OSError):
            read(tmp_path / name, 10)


def test_a_file_that_cannot_be_read_in_time_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checksum, "READ_SECONDS", 0)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DeadlineExceeded, match=r"reading .*/file took longer"):
        file_sha256(tmp_path / "file")
