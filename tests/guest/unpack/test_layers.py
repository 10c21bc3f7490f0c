"""Layers of container images, well-formed, odd and hostile, applied to a directory."""

import errno
import io
import os
import stat
import subprocess
import sys
import tarfile
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.unpack import layers as particle_layers
from particle_agent.unpack import lowest


@pytest.fixture(scope="module", params=["all by ourselves", "the lowest by tar"], autouse=True)
def by_tar(request):
    """Everything here holds of both ways."""
    global TAR
    TAR = request.param == "the lowest by tar"
    yield
    TAR = False


TAR = False


def apply(layer, root):
    """As an image is unpacked: the lowest layer comes into an empty tree."""
    if TAR and not any(root.iterdir()):
        lowest.apply(layer, root)
    else:
        particle_layers.apply(layer, root)


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o755 if fields.get("type") == tarfile.DIRTYPE else 0o644
    info.uid, info.gid = os.getuid(), os.getgid()
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def directory(name, **fields):
    return member(name, type=tarfile.DIRTYPE, **fields)


def symlink(name, to):
    return member(name, type=tarfile.SYMTYPE, linkname=to)


def hard_link(name, to):
    return member(name, type=tarfile.LNKTYPE, linkname=to)


def tar(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def place(tmp_path):
    """An empty root, with a neighbour that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("untouched")
    os.utime(tmp_path / "outside/file", (1, 1))
    (tmp_path / "root").mkdir()
    return tmp_path


def apply_all(place, *layers):
    """The tree after all layers: names (below the root) to contents, links or kinds."""
    for members in layers:
        apply(io.BytesIO(tar(*members)), place / "root")
    return tree(place / "root")


def tree(root):
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
        else:
            found[name] = "directory" if path.is_dir() else stat.filemode(path.stat().st_mode)[0]
    return found


def assert_nothing_outside(place):
    assert sorted(p.name for p in place.iterdir()) == ["outside", "root"]
    assert [p.name for p in (place / "outside").iterdir()] == ["file"]
    assert (place / "outside/file").read_text() == "untouched"
    assert (place / "outside/file").stat().st_mtime == 1
    assert (place / "outside/file").stat().st_nlink == 1


BELOW = [
    directory("etc"),
    member("etc/a", b"a"),
    member("etc/b", b"b"),
    directory("etc/sub"),
    member("etc/sub/x", b"x"),
    directory("etc/sub/deep"),
    member("etc/sub/deep/y", b"y"),
    directory("usr"),
    directory("usr/bin"),
    symlink("bin", "usr/bin"),
]


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
        # Directories too, although they were written to.
        assert (root / name).stat().st_mtime == 1_000_000_000


def test_fractions_of_times_stay(place):
    apply_all(place, [member("a", mtime=1.25, pax_headers={"mtime": "1.25"})])
    assert (place / "root/a").stat().st_mtime == 1.25


def test_extended_attributes_of_any_bytes(place, monkeypatch):
    """File capabilities are such; setting those needs root, so it is looked at what is set."""
    value = b"\x01\x00\x00\x02\x80\xff\x00"
    text = value.decode("utf-8", "surrogateescape")
    # As GNU tar writes it, tarfile would encode the text on its way in.
    header = {"SCHILY.xattr.security.capability": text, "hdrcharset": "BINARY"}
    seen = []
    monkeypatch.setattr(os, "setxattr", lambda *args, **options: seen.append((args, options)))
    apply_all(place, [member("ping", b"ping", mode=0o755, pax_headers=header)])
    path = place / "root/ping"
    assert seen == [((path, "security.capability", value), {"follow_symlinks": False})]


def test_devices(place, monkeypatch):
    """Only root can make them, so it is looked at what is made."""
    # What another program does cannot be replaced.
    monkeypatch.setattr(sys.modules[__name__], "TAR", False)
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
    """How many instructions of Python a function takes."""
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
def test_what_is_told_again_and_again_costs_no_look_at_all_the_rest(place, again):
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


def test_what_comes_after_an_opaque_marker_stays_whatever_is_told_once_more(place):
    opaque, whiteout = member("etc/.wh..wh..opq"), member(".wh.etc")
    late = [member("etc/c", b"c"), directory("etc/sub"), member("etc/sub/z", b"z")]
    for again in (opaque, whiteout, member("etc/sub/.wh..wh..opq")):
        found = apply_all(place, BELOW, [opaque, *late, again])
        names = {name for name in found if name.startswith("etc")}
        assert names == {"etc", "etc/c", "etc/sub", "etc/sub/z"}


def test_what_a_file_replaces_is_forgotten(place):
    """A directory that comes there again has nothing of the first one."""
    found = apply_all(
        place,
        [directory("d", mtime=5), directory("d/e", mtime=5), member("d/e/x"), member("d", b"d")],
        [directory("d"), directory("d/e"), member("d/e/y", b"y")],
        [member("d/e/.wh.y"), member("d/.wh.e"), member(".wh.d")],
    )
    assert found == {}


# Hostile layers


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
    """Neither the parent that was found before nor the directory's time leads out."""
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
        member("etc/a/below-a-file"),
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
def test_odd_members_are_told_by_name(place, bad):
    with pytest.raises(StageError, match="cannot be unpacked") as told:
        apply_all(place, BELOW, [bad])
    assert not isinstance(told.value, EnvironmentFailed)
    assert_nothing_outside(place)


# What is no archive, or not all of one


@pytest.mark.parametrize("data", [b"", b"no archive" * 200, b"\x1f\x8b" + bytes(600), b"x" * 512])
def test_what_is_no_archive_is_told(place, data):
    with pytest.raises(StageError):
        apply(io.BytesIO(data), place / "root")


def test_an_empty_archive_is_an_empty_layer(place):
    assert apply_all(place, BELOW, []) == apply_all(place)


def test_a_truncated_archive_is_told(place):
    data = tar(member("big", bytes(range(256)) * 800))
    with pytest.raises(StageError):
        apply(io.BytesIO(data[: len(data) // 2]), place / "root")


def test_a_tar_that_is_gone_hides_nothing(place, monkeypatch):
    class Popen(subprocess.Popen):
        def kill(self):
            super().kill()
            self.wait()

    monkeypatch.setattr(subprocess, "Popen", Popen)
    test_a_truncated_archive_is_told(place)


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

    with pytest.raises(StageError, match="goes on after the end"):
        apply(Endless(tar(*BELOW)), place / "root")


def test_a_bomb_is_refused_before_it_fills_the_disk(place, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=4096))
    with pytest.raises(EnvironmentFailed, match="does not fit") as told:
        apply_all(place, [member("bomb", bytes(1 << 20))])
    assert "--scratch-size" in told.value.hint
    assert tree(place / "root") == {}


def test_a_full_disk_is_told_as_such(place, monkeypatch):
    # What another program does cannot be replaced.
    monkeypatch.setattr(sys.modules[__name__], "TAR", False)

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
    """Whatever the bytes are: never another error; with a right checksum, too."""
    root = tmp_path_factory.mktemp("damaged")
    data = bytearray(WHOLE)
    data[place : place + len(junk)] = junk
    if fix:
        start = place // 512 * 512
        header = data[start : start + 512]
        header[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % (sum(header) & 0o777777)
    try:
        apply(io.BytesIO(bytes(data)), root)
    except StageError:
        pass


NAMES = st.lists(
    st.sampled_from(["a", "b", "..", ".", "etc", "link", ".wh.a", ".wh.link", ".wh..wh..opq"]),
    min_size=1,
    max_size=4,
).map("/".join)
KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
TARGETS = NAMES | NAMES.map(lambda name: f"/{name}") | st.just("../../outside")
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
        # Refused or applied: what is valid is up to the test of the single rules.
        try:
            apply(io.BytesIO(tar(*made)), place / "root")
        except StageError:
            pass
    assert_nothing_outside(place)
