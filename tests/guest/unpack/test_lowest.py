"""For the lowest layer, GNU tar makes the same files as `layers`, and gets only plain members."""

import io
import os
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.unpack import layers, lowest

from .archives import KINDS, NAMES, TARGETS, directory, hard_link, member, symlink, tar

NEW = 11 * 10**17


def described(root):
    """All attributes of the files in a tree. Hard links share the first name of their file."""
    found, first = {}, {}
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        name = str(path.relative_to(root))
        content = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        # The programs round fractions of a second differently. Times after NEW are current times.
        time = status.st_mtime_ns // 1000 if status.st_mtime_ns < NEW else "now"
        found[name] = (
            oct(status.st_mode), status.st_uid, status.st_gid, time,
            content, first.setdefault(status.st_ino, name),
        )  # fmt: skip
    return found


def both_ways(data, place):
    """The trees that `layers` makes alone and with tar, or the texts of the errors."""
    trees = []
    for name, apply in (("alone", layers.apply), ("tar", lowest.apply)):
        root = place / name
        root.mkdir()
        os.utime(root, (5, 5))
        try:
            apply(io.BytesIO(data), root)
            trees.append(described(root))
        except (StageError, EnvironmentFailed) as error:
            trees.append(str(error))
    return trees


def extracted(data, root):
    """The names of the members that tar gets, and the rest of the archive."""
    plain, rest = lowest._extract(io.BytesIO(data), root)
    left = b""
    while chunk := rest.read(1 << 30):
        left += chunk
    return {*plain.directories, *plain.files, *plain.others} - {b""}, left


@pytest.fixture
def tree(tmp_path):
    """A directory with the kinds of files that base images have."""
    root = tmp_path / "tree"
    for name in ("etc", "usr/bin", "usr/share/doc", f"usr/share/{'long' * 30}/{'name' * 30}"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "etc/empty").touch(0o600)
    (root / "usr/bin/perl").write_bytes(os.urandom(700_000))
    os.link(root / "usr/bin/perl", root / "usr/bin/perl5")
    (root / "usr/bin/su").touch()
    (root / "usr/bin/su").chmod(0o4755)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/mtab").symlink_to("/proc/mounts")
    (root / "etc/up").symlink_to("../usr/" + "x" * 200)
    (root / "usr/share/doc/\u00e9 space").write_text("text")
    (root / "usr/share").chmod(0o2775)
    os.mkfifo(root / "etc/fifo")
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(0, 10**18 + 123_456 * 10**3 * number), follow_symlinks=False)
    os.utime(root, (7, 7))
    return root


@pytest.mark.parametrize("form", ["posix", "gnu", "ustar"])
@pytest.mark.parametrize("top", [".", "bin etc usr"], ids=["whole", "parts"])
def test_what_gnu_tar_writes_is_all_plain(tree, tmp_path, form, top):
    if form == "ustar":
        shutil.rmtree(next((tree / "usr/share").glob("long*")))
        (tree / "etc/up").unlink()
    argv = ["tar", "--create", f"--format={form}", f"--directory={tree}", *top.split()]
    data = subprocess.run(argv, check=True, capture_output=True).stdout
    (tmp_path / "root").mkdir()
    names, rest = extracted(data, tmp_path / "root")
    assert len(names) == len(list(tree.rglob("*")))
    assert set(rest) == {0}
    alone, with_tar = both_ways(data, tmp_path)
    assert alone == with_tar
    assert with_tar["usr/bin/su"][0] == oct(0o104755)


@pytest.mark.parametrize("format_number", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_python_writes_is_all_plain(tree, tmp_path, format_number):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_number) as archive:
        archive.add(tree, ".")
    (tmp_path / "root").mkdir()
    names, _ = extracted(buffer.getvalue(), tmp_path / "root")
    assert len(names) == len(list(tree.rglob("*")))
    alone, with_tar = both_ways(buffer.getvalue(), tmp_path)
    assert alone == with_tar


FIRST = [directory("d"), member("d/f", b"x"), symlink("l", "d"), symlink("d/out", "/etc")]


