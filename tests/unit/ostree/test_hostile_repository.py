"""Repositories that are made to cost memory or time, or to lead elsewhere."""

import hashlib
import os
import zlib

import pytest
from particle_os.errors import UsageError
from particle_os.ostree import files as repository
from particle_os.ostree import history, objects, parent
from particle_os.ostree.files import opened

from ...limited import limited

SETUP = """
from pathlib import Path
from types import SimpleNamespace
from particle_os.ostree import history, objects
from particle_os.ostree.files import opened
"""
DIRECTORY = """
with opened(Path(sys.argv[1])) as files:
    print(len(objects.directory(files, sys.argv[2]).files))
"""
PACKAGES = """
found = objects.TreeDirectory({"status": "0" * 64}, {})
above = objects.TreeDirectory({}, dict.fromkeys(history.DATABASE, ("0" * 64, "")))
objects.directory = lambda files, checksum: SimpleNamespace(
    files=found.files, directories=above.directories
)
with opened(Path(sys.argv[1])) as files:
    print(len(history.packages(files, SimpleNamespace(tree="0" * 64))))
"""


@pytest.fixture
def top(tmp_path):
    made = tmp_path / "repository"
    (made / "refs/heads").mkdir(parents=True)
    (made / "config").write_text("[core]\nmode=archive-z2\n")
    return made


def put(top, data, kind, checksum=None):
    """Adds an object; returns its checksum."""
    checksum = checksum or hashlib.sha256(data).hexdigest()
    place = top / "objects" / checksum[:2] / f"{checksum[2:]}.{kind}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return checksum


def array(items, ends, width):
    return b"".join(items) + b"".join(end.to_bytes(width, "little") for end in ends)


def tree(array_of_files, width):
    """A directory without directories below it."""
    return array_of_files + len(array_of_files).to_bytes(width, "little")


def regular(count):
    items = [b"f%07d\0" % number + bytes(32) + b"\x09" for number in range(count)]
    ends = [(number + 1) * len(items[0]) for number in range(count)]
    return tree(array(items, ends, 4), 4)


@pytest.mark.parametrize("link", ["refs", "refs/heads"])
def test_no_link_leads_a_search_for_refs_elsewhere(top, tmp_path, link):
    (tmp_path / "elsewhere/heads").mkdir(parents=True)
    (tmp_path / "elsewhere/heads/edge").write_text("0" * 64)
    (top / "refs/heads").rmdir()
    if link == "refs":
        (top / "refs").rmdir()
    target = tmp_path / "elsewhere" / ("" if link == "refs" else "heads")
    (top / link).symlink_to(target, target_is_directory=True)
    with opened(top) as files, pytest.raises(UsageError, match="is a symbolic link"):
        history.refs(files)
    assert "is a symbolic link" in parent.fault(top, "edge", "debian")


def test_links_and_devices_among_the_refs_are_none(top, tmp_path):
    (tmp_path / "head").write_text("0" * 64)
    (top / "refs/heads/real").write_text("1" * 64)
    (top / "refs/heads/link").symlink_to(tmp_path / "head")
    (top / "refs/heads/again").symlink_to(top / "refs/heads", target_is_directory=True)
    os.mkfifo(top / "refs/heads/fifo")
    with opened(top) as files:
        assert history.refs(files) == {"real": "1" * 64}


def test_a_search_for_refs_has_an_end(top, monkeypatch):
    monkeypatch.setattr(repository, "NAMES_LIMIT", 10)
    for number in range(6):
        (top / f"refs/heads/{number}").mkdir()
    with opened(top) as files:
        assert history.refs(files) == {}
        for number in range(5):
            (top / f"refs/heads/0/{number}").touch()
        with pytest.raises(UsageError, match="more than 10 files and directories"):
            history.refs(files)


def test_a_search_for_refs_has_a_deadline(top, monkeypatch):
    monkeypatch.setattr(repository, "INDEX_SECONDS", 0.0)
    (top / "refs/heads/edge").write_text("0" * 64)
    with opened(top) as files:
        with pytest.raises(Exception, match="took longer"):
            files.names("refs/heads")


def test_a_large_directory_is_read_within_bounds(top):
    checksum = put(top, regular(60_000), "dirtree")
    assert limited(SETUP, DIRECTORY, top, checksum) == "60000\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(32 << 20), f"more than {objects.OBJECT_LIMIT} bytes"),
        # Items without content, each at the end of the one before.
        (tree(bytes(4 * 1_000_000), 4), "more than 100000 entries"),
        # Items that are the whole object, over and over.
        (tree(array([bytes(3 << 20)], [0, 3 << 20] * 25_000, 4), 4), "malformed"),
    ],
    ids=["size", "count", "overlap"],
)
def test_a_directory_that_is_a_bomb_is_refused(top, data, message):
    assert message in limited(SETUP, DIRECTORY, top, put(top, data, "dirtree"))


def packed(data):
    return bytes(8) + zlib.compress(data, wbits=-15)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b"Package: a\nStatus: install ok installed\nVersion: 1\n\n" * 300_000, "more than 100000"),
        (b"Status: \xf0\x9f\x98\x80 installed\n" * (1 << 19), "0"),
        (b"\n" * (16 << 20), "0"),
        (b"x" * (64 << 20), "more than 16777216 bytes"),
    ],
    ids=["stanzas", "fields", "blank", "size"],
)
def test_a_database_of_packages_is_read_within_bounds(top, text, answer):
    put(top, packed(text), "filez", "0" * 64)
    assert answer in limited(SETUP, PACKAGES, top)


def test_the_beginning_of_a_huge_file_is_read(top):
    put(top, packed(os.urandom(1 << 20) * 65), "filez", "0" * 64)
    with opened(top) as files:
        assert len(objects.content(files, "0" * 64, 100)) == 100
        put(top, (2 << 20).to_bytes(4, "big") + bytes(4 << 20), "filez", "0" * 64)
        with pytest.raises(objects.BadObject, match="malformed"):
            objects.content(files, "0" * 64, 100)
