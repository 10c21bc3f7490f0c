"""Layers of container images, well-formed and odd, applied to a directory."""

import errno
import io
import os
import stat
import sys
import tarfile

import pytest
from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.unpack import layers

from . import archives
from .archives import (
    BELOW,
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


def test_files_of_all_kinds(place):
    pipe = member("usr/pipe", type=tarfile.FIFOTYPE)
    found = apply_all(place, [*BELOW, hard_link("etc/hard", "etc/a"), pipe])
    assert found["etc/hard"] == "a"
    assert (place / "root/etc/hard").samefile(place / "root/etc/a")
    assert found["bin"] == "-> usr/bin"
    assert found["usr/pipe"] == "p"


@pytest.mark.parametrize("prefix", ["", "./", "/", "././/"])
def test_names_are_relative_to_the_root_however_they_are_written(place, prefix):
    found = apply_all(place, [directory(prefix or "./"), member(f"{prefix}etc/a", b"a")])
    assert found == {"etc": "directory", "etc/a": "a"}


def test_modes_and_times_stay(place):
    early = {"mtime": 1_000_000_000}
    apply_all(
        place,
        [
            directory("./", mode=0o711, **early),
            directory("opt", mode=0o1777, **early),
            member("opt/tool", b"#!", mode=0o4751, **early),
            directory("opt/shared", mode=0o2775, **early),
        ],
    )
    root = place / "root"
    modes = {"": 0o711, "opt": 0o1777, "opt/tool": 0o4751, "opt/shared": 0o2775}
    for name, mode in modes.items():
        assert (root / name).stat().st_mode & 0o7777 == mode
        # Directories keep their times, although files were added to them.
        assert (root / name).stat().st_mtime == 1_000_000_000


def test_fractions_of_times_stay(place):
    apply_all(place, [member("a", mtime=1.25, pax_headers={"mtime": "1.25"})])
    assert (place / "root/a").stat().st_mtime == 1.25


def test_extended_attributes_of_any_bytes(place, monkeypatch):
    """File capabilities are an example. Setting them needs root, so the test records the calls."""
    value = b"\x01\x00\x00\x02\x80\xff\x00"
    text = value.decode("utf-8", "surrogateescape")
    # GNU tar writes raw bytes; without "BINARY", tarfile would encode the text.
    header = {"SCHILY.xattr.security.capability": text, "hdrcharset": "BINARY"}
    seen = []
    monkeypatch.setattr(os, "setxattr", lambda *args, **options: seen.append((args, options)))
    apply_all(place, [member("ping", b"ping", mode=0o755, pax_headers=header)])
    path = place / "root/ping"
    assert seen == [((path, "security.capability", value), {"follow_symlinks": False})]


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EPERM])
def test_only_an_attribute_that_the_file_system_does_not_know_is_left_out(
    place, monkeypatch, number
):
    def setxattr(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "setxattr", setxattr)
    made = [member("ping", b"ping", pax_headers={"SCHILY.xattr.user.x": "value"})]
    if number == errno.ENOTSUP:
        assert apply_all(place, made) == {"ping": "ping"}
    else:
        with pytest.raises(StageError, match="not permitted"):
            apply_all(place, made)


