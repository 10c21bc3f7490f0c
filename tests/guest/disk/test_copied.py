"""The copy of an empty file system to its partition."""

import os

import pytest
from particle_agent.disk import copied
from particle_agent.errors import StageError

MIB = 1 << 20


@pytest.mark.slow
def test_a_sparse_file_arrives_with_its_data_in_place(tmp_path):
    file, device = tmp_path / "file", tmp_path / "device"
    with file.open("wb") as sparse:
        sparse.write(b"start")
        sparse.seek(5 * MIB)
        sparse.write(b"middle" * MIB)
        sparse.truncate(64 * MIB)
    with device.open("wb") as disk:
        disk.truncate(80 * MIB)
    with file.open("rb") as source:
        copied.copy_data(source, device)
    assert device.read_bytes() == file.read_bytes().ljust(80 * MIB, b"\0")
    assert device.stat().st_blocks * 512 < 20 * MIB


def test_the_makers_write_to_a_file_that_is_gone_afterwards(target, tmp_path):
    partition = tmp_path / "partition"
    partition.touch()
    os.truncate(partition, 2 * MIB)

    def make(command):
        place = target.path(command.argv[-1])
        assert place.stat().st_size == 2 * MIB
        place.write_bytes(b"super block")

    target.when("mkfs.xfs", make)
    copied.make(target, "xfs", partition, label="root", uuid="1", size=2 * MIB)
    assert partition.read_bytes().startswith(b"super block\0")
    assert str(partition) not in target.only("mkfs.xfs").argv
    assert target.list("/var/cache/apt/archives") == []


@pytest.mark.timeout(60)
def test_a_maker_that_leaves_a_fifo_is_an_error(target, tmp_path):
    def make(command):
        place = target.path(command.argv[-1])
        place.unlink()
        os.mkfifo(place)

    target.when("mkfs.xfs", make)
    with pytest.raises(StageError, match="is no regular file"):
        copied.make(target, "xfs", tmp_path / "partition", label="root", uuid="1", size=2 * MIB)
