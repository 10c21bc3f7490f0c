"""Package files of the recipe that others replace while a build runs."""

import hashlib
import os

import pytest
from particle_os.errors import DeadlineExceeded, InfrastructureError

from ...waiting import plenty

CONTENT = b"a package"
REFERENCE = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def local(depot, tmp_path):
    place = tmp_path / "tool.deb"
    place.write_bytes(CONTENT)
    depot._attachments, depot._sizes = {REFERENCE: place}, {REFERENCE: len(CONTENT)}
    (tmp_path / "local").mkdir()
    return place


def taken(depot, tmp_path, deadline=None):
    return depot._take_local([REFERENCE], tmp_path / "local", deadline or plenty())


def test_the_bytes_that_were_hashed_are_copied(depot, local, tmp_path):
    (copy,) = taken(depot, tmp_path)
    assert copy.read_bytes() == CONTENT


def grow(place):
    os.truncate(place, 1 << 40)


def change(place):
    place.write_bytes(CONTENT[::-1])


def plant_endless(place):
    place.unlink()
    place.symlink_to("/dev/zero")


def plant_fifo(place):
    place.unlink()
    os.mkfifo(place)


@pytest.mark.parametrize("disturb", [grow, change, plant_endless, plant_fifo])
def test_what_another_one_puts_in_its_place_is_refused_at_once(depot, local, tmp_path, disturb):
    disturb(local)
    with pytest.raises(InfrastructureError, match=r"has changed|not a regular file"):
        taken(depot, tmp_path)


def test_copying_ends_at_the_deadline(depot, local, tmp_path, clock):
    with pytest.raises(DeadlineExceeded):
        taken(depot, tmp_path, clock.deadline(0))