def test_a_directory_that_cannot_be_removed_is_an_error(place, monkeypatch):
    def rmdir(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    apply_all(place, [directory("a"), member("b", b"b")])
    monkeypatch.setattr(type(place), "rmdir", rmdir)
    with pytest.raises(StageError, match="cannot be unpacked: Input/output error"):
        apply_all(place, [member(".wh.a")])


def test_devices(place, monkeypatch):
    """Making devices needs root, so the test records the calls."""
    # Use our own code: the test cannot patch another program.
    monkeypatch.setattr(archives, "lowest_layer", layers.apply)
    made = []

    def mknod(path, mode, device):
        made.append((path.name, stat.S_IFMT(mode), os.major(device), os.minor(device)))
        path.touch()

    monkeypatch.setattr(os, "mknod", mknod)
    null = member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    disk = member("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=1)
    apply_all(place, [null, disk])
    assert made == [("null", stat.S_IFCHR, 1, 3), ("disk", stat.S_IFBLK, 8, 1)]
    assert (place / "root/null").stat().st_mode & 0o7777 == 0o666


@pytest.mark.skipif(os.getuid() != 0, reason="only root sets owners")
def test_owners_are_numbers(place):
    apply_all(place, [member("a", uid=12, gid=34, uname="root", gname="root")])
    status = (place / "root/a").stat()
    assert (status.st_uid, status.st_gid) == (12, 34)


# One layer over the other


def test_a_layer_replaces_and_adds(place):
    found = apply_all(
        place,
        BELOW,
        [member("etc/a", b"new"), member("etc/c", b"c"), member("etc/sub", b"no directory")],
    )
    assert found["etc/a"] == "new"
    assert found["etc/b"] == "b"
    assert found["etc/c"] == "c"
    assert found["etc/sub"] == "no directory"
    assert "etc/sub/x" not in found


def test_a_directory_that_no_member_describes_replaces_a_file(place):
    lower = [member("a", b"a"), directory("d"), member("d/b", b"b")]
    found = apply_all(place, lower, [member("d/b/c/d", b"d")])
    assert found["d/b/c/d"] == "d"
    assert (place / "root/d/b").is_dir()


def test_a_file_and_something_below_it_in_one_layer_are_refused(place):
    with pytest.raises(StageError, match="'a/b' in a layer of the image cannot be unpacked"):
        apply_all(place, [member("a", b"a"), member("a/b", b"b")])


def test_an_attribute_that_does_not_fit_is_no_full_disk(place, monkeypatch):
    def setxattr(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "setxattr", setxattr)
    made = [member("ping", b"ping", pax_headers={"SCHILY.xattr.user.x": "v" * 9000})]
    with pytest.raises(StageError, match=r"attribute user\.x of 9000 bytes does not fit"):
        apply_all(place, made)
    monkeypatch.setattr(layers, "_has_room", lambda path: False)
    with pytest.raises(EnvironmentFailed, match="scratch disk"):
        apply_all(place, made)


def test_a_directory_over_a_directory_keeps_its_content(place):
    found = apply_all(place, BELOW, [directory("etc", mode=0o700)])
    assert found["etc/a"] == "a"
    assert (place / "root/etc").stat().st_mode & 0o7777 == 0o700


def test_a_file_that_replaces_a_hard_link_leaves_the_other_name_alone(place):
    found = apply_all(
        place, [member("a", b"one"), hard_link("b", "a")], [member("b", b"two", mode=0o600)]
    )
    assert found == {"a": "one", "b": "two"}
    assert (place / "root/a").stat().st_mode & 0o777 == 0o644


def test_hard_links_to_files_of_lower_layers(place):
    apply_all(place, BELOW, [hard_link("usr/hard", "etc/a"), hard_link("/usr/abs", "/etc/a")])
    assert (place / "root/etc/a").stat().st_nlink == 3


def test_what_is_put_below_a_link_lands_where_it_leads(place):
    found = apply_all(place, BELOW, [member("bin/tool", b"tool")])
    assert found["usr/bin/tool"] == "tool"
    assert found["bin"] == "-> usr/bin"


def test_missing_parents_are_made(place):
    assert apply_all(place, [member("a/b/c", b"c")])["a/b/c"] == "c"


# Whiteouts


def test_a_whiteout_removes_what_is_below(place):
    found = apply_all(place, BELOW, [member("etc/.wh.a"), member("etc/.wh.sub")])
    assert {n for n in found if n.startswith("etc")} == {"etc", "etc/b"}


def test_an_opaque_directory_has_only_what_its_own_layer_brings(place):
    upper = [directory("etc/sub"), member("etc/sub/new", b"new"), member("etc/sub/.wh..wh..opq")]
    for layer in (upper, upper[::-1]):
        found = apply_all(place, BELOW, layer)
        assert {n for n in found if n.startswith("etc/sub")} == {"etc/sub", "etc/sub/new"}
        assert found["etc/a"] == "a"


@pytest.mark.parametrize("late", [False, True])
def test_a_whiteout_spares_its_own_layer(place, late):
    layer = [member("etc/sub/new", b"new"), member("etc/a", b"new")]
    whiteouts = [member("etc/.wh.sub"), member("etc/.wh.a")]
    found = apply_all(place, BELOW, layer + whiteouts if late else whiteouts + layer)
    assert found["etc/a"] == "new"
    assert {n for n in found if n.startswith("etc/sub")} == {"etc/sub", "etc/sub/new"}


@pytest.mark.parametrize("name", [".wh.none", "none/.wh.none", "etc/a/.wh.x", "none/.wh..wh..opq"])
def test_a_whiteout_of_nothing(place, name):
    assert apply_all(place, BELOW, [member(name)]) == apply_all(place, [])


def test_names_of_aufs_are_passed_over(place):
    before = apply_all(place, BELOW)
    assert apply_all(place, [member(".wh..wh.plnk"), member("etc/.wh..wh.aufs")]) == before


@pytest.mark.parametrize("name", [".wh.", "etc/.wh.", "etc/.wh..", "etc/.wh...", ".wh.x/file"])
def test_what_is_no_whiteout_is_refused(place, name):
    before = apply_all(place, BELOW)
    with pytest.raises(StageError, match="cannot be unpacked"):
        apply_all(place, [member(name)])
    assert tree(place / "root") == before
    assert_nothing_outside(place)


# Layers of many entries


def steps(function):
    """The number of Python instructions that a function takes."""
    taken = 0

    def trace(frame, event, argument):
        nonlocal taken
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        taken += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return taken


@pytest.mark.slow
@pytest.mark.parametrize(
    "again",
    [
        lambda n: directory("d") if n % 2 else member("d"),
        lambda n: member(".wh..wh..opq"),
        lambda n: member("many/.wh..wh..opq"),
        lambda n: member(".wh.many"),
    ],
    ids=["replaced", "opaque", "opaque-below", "whiteout"],
)
def test_repeated_members_cost_no_pass_over_the_others(place, again):
    """Twice the entries take twice the steps, not four times."""

    def taken(entries):
        root = place / str(entries)
        root.mkdir()
        many = [member(f"many/{n}") for n in range(entries)]
        layer = io.BytesIO(tar(*many, *(again(n) for n in range(entries))))
        counted = steps(lambda: apply(layer, root))
        assert len(os.listdir(root / "many")) == entries
        return counted

    assert taken(400) < 2.5 * taken(200)


def test_what_comes_after_an_opaque_marker_stays_when_the_marker_is_repeated(place):
    opaque, whiteout = member("etc/.wh..wh..opq"), member(".wh.etc")
    late = [member("etc/c", b"c"), directory("etc/sub"), member("etc/sub/z", b"z")]
    for again in (opaque, whiteout, member("etc/sub/.wh..wh..opq")):
        found = apply_all(place, BELOW, [opaque, *late, again])
        names = {name for name in found if name.startswith("etc")}
        assert names == {"etc", "etc/c", "etc/sub", "etc/sub/z"}


def test_what_a_file_replaces_is_forgotten(place):
    """A new directory at the same path has no content or times of the first one."""
    found = apply_all(
        place,
        [directory("d", mtime=5), directory("d/e", mtime=5), member("d/e/x"), member("d", b"d")],
        [directory("d"), directory("d/e"), member("d/e/y", b"y")],
        [member("d/e/.wh.y"), member("d/.wh.e"), member(".wh.d")],
    )
    assert found == {}


def test_a_directory_that_a_whiteout_removes_is_made_again(place):
    below = [directory("d"), member("d/old")]
    above = [member("d/.wh.old"), member(".wh.d"), member("d/new", b"new")]
    assert apply_all(place, below, above) == {"d": "directory", "d/new": "new"}


@pytest.mark.parametrize(
    ("first", "left"),
    [(member("link/.wh.old"), {}), (member("link/other", b"o"), {"e/old": "", "e/other": "o"})],
)
def test_a_link_that_a_whiteout_removes_leads_nowhere_afterwards(place, first, left):
    below = [directory("e"), member("e/old"), symlink("link", "e")]
    above = [first, member(".wh.link"), member("link/new", b"new")]
    assert apply_all(place, below, above) == {
        "e": "directory",
        "link": "directory",
        "link/new": "new",
        **left,
    }
