"""A shared cache that is damaged, silent or full is mended, left alone, or an error."""

import errno
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from particle_os.sharing import shared_cache
from particle_os.sharing.shared_cache import Unusable

from .keys import KEY


def damaged(path):
    path.write_bytes(path.read_bytes()[:-1])


def linked(path):
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


@pytest.mark.parametrize("harm", [damaged, Path.unlink])
def test_a_damaged_or_missing_blob_is_written_again(world, harm):
    world.keep()
    before = {path: path.read_bytes() for path in world.blobs}
    harm(world.blobs[1])
    assert world.cache().has_kept("checkpoint", KEY) is None, "a writer would do nothing"
    world.keep()
    assert {path: path.read_bytes() for path in world.blobs} == before
    assert world.cache().has_kept("checkpoint", KEY) is not None
    assert world.fetch().read_bytes() == world.file.read_bytes()


def test_a_link_is_no_blob(world):
    world.keep()
    linked(world.blobs[0])
    assert world.cache().has_kept("checkpoint", KEY) is None


def aged(world):
    for path in world.directory.rglob("*"):
        if path.is_file():
            os.utime(path, (0, 0))


def ages(world):
    return {path: path.stat().st_mtime for path in [*world.blobs, world.place]}


def test_what_a_writer_relies_on_counts_as_new(world):
    """So a rule that removes old files removes no chunk that a newer entry shares."""
    world.keep()
    aged(world)
    assert world.cache().has_kept("checkpoint", KEY) is not None
    assert min(ages(world).values()) > 0
    aged(world)
    world.keep(key="cd" * 20)
    assert all(path.stat().st_mtime > 0 for path in world.blobs)


def test_what_a_reader_uses_keeps_its_age(world):
    world.keep()
    aged(world)
    assert world.fetch() is not None
    assert set(ages(world).values()) == {0}


class Silent:
    """A shared cache that stops to answer after the entries."""

    def __init__(self, store, error):
        self.name, self.asked, self._store, self._error = store.name, 0, store, error

    def entry(self, kind, key):
        return self._store.entry(kind, key)

    def blob(self, digest, size, deadline):
        self.asked += 1
        raise self._error


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (OSError(errno.EIO, "the registry does not answer"), 1),
        (TimeoutError(errno.ETIMEDOUT, "x"), 1),
        (OSError("x"), 1),
        (FileNotFoundError(errno.ENOENT, "the registry lacks a blob"), 5),
        (OSError(errno.EBADMSG, "a blob has another digest"), 5),
    ],
)
def test_a_cache_that_stops_to_answer_is_asked_once(world, tmp_path, error, asked):
    """A blob that is missing or damaged says nothing about the next one."""
    keys = [f"{number:040x}" for number in range(5)]
    for key in keys:
        world.keep("package", key)
    cache = world.cache()
    silent = Silent(cache.sources[0], error)
    cache = replace(cache, sources=[silent])
    for key in keys:
        found = cache.entry("package", key, world.notes.append)
        (tmp_path / key).mkdir()
        if found is not None:
            with pytest.raises(Unusable):
                found.fetch(tmp_path / key)
    assert silent.asked == asked


class Slow:
    """A shared cache that gives each blob after so many seconds."""

    def __init__(self, store, clock, seconds):
        self.name, self.asked = store.name, 0
        self._store, self._clock, self._seconds = store, clock, seconds

    def entry(self, kind, key):
        return self._store.entry(kind, key)

    def blob(self, digest, size, deadline):
        self.asked += 1
        self._clock.sleep(self._seconds)
        return self._store.blob(digest, size, deadline)


@pytest.mark.parametrize(("seconds", "asked"), [(70, 3), (80, 2)])
def test_the_time_of_a_transfer_depends_on_its_size(
    world, tmp_path, clock, monkeypatch, seconds, asked
):
    """The three chunks of 16 MiB have 60 s, and 32 s each."""
    monkeypatch.setattr(shared_cache, "CHUNK_SECONDS", 1e6)
    world.keep()
    cache = world.cache()
    slow = Slow(cache.sources[0], clock, seconds)
    cache = replace(cache, sources=[slow])
    found = cache.entry("checkpoint", KEY, world.notes.append)
    place = tmp_path / "fetched"
    place.mkdir()
    late = pytest.raises(Unusable, match="the transfer of an entry took longer than 156 s")
    with late if asked < 3 else nullcontext():
        found.fetch(place)
    assert slow.asked == asked
    again = cache.entry("checkpoint", KEY, world.notes.append)
    assert (again is None) == (asked < 3), "a slow cache is not asked again"


def test_a_full_disk_is_an_error_with_the_name_of_the_file(world, monkeypatch):
    """A chunk that does not compress is written without a program in between."""
    world.file.write_bytes(os.urandom(5000))
    world.keep()

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert world.fetch() is None
    assert "disk.qcow2: No space left on device" in world.notes[0]
