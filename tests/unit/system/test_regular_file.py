"""Files under names that others may have chosen: nothing is followed, waited for, or swallowed."""

import os
import socket

import pytest
from particle_os.system.regular_file import open_regular, read_regular


def fifo(path):
    os.mkfifo(path)


def bound_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def directory(path):
    path.mkdir()


def endless_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [fifo, bound_socket, directory, endless_device])
def test_only_a_regular_file_is_opened(tmp_path, make):
    make(tmp_path / "one")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "one")
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(tmp_path / "one", 10)


def test_nothing_stays_open_when_the_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "one")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(tmp_path / "one")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_is_followed_only_where_that_is_wanted(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 7) == b"content"
    with pytest.raises(OSError, match="a symbolic link"):
        read_regular(tmp_path / "link", 7, follow=False)
    assert read_regular(tmp_path / "file", 7, follow=False) == b"content"


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "one").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "one", 10) == b"0123456789"
    with pytest.raises(OSError, match="larger than 9 bytes"):
        read_regular(tmp_path / "one", 9)


def test_a_huge_file_is_refused_without_being_read(tmp_path):
    with (tmp_path / "one").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than 4096 bytes"):
        read_regular(tmp_path / "one", 4096)


def test_a_missing_file_is_told_as_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 1)
