"""Commits of a repository, from an archive and from a directory."""

import io
import json
import tarfile
from contextlib import suppress

import pytest
from click.testing import CliRunner
from particle_os.cli.ostree.commands import ostree_group
from particle_os.ostree import history, objects
from particle_os.ostree.files import opened, read
from particle_os.ostree.objects import BadObject

from .sample import NEW, OLD, archive

COMMIT = f"objects/{NEW[:2]}/{NEW[2:]}.commit"


@pytest.fixture(params=["archive", "directory"])
def place(request, tmp_path):
    """A repository as an archive, and as a directory."""
    if request.param == "archive":
        (tmp_path / "edge.ostree.tar").write_bytes(archive())
        return tmp_path / "edge.ostree.tar"
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        tar.extractall(tmp_path / "repository", filter="data")
    return tmp_path / "repository"


def run(*arguments):
    return CliRunner().invoke(ostree_group, [str(word) for word in arguments])


def test_the_log_has_every_commit_of_the_repository(place):
    with opened(place) as files:
        assert history.refs(files) == {"debian/edge": NEW}
        new, old = history.log(files, history.resolve(files, None))
    assert (new.checksum, new.parent, new.date, new.version) == (NEW, OLD, 2000, "2")
    assert new.texts["particle-os.stateroot"] == "debian"
    assert (old.checksum, old.parent, old.date, old.subject) == (OLD, None, 1000, "The first")


def test_the_difference_is_that_of_ostree(place):
    found = run("diff", place, "--json")
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert (data["before"], data["after"], data["files_left_out"]) == (OLD, NEW, 0)
    assert sorted(data["files"]) == [
        "A /usr/new",
        "A /usr/new/sub",
        "A /usr/new/sub/file",
        "D /usr/gone",
        "D /usr/gone/deep",
        "D /usr/gone/deep/file",
        "M /usr/bin/prog",
        "M /usr/lib/mode",
        "M /usr/share/dpkg/database/status",
    ]
    assert data["packages"] == [
        {"name": "b:amd64", "before": "1", "after": "2"},
        {"name": "c:amd64", "before": "1", "after": None},
        {"name": "d:amd64", "before": None, "after": "1"},
    ]
    assert "c:amd64 1 → removed" in run("diff", place, OLD, "debian/edge").stdout


def test_the_log_is_shown(place):
    lines = run("log", place).stdout.splitlines()
    assert lines[0] == f"commit {NEW}"
    assert "  date     1970-01-01 00:33:20 UTC" in lines
    assert "  subject  The first" in lines
    assert json.loads(run("log", place, OLD, "--json").stdout)[0]["parent"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("log", "debian/other"), "has no ref 'debian/other'"),
        (("log", "0" * 64), f"lacks the object {'0' * 64}.commit"),
        (("diff", OLD, "x"), "has no ref 'x'"),
    ],
)
def test_what_the_repository_lacks_is_said(place, arguments, message):
    verb, *words = arguments
    found = run(verb, place, *words)
    assert found.exit_code == 2
    assert message in found.stderr


def test_a_commit_is_no_directory(place):
    with opened(place) as files, pytest.raises(BadObject, match="lacks"):
        objects.directory(files, OLD)


def test_a_damaged_object_is_refused(place, tmp_path):
    data = archive().replace(b"particle-os.stateroot", b"particle-os.stateroof")
    (tmp_path / "damaged.tar").write_bytes(data)
    found = run("log", tmp_path / "damaged.tar")
    assert found.exit_code == 2
    assert "is damaged" in found.stderr


@pytest.mark.parametrize(
    "name", ["../secret", "objects/../../secret", "/etc/passwd", "objects/./x", "tmp/x", "", "."]
)
def test_no_other_file_is_read(place, name):
    (place.parent / "secret").write_text("secret")
    with opened(place) as files:
        assert files.open(name) is None
        assert read(files, COMMIT, 1 << 20)


def test_no_link_in_a_directory_is_followed(tmp_path):
    (tmp_path / "top/objects").mkdir(parents=True)
    (tmp_path / "top/config").write_text("[core]\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/secret").write_text("secret")
    (tmp_path / "top/objects/aa").symlink_to(tmp_path / "out")
    (tmp_path / "top/objects/secret").symlink_to(tmp_path / "out/secret")
    with opened(tmp_path / "top") as files:
        assert files.open("objects/aa/secret") is None
        assert files.open("objects/secret") is None


@pytest.mark.parametrize("data", [b"no archive" * 100, b"", bytes(1024)])
def test_a_file_that_is_no_repository_is_refused(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    found = run("log", tmp_path / "file")
    assert found.exit_code == 2
    assert "file" in found.stderr


@pytest.mark.parametrize("seed", range(200))
def test_a_malformed_object_ends_with_an_error_of_ours(seed):
    """Any bytes: the readers raise BadObject, or return."""
    size = seed * 7 % 600
    data = bytes((seed * 31 + place * place * 17) % 256 for place in range(size))
    for count in (1, 2, 6):
        with suppress(BadObject):
            assert len(objects._ends(data, count)) == count
    for alignment in (1, 8):
        with suppress(BadObject):
            assert len(list(objects._items(data, alignment))) <= len(data)
