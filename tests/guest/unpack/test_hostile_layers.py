"""Layers of container images that are hostile, damaged or no archives at all."""

import errno
import io
import os
import subprocess
import tarfile
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.unpack import layers

from . import archives
from .archives import (
    BELOW,
    KINDS,
    NAMES,
    TARGETS,
    apply,
    apply_all,
    assert_nothing_outside,
    directory,
    hard_link,
    member,
    symlink,
    tar,
    tree,
)

pytestmark = pytest.mark.usefixtures("both_ways")


def hostile(place, *layers):
    try:
        apply_all(place, BELOW, *layers)
    except StageError as error:
        assert not isinstance(error, EnvironmentFailed)
    finally:
        assert_nothing_outside(place)


@pytest.mark.parametrize("name", ["../outside/evil", "./../outside/evil", "etc/../../outside/evil"])
@pytest.mark.parametrize("make", [member, directory, lambda name: symlink(name, "x")])
def test_dots_in_names_are_refused(place, name, make):
    with pytest.raises(StageError, match="leads out of the image"):
        apply_all(place, BELOW, [make(name)])
    assert_nothing_outside(place)


LINKS = ["../../outside", "{place}/outside", "../../../../../../../..{place}/outside"]


@pytest.mark.parametrize("to", LINKS)
@pytest.mark.parametrize("apart", [False, True], ids=["one-layer", "two-layers"])
def test_nothing_is_written_through_a_link_that_leads_out(place, to, apart):
    link = [symlink("etc/link", to.format(place=place))]
    evil = [member("etc/link/evil", b"evil"), member("etc/link/.wh.file"), directory("etc/link/d")]
    evil += [member("etc/link/.wh..wh..opq"), hard_link("etc/hard", "etc/link/file")]
    for bad in evil:
        hostile(place, link, [bad]) if apart else hostile(place, [*link, bad])


def test_a_chain_of_links(place):
    hostile(
        place,
        [symlink("etc/one", ".."), symlink("etc/two", "one/..")],
        [member("etc/two/outside/evil", b"evil"), member("etc/two/outside/.wh.file")],
    )


def test_a_directory_that_becomes_a_link_in_between(place):
    """Neither the cached parent nor the directory's time leads out of the root."""
    outside = str(place / "outside")
    (place / "outside/file").touch()
    os.utime(place / "outside/file", (1, 1))
    layer = [
        directory("d", mtime=5),
        directory("d/file", mtime=5),
        member("d/sub/x", b"x"),
        symlink("d", outside),
        member("d/evil", b"evil"),
        member("d/.wh.file"),
    ]
    hostile(place, layer)
    hostile(place, [directory("swap"), member("swap/x", b"x")], [symlink("swap", outside)],
            [member("swap/evil", b"evil"), member("swap/.wh.file")])  # fmt: skip


def test_a_whiteout_does_not_follow_a_link(place):
    found = apply_all(place, [symlink("link", str(place / "outside"))], [member(".wh.link")])
    assert found == {}
    assert_nothing_outside(place)


@pytest.mark.parametrize("to", ["../outside/file", "{place}/outside/file", "../../outside/file"])
def test_hard_links_to_files_outside(place, to):
    to = to.format(place=place)
    hostile(place, [hard_link("etc/hard", to), member("etc/hard", b"evil")])


def test_a_hard_link_to_itself_or_to_nothing_is_refused(place):
    apply_all(place, BELOW)
    for to in ("etc/a", "etc/none", ""):
        with pytest.raises(StageError, match="to link to"):
            apply_all(place, [hard_link("etc/a", to)])
    assert (place / "root/etc/a").read_text() == "a"


def test_a_loop_of_links(place):
    layer = [symlink("one", "two"), symlink("two", "one"), member("one/evil", b"evil")]
    with pytest.raises(StageError, match="symbolic links"):
        apply_all(place, layer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bad",
    [
        member("a" * 300),
        member("a/" * 3000 + "b"),
        member("", b"content"),
        member("./", b"the root is no file"),
        member("etc/odd", type=b"Z"),
        member("etc/late", mtime=1e30, pax_headers={"mtime": "1e30"}),
        directory("etc/late", mtime=1e30, pax_headers={"mtime": "1e30"}),
        member("etc/late", pax_headers={"mtime": "inf"}),
        member("etc/nul", pax_headers={"path": "etc/n\0ul"}),
    ],
    ids=lambda bad: bad[0].name[:12],
)
def test_odd_members_are_reported_by_name(place, bad):
    with pytest.raises(StageError, match="cannot be unpacked") as raised:
        apply_all(place, BELOW, [bad])
    assert not isinstance(raised.value, EnvironmentFailed)
    assert_nothing_outside(place)


# Data that is no archive, or an incomplete one


