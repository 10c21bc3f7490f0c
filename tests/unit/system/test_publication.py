import errno
import fcntl
import hashlib
import os
import queue
import threading

import pytest
from particle_os.errors import InfrastructureError, NotPublished
from particle_os.system import publication, workspace
from particle_os.system.publication import (
    MANIFEST,
    SUMS,
    Change,
    finish,
    obstacle,
    publish,
)

from .published import STAGING, check_sums, content, put, sha256, stage, wrong_sums


def test_published_files_can_be_checked_and_nothing_else_is_left(tmp_path):
    stage(tmp_path, {"scratch": "no part of the publication"})
    put(tmp_path, {"a.raw": "raw", "a.qcow2": "qcow2"})
    check_sums(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [SUMS, "a.qcow2", "a.raw"]
    assert (tmp_path / "a.raw").read_text() == "raw"


def test_sums_of_other_images_stay_and_those_of_missing_images_go(tmp_path):
    put(tmp_path, {"a.raw": "old", "gone.raw": "x"})
    put(tmp_path, {"b.raw": "b"})
    (tmp_path / "gone.raw").unlink()
    put(tmp_path, {"a.raw": "new"})
    check_sums(tmp_path)
    lines = (tmp_path / SUMS).read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["a.raw", "b.raw"]


def test_a_line_of_a_binary_file_stays(tmp_path):
    (tmp_path / "other.iso").write_text("other")
    digest = hashlib.sha256(b"other").hexdigest()
    (tmp_path / SUMS).write_text(f"{digest} *other.iso\n")
    put(tmp_path, {"a.raw": "new"})
    check_sums(tmp_path)
    assert f"{digest}  other.iso\n" in (tmp_path / SUMS).read_text()


def test_without_sums_the_file_of_sums_is_not_touched(tmp_path):
    (tmp_path / SUMS).mkdir()
    publish(stage(tmp_path, {"a.tar": "x"}), tmp_path, Change(["a.tar"]))
    assert content(tmp_path) == {"a.tar": "x"}


def test_a_missing_file_lets_nothing_be_published(tmp_path):
    put(tmp_path, {"a.raw": "old"})
    before = content(tmp_path)
    place = stage(tmp_path, {"a.raw": "new"})
    with pytest.raises(NotPublished, match="missing"):
        publish(place, tmp_path, Change(["a.raw", "missing"], sums={"a.raw": "0"}))
    assert content(tmp_path) == before
    assert (place / "a.raw").read_text() == "new"


@pytest.mark.parametrize("text", ["new", None])
def test_a_folder_is_replaced_or_removed_as_a_whole(tmp_path, text):
    put(tmp_path, {"a.raw": "1", "a.evidence/bios/old.log": "old"})
    if text:
        put(tmp_path, {"a.raw": "2", "a.evidence/uefi/new.log": text})
    else:
        put(tmp_path, {"a.raw": "2"}, removed=["a.evidence"])
    found = {name for name in content(tmp_path) if name.startswith("a.evidence")}
    assert found == ({"a.evidence/uefi/new.log"} if text else set())
    assert (tmp_path / "a.evidence").exists() == bool(text)


def test_an_outdated_image_goes_only_if_it_was_published(tmp_path):
    put(tmp_path, {"a.raw": "old", "a.qcow2": "old"})
    (tmp_path / "a.vmdk").write_text("made by the user")
    put(tmp_path, {"a.qcow2": "new"}, outdated=["a.raw", "a.vmdk"])
    assert content(tmp_path).keys() == {SUMS, "a.qcow2", "a.vmdk"}
    check_sums(tmp_path)


@pytest.mark.slow
def test_publishers_in_one_directory_lose_no_line(tmp_path):
    def many(letter):
        for number in range(10):
            put(tmp_path, {f"{letter}{number}.raw": letter}, staging=f".{letter}")

    threads = [threading.Thread(target=many, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_sums(tmp_path)
    assert len((tmp_path / SUMS).read_text().splitlines()) == 30


@pytest.mark.slow
def test_a_reader_with_a_shared_lock_never_sees_a_wrong_sum(tmp_path):
    put(tmp_path, {"a.raw": "0"})
    look, seen = queue.Queue(), []

    def read():
        while look.get():
            descriptor = os.open(tmp_path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                seen.append(wrong_sums(tmp_path))
            finally:
                os.close(descriptor)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20):
        look.put(True)
        put(tmp_path, {"a.raw": str(number)})
    look.put(False)
    reader.join()
    assert seen == [[]] * 20


# Files that are in the way

OBSTACLES = {
    "a directory": os.mkdir,
    "a FIFO": os.mkfifo,
    "a symbolic link": lambda path: path.symlink_to("/dev/zero"),
    "a file": lambda path: path.write_text("precious"),
}


@pytest.mark.parametrize("kind", ["a directory", "a FIFO", "a symbolic link"])
@pytest.mark.parametrize("name", ["a.raw", "a.log", SUMS])
def test_a_file_that_is_no_regular_file_is_not_replaced(tmp_path, name, kind):
    OBSTACLES[kind](tmp_path / name)
    made = Change(["a.raw", "a.log"], ["a.evidence"], ["a.failed"], sums={"a.raw": sha256("x")})
    assert f"{tmp_path / name} is {kind}" in obstacle(tmp_path, made)
    place = stage(tmp_path, {"a.raw": "x", "a.log": "x"})
    with pytest.raises(NotPublished, match=f"is {kind}, and"):
        publish(place, tmp_path, made)
    assert os.listdir(tmp_path) == [name, STAGING] or os.listdir(tmp_path) == [STAGING, name]
    assert (place / "a.raw").read_text() == "x"


@pytest.mark.parametrize("kind", ["a file", "a FIFO", "a symbolic link"])
@pytest.mark.parametrize("name", ["a.evidence", "a.failed"])
def test_a_folder_replaces_only_a_directory(tmp_path, name, kind):
    OBSTACLES[kind](tmp_path / name)
    made = Change(["a.raw"], ["a.evidence"], ["a.failed"])
    assert f"{tmp_path / name} is {kind}" in obstacle(tmp_path, made)


def test_endless_sums_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "TEXT_LIMIT", 100)
    (tmp_path / SUMS).write_text("x" * 101)
    with pytest.raises(NotPublished, match="larger than 100 bytes"):
        put(tmp_path, {"a.raw": "x"})


@pytest.mark.parametrize("read", [publication._sum_lines, publication._read_manifest])
def test_nothing_is_read_through_a_link(tmp_path, read):
    (tmp_path / "elsewhere").write_text('{"files": [], "folders": [], "removed": []}')
    for name in (SUMS, MANIFEST):
        (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(OSError, match="link"):
        read(tmp_path)


def test_a_file_is_complete_when_it_is_synced(tmp_path, monkeypatch):
    sizes, plain = [], os.fsync

    def fsync(descriptor):
        sizes.append(os.fstat(descriptor).st_size)
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    publication._write(tmp_path / "a", "text")
    publication.replace(tmp_path / "b", b"text")
    assert sizes == [4, 4]


def test_a_publisher_waits_for_a_lock_with_a_deadline(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(workspace, "time", clock)
    put(tmp_path, {"a.raw": "old"})
    with workspace.locked_directory(tmp_path, None):
        with pytest.raises(NotPublished, match="another process holds"):
            put(tmp_path, {"a.raw": "new"})
    assert (tmp_path / STAGING / "a.raw").read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_with_advice(tmp_path, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(workspace.fcntl, "flock", refuse)
    with pytest.raises(InfrastructureError) as failure:
        finish(tmp_path)
    assert str(tmp_path) in failure.value.brief
    assert "local file system" in failure.value.hint
