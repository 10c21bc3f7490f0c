"""A file of results is the old one or the new one at any moment, and never a half one."""

import fcntl
import os
import socket

import pytest
from particle_os.system import publication
from particle_os.system.publication import replace

from ... import faults

OLD, NEW = b"old\n" * 1000, b"new and longer\n" * 20_000


def simple(place, data):
    """The simple way, which is wrong."""
    place.write_bytes(data)


def campaign(place, fault, write):
    """Lets each system call of `write` fail, or be the last; returns what was there then."""

    def prepare():
        for path in place.parent.iterdir():
            path.unlink()
        place.write_bytes(OLD)
        return lambda: write(place, NEW)

    for outcome in faults.each(prepare, fault, (OSError,)):
        others = [path for path in place.parent.iterdir() if path != place]
        assert others == [] or outcome.end == "killed" or outcome.call == "unlink"
        yield outcome, place.read_bytes()


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_after_a_fault_at_any_call_the_file_is_the_old_or_the_new_one(tmp_path, fault):
    for outcome, found in campaign(tmp_path / "boot.xml", fault, replace):
        assert found == NEW or (found == OLD and outcome.end != "returned"), outcome
    assert (outcome.end, found) == ("returned", NEW)


def test_a_kill_leaves_nothing_that_the_next_start_does_not_remove(tmp_path, monkeypatch):
    left = 0
    for outcome, _ in campaign(tmp_path / "boot.xml", "kill", replace):
        left += len(os.listdir(tmp_path)) - 1
        publication._remove_left.cache_clear()
        replace(tmp_path / "boot.xml", NEW)
        assert os.listdir(tmp_path) == ["boot.xml"], outcome
    # The file has a name between two calls only.
    assert left <= 2


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_file_system_without_unnamed_files(tmp_path, monkeypatch, unnamed):
    if not unnamed:
        monkeypatch.setattr(publication.os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(
        publication.os, "fsync", lambda file: (seen.extend(os.listdir(tmp_path)), fsync(file))
    )
    replace(tmp_path / "boot.xml", NEW)
    assert (tmp_path / "boot.xml").read_bytes() == NEW
    assert len(seen) == (0 if unnamed else 1)


def test_only_files_that_no_process_writes_are_removed(tmp_path):
    names = {name: tmp_path / f".particle-os-{name * 12}" for name in "abcd"}
    for name in "ab":
        names[name].write_bytes(OLD)
    names["c"].mkdir()
    names["d"].symlink_to(names["a"])
    (tmp_path / ".particle-os-publication").write_bytes(OLD)
    with names["a"].open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        replace(tmp_path / "boot.xml", NEW)
    kept = {"boot.xml", ".particle-os-publication", *(names[name].name for name in "acd")}
    assert set(os.listdir(tmp_path)) == kept


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_a_file_that_is_written_in_place_is_noticed(tmp_path, fault):
    found = {text for _, text in campaign(tmp_path / "boot.xml", fault, simple)}
    assert found - {OLD, NEW} != set()


def test_a_new_file_has_the_rights_of_any_file(tmp_path):
    (tmp_path / "usual").touch()
    replace(tmp_path / "boot.xml", NEW)
    assert (tmp_path / "boot.xml").stat().st_mode == (tmp_path / "usual").stat().st_mode


def planted(place, kind):
    """Puts something that is no file at `place`; returns what closes it."""
    match kind:
        case "a symbolic link":
            place.symlink_to(place.with_name("victim"))
        case "a FIFO":
            os.mkfifo(place)
        case "a directory":
            place.mkdir()
        case "a socket":
            bound = socket.socket(socket.AF_UNIX)
            bound.bind(str(place))
            return bound.close
    return lambda: None


@pytest.mark.parametrize("kind", ["a symbolic link", "a FIFO", "a directory", "a socket"])
def test_only_a_regular_file_is_replaced(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # The path of a socket is short.
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    close = planted(tmp_path.joinpath("x").relative_to(tmp_path), kind)
    with pytest.raises(OSError, match=kind):
        replace(tmp_path / "x", NEW)
    close()
    assert victim.read_bytes() == OLD
    assert sorted(os.listdir(tmp_path)) == ["victim", "x"]