@pytest.mark.parametrize("data", [b"no archive" * 200, b"\x1f\x8b" + bytes(600), b"x" * 512])
def test_what_is_no_archive_is_reported(place, data):
    with pytest.raises(StageError):
        apply(io.BytesIO(data), place / "root")


def test_an_empty_archive_is_an_empty_layer(place):
    assert apply_all(place, BELOW, []) == apply_all(place)
    apply(io.BytesIO(b""), place / "root")
    assert apply_all(place, BELOW) == apply_all(place)


def test_a_truncated_archive_is_reported(place):
    data = tar(member("big", bytes(range(256)) * 800))
    with pytest.raises(StageError):
        apply(io.BytesIO(data[: len(data) // 2]), place / "root")


def test_a_tar_that_is_gone_hides_nothing(place, monkeypatch):
    class Popen(subprocess.Popen):
        def kill(self):
            super().kill()
            self.wait()

    monkeypatch.setattr(subprocess, "Popen", Popen)
    test_a_truncated_archive_is_reported(place)


@pytest.mark.timeout(60)
def test_a_tar_that_does_not_end_holds_nothing_up(place, tmp_path, monkeypatch):
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs/tar").write_text("#!/bin/sh\nexec sleep 3600\n")
    (tmp_path / "programs/tar").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/programs:{os.environ['PATH']}")
    test_a_truncated_archive_is_reported(place)


def test_a_damaged_header_is_not_taken_for_the_end(place):
    data = bytearray(tar(member("a", b"a"), member("b", b"b"), member("c", b"c")))
    data[1024:1100] = b"\xff" * 76
    with pytest.raises(StageError, match="damaged"):
        apply(io.BytesIO(bytes(data)), place / "root")


def test_a_huge_header_is_refused_before_it_is_read(place):
    data = tar(member("a", pax_headers={"comment": "x" * (2 << 20)}))
    with pytest.raises(StageError, match="tar header of"):
        apply(io.BytesIO(data), place / "root")


def test_what_follows_the_archive_is_bounded(place):
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return super().read(size) or bytes(1 << 20)

    with pytest.raises(StageError, match="continues after the end"):
        apply(Endless(tar(*BELOW)), place / "root")


def test_a_bomb_is_refused_before_it_fills_the_disk(place, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=4096))
    with pytest.raises(EnvironmentFailed, match="does not fit") as raised:
        apply_all(place, [member("bomb", bytes(1 << 20))])
    assert "--scratch-size" in raised.value.hint
    assert tree(place / "root") == {}


def test_a_full_disk_is_reported_as_such(place, monkeypatch):
    # Use our own code: the test cannot patch another program.
    monkeypatch.setattr(archives, "lowest_layer", layers.apply)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "mkfifo", full)
    with pytest.raises(EnvironmentFailed, match="does not fit"):
        apply_all(place, [member("pipe", type=tarfile.FIFOTYPE)])


WHOLE = tar(
    *BELOW,
    member("fraction", b"x" * 600, mtime=1.25, pax_headers={"mtime": "1.25", "size": "600"}),
    member("x" * 200, pax_headers={"SCHILY.xattr.user.a": "b", "GNU.sparse.major": "1"}),
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    place=st.integers(0, len(WHOLE) - 1),
    junk=st.binary(min_size=1, max_size=40),
    fix=st.booleans(),
)
def test_a_damaged_archive_is_refused_in_words(place, junk, fix, tmp_path_factory):
    """Damaged bytes never cause an error other than StageError, even with a right checksum."""
    root = tmp_path_factory.mktemp("damaged")
    data = bytearray(WHOLE)
    data[place : place + len(junk)] = junk
    if fix:
        start = place // 512 * 512
        header = data[start : start + 512]
        header[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % (sum(header) & 0o777777)
    root.joinpath("root").mkdir()
    try:
        apply(io.BytesIO(bytes(data)), root / "root")
    except StageError as error:
        assert error.message
    assert os.listdir(root) == ["root"]


MEMBERS = st.tuples(NAMES, st.sampled_from(KINDS), TARGETS)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(layers=st.lists(st.lists(MEMBERS, max_size=8), min_size=1, max_size=3))
def test_no_layers_whatsoever_reach_outside(layers, tmp_path_factory):
    place = tmp_path_factory.mktemp("any")
    (place / "outside").mkdir()
    (place / "outside/file").write_text("untouched")
    os.utime(place / "outside/file", (1, 1))
    (place / "root").mkdir()
    for members in layers:
        made = [member(name, type=kind, linkname=to) for name, kind, to in members]
        # Both outcomes are right here. Other tests check which layers are valid.
        try:
            apply(io.BytesIO(tar(*made)), place / "root")
        except StageError:
            pass
    assert_nothing_outside(place)