@pytest.mark.parametrize(
    "odd",
    [
        member("d/f", b"again"),
        directory("d"),
        member("d", b"a file now"),
        member("./d//g"),
        member("/g"),
        member("d/../g"),
        member("d/./g"),
        member("l/g"),
        member("d/out/g"),
        member("new/g"),
        member("d/f/g"),
        member(".wh.d"),
        member("d/.wh..wh..opq"),
        directory(".wh.x"),
        member("n" * 256),
        member("back\\slash"),
        member("new\nline"),
        symlink("d/empty", ""),
        hard_link("g", "l"),
        hard_link("g", "d"),
        hard_link("g", "nothing"),
        hard_link("g", "/d/f"),
        hard_link("g", "d/../d/f"),
        member("g", type=b"Z"),
        member("g", type=tarfile.CONTTYPE),
        member("g", uid=1 << 30),
        member("g", pax_headers={"comment": "x"}),
        member("g", pax_headers={"mtime": "-5"}),
        member("g", pax_headers={"mtime": "1e3"}),
        member("g", pax_headers={"SCHILY.xattr.user.a": "b"}),
        member("g", pax_headers={"GNU.sparse.name": "x"}),
        member("./", b"", type=tarfile.REGTYPE),
    ],
    ids=lambda odd: odd[0].name[:12],
)
def test_from_what_is_not_plain_on_nothing_goes_to_tar(tmp_path, odd):
    data = tar(*FIRST, odd, member("z", b"last"))
    (tmp_path / "root").mkdir()
    names, rest = extracted(data, tmp_path / "root")
    assert names == {b"d", b"d/f", b"l", b"d/out"}
    assert data.endswith(rest)
    assert sorted(p.name for p in (tmp_path / "root").rglob("*")) == ["d", "f", "l", "out"]


@pytest.mark.parametrize(
    ("place", "junk"),
    [
        (0, b"\0" * 512),
        (124, b"\x80"),  # A size in base 256.
        (124, b"-0000000005\0"),
        (100, b"0o00644\0"),
        (148, b"000000\0 "),
        (257, b"\0" * 8),
        (345, b"prefix"),
    ],
)
def test_a_header_that_not_all_read_alike_is_not_plain(place, junk):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(member("f", b"")[0])
    header = bytearray(buffer.getvalue()[:512])
    assert lowest._header(bytes(header)) is not None
    header[place : place + len(junk)] = junk
    if place != 148 and any(header):
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    assert lowest._header(bytes(header)) is None
    assert lowest._header(bytes(header[:511])) is None


@pytest.mark.parametrize(
    "records",
    [
        b"12 path=ab\n",  # It has 11.
        b"011 path=ab\n",
        b"11 path=ab ",
        b"11 path=a\0\n",
        b"8 path=\n",
        b"11 path=ab\n11 path=cd\n",
        b"13 hdrcharset\n",
        b"path",
        b"999999999999 path=ab\n",
    ],
)
def test_a_record_that_not_all_read_alike_is_not_plain(records):
    assert lowest._extension(b"x", b"11 path=ab\n") == {b"path": b"ab"}
    assert lowest._extension(b"x", records) is None


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        ("mtime", True),
        ("uname", True),
        ("SCHILY.xattr.security.capability", True),
        ("SCHILY.xattr.security.selinux", False),
        ("GNU.sparse.major", False),
    ],
)
def test_records_that_all_read_alike_are_plain(key, plain):
    record = f"{len(key) + 7} {key}=11\n".encode()
    assert lowest._extension(b"x", record) == ({key.encode(): b"11"} if plain else None)


MEMBERS = st.tuples(NAMES, st.sampled_from(KINDS), TARGETS, st.binary(max_size=3))
TOP = [directory("a"), directory("etc"), directory("a/etc")]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(members=st.lists(MEMBERS, max_size=8))
@example(members=[("./a/a", tarfile.SYMTYPE, "/a", b"")])
def test_both_ways_make_the_same(members, tmp_path_factory):
    made = [
        member(name, content if kind == tarfile.REGTYPE else b"", type=kind, linkname=to, mtime=9)
        for name, kind, to, content in members
    ]
    alone, with_tar = both_ways(
        tar(directory(".", mtime=9), *TOP, *made), tmp_path_factory.mktemp("x")
    )
    assert alone == with_tar


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("yes 'tar: x: Cannot write: No space left on device' | head -n 9999 >&2; exit 2",
         EnvironmentFailed, "does not fit"),
        ("cat >/dev/null; echo tar: no >&2; exit 2", StageError, "tar cannot unpack a layer"),
    ],
)  # fmt: skip
def test_what_tar_complains_of_is_reported(tmp_path, monkeypatch, script, kind, message):
    """Also when tar prints very much."""
    (tmp_path / "tar").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "tar").chmod(0o755)
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(kind, match=message):
        lowest.apply(io.BytesIO(tar(member("f", b"x" * 3_000_000))), tmp_path / "root")


def test_a_file_that_the_disk_cannot_hold_is_not_begun(tmp_path):
    data = tar(member("f", b"x"))
    big = tarfile.TarInfo("big")
    big.size = 7 << 30
    data = data[:1024] + big.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    (tmp_path / "root").mkdir()
    free = os.statvfs(tmp_path)
    if free.f_bavail * free.f_frsize < big.size:
        assert extracted(data, tmp_path / "root")[0] == {b"f"}
