"""Archives of any origin: read like tarfile does, within limits."""

import bz2
import functools
import gzip
import io
import lzma
import subprocess
import tarfile
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from particle_os.errors import DeadlineExceeded
from particle_os.system import tar_archive
from particle_os.system.tar_archive import Archive, Excessive

from ...limited import limited
from ...waiting import DeadlineWhen, plenty

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
MIB = 1 << 20


def written(members, form=tarfile.GNU_FORMAT):
    """An archive of (name, type, content)."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "x"
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def read(data, limit=1 << 30):
    archive = Archive(io.BytesIO(data), limit, plenty())
    return [(member.name, member.size, archive.read(1 << 20)) for member in archive]


def as_tarfile_reads(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            content = archive.extractfile(member).read() if member.isreg() else b""
            yield member.name, member.size if member.isreg() else 0, content


@pytest.mark.parametrize("form", FORMATS)
def test_all_kinds_of_members_are_read_as_tarfile_reads_them(form):
    long = "directory-" * 9 + "/" + "name-" * 16
    data = written(
        [
            ("./", tarfile.DIRTYPE, b""),
            ("a", tarfile.REGTYPE, b"x" * 513),
            (long, tarfile.REGTYPE, b"y" * 512),
            ("link", tarfile.SYMTYPE, b""),
            ("hard", tarfile.LNKTYPE, b""),
            ("fifo", tarfile.FIFOTYPE, b""),
            ("empty", tarfile.AREGTYPE, b""),
            ("dir-of-old/", tarfile.AREGTYPE, b""),
            ("last", tarfile.REGTYPE, b"z"),
        ],
        form,
    )
    found = [(name.rstrip("/"), *rest) for name, *rest in read(data)]
    assert found == [(name, *rest) for name, *rest in as_tarfile_reads(data)]


@given(
    st.lists(st.tuples(st.text("abö/", min_size=1, max_size=300), st.binary(max_size=1100))),
    st.sampled_from(FORMATS[1:]),
)
@settings(deadline=None)
def test_names_and_contents_are_read_as_tarfile_reads_them(members, form):
    data = written([(f"{name}x", tarfile.REGTYPE, content) for name, content in members], form)
    assert read(data) == list(as_tarfile_reads(data))


@given(st.binary(max_size=1600), st.integers(0, 4000))
@settings(deadline=None)
def test_damage_is_an_error_of_the_archive_and_nothing_else(noise, place):
    whole = written([("a" * 120, tarfile.REGTYPE, b"x" * 700)], tarfile.PAX_FORMAT)
    damaged = whole[:place] + noise + whole[place + len(noise) :]
    for data in (damaged, whole[:place], noise):
        try:
            found = read(data)
        except tarfile.TarError:
            found = []
        assert sum(len(content) for _, _, content in found) <= len(data)


def test_a_sparse_file_is_read_as_it_is_stored_and_kept_from_tarfile(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(60):
            file.seek(number << 20)
            file.write(b"x")
    (tmp_path / "after").write_text("after")
    for form in ("gnu", "posix"):
        argv = ["tar", "-c", "-S", f"--format={form}", "-C", tmp_path, "sparse", "after"]
        data = subprocess.run(argv, capture_output=True, check=True).stdout
        assert (read(data)[-1][0], read(data)[-1][2]) == ("after", b"after")
        with pytest.raises(Excessive, match="sparse"):
            tar_archive.check(io.BytesIO(data), len(data), plenty())


def test_an_archive_may_be_checked_and_then_read():
    data = written([("a" * 200, tarfile.REGTYPE, b"x" * 700)], tarfile.PAX_FORMAT)
    stream = io.BytesIO(b"before" + data)
    stream.seek(6)
    tar_archive.check(stream, len(data), plenty())
    assert stream.tell() == 6


def header(kind, size, name=b"x"):
    info = tarfile.TarInfo(name.decode())
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@functools.cache
def compressed(compress, part):
    """Bytes, or so many MiB of zeros, as a part of a compressed file."""
    return compress(part if isinstance(part, bytes) else bytes(part * MIB))


def packed(compress, parts):
    return b"".join(compressed(compress, part) for part in parts)


def gz(data):
    return gzip.compress(data, 1)


def xz(data):
    return lzma.compress(data, preset=0)


LONG_NAME = [header(b"L", 3 << 30), 64]
BOMBS = {
    "long name": LONG_NAME,
    "pax header": [header(b"x", 3 << 30), 64],
    "global header": [header(b"g", 3 << 30), 64],
    "size of all": [header(b"g", 20) + b"20 size=20971520\n".ljust(512, b"\0")],
    "many headers": [header(b"L", 1 << 16) + bytes(1 << 16)] * 400,
    "headers without end": [header(b"L", 0) * 70_000],
    "one large member": [header(b"0", 4 << 40), 64],
    "more than the file can hold": [header(b"0", 64 * MIB), 64] * 12,
    "many members": [header(b"0", 0) * 110_000],
    "sparse map": [header(b"S", 0)[:482] + b"\1" + header(b"S", 0)[483:], b"\1" * (32 << 20)],
    "negative size": [header(b"0", 0)[:124] + b"\xff" * 12 + header(b"0", 0)[136:]],
    "pax size": [header(b"x", 30) + b"30 size=99999999999999999999999\n".ljust(512, b"\0")],
    "pax loop": [header(b"x", 512) + b"0 a=b\n" * 85 + b"\0\0"],
}


@pytest.mark.parametrize(
    ("compress", "bomb"), [*((gz, bomb) for bomb in BOMBS), (xz, "long name"), (bytes, "pax loop")]
)
@pytest.mark.slow
def test_a_bomb_is_refused_with_little_memory_and_time(tmp_path, bomb, compress):
    path = tmp_path / "base.tar"
    path.write_bytes(packed(compress, BOMBS[bomb]))
    told = limited(
        "from pathlib import Path\nfrom particle_os.base.tarball import architecture_of",
        "architecture_of(Path(sys.argv[1]))",
        path,
    )
    assert told.startswith("UsageError"), told


@pytest.mark.slow
def test_a_bomb_in_a_container_archive_is_refused_in_the_same_way(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(packed(gz, LONG_NAME))
    setup = """
    from pathlib import Path
    from particle_os.base.layout import Layout
    from particle_os.system.deadline import Deadline
    """
    action = """
    layout = Layout(Path(sys.argv[1]), True, "it", Deadline.after(100, "x"))
    layout.document("sha256:" + "0" * 64)
    """
    assert "UsageError" in limited(setup, action, path)


def test_an_xz_file_that_asks_for_much_memory_is_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 29}]
    path = tmp_path / "base.tar.xz"
    path.write_bytes(lzma.compress(bytes(2048), filters=filters))
    with (
        pytest.raises(tarfile.ReadError, match=r"[Mm]emory"),
        tar_archive.opened(path, plenty()) as archive,
    ):
        list(archive)


def test_an_xz_file_of_several_streams_is_read(tmp_path):
    data = written([("a", tarfile.REGTYPE, b"x" * 100_000)])
    path = tmp_path / "x"
    path.write_bytes(lzma.compress(data[:1000]) + bytes(4) + lzma.compress(data[1000:]))
    with tar_archive.opened(path, plenty()) as archive:
        assert [member.size for member in archive] == [100_000]


def test_reading_ends_at_the_deadline():
    data = written([(f"a{number}", tarfile.REGTYPE, b"x" * 512) for number in range(100)])
    stream = io.BytesIO(data)
    deadline = DeadlineWhen(passed=lambda: stream.tell() > 20_000)
    with pytest.raises(DeadlineExceeded):
        list(Archive(stream, 1 << 30, deadline))


def test_content_that_is_not_read_is_skipped_and_counts():
    data = written([("a", tarfile.REGTYPE, bytes(MIB)), ("b", tarfile.REGTYPE, b"b")])
    assert [name for name, _, _ in read(data, 2 * MIB)] == ["a", "b"]
    with pytest.raises(Excessive):
        read(data, MIB // 2)


@pytest.mark.slow
def test_an_archive_that_shrinks_well_is_not_refused(tmp_path):
    """As a base with a swap file of zeros: more than a hundred times smaller than its content."""
    path = tmp_path / "base.tar.gz"
    path.write_bytes(packed(gz, [header(b"0", 320 * MIB), 64, 64, 64, 64, 64]))
    with tar_archive.opened(path, plenty()) as archive:
        assert [member.size for member in archive] == [320 * MIB]


def test_an_archive_may_have_as_many_bytes_as_its_limit():
    data = written([("a", tarfile.REGTYPE, b"")])
    assert len(list(tar_archive.Archive(io.BytesIO(data), len(data), plenty()))) == 1
    with pytest.raises(tar_archive.Excessive):
        list(tar_archive.Archive(io.BytesIO(data), 511, plenty()))
    assert tar_archive.Archive(io.BytesIO(data[:512]), 512, plenty())._next().name == "a"


def test_a_file_that_is_shorter_than_a_header_is_damaged_and_no_bomb():
    for size in (0, 1, 511):
        with pytest.raises(tarfile.ReadError, match="unexpected end"):
            list(tar_archive.Archive(io.BytesIO(b"x" * size), size, plenty()))


@pytest.mark.parametrize("record", ["size=20971520", "path=x", "linkpath=x", "GNU.sparse.major=1"])
def test_a_global_header_may_not_describe_members(record):
    data = f"{len(record) + 4} {record}\n".encode()
    archive = header(b"g", len(data)) + data.ljust(512, b"\0") + header(b"0", 0) + bytes(1024)
    with pytest.raises(tarfile.ReadError, match="global header"):
        tar_archive.check(io.BytesIO(archive), len(archive), plenty())


@pytest.mark.parametrize(
    "records",
    [b"x", b"0 a=b\n", b"6 a=b\n7 a=b", b"5 ab\n", b"10 size=-1\n", b"9 size=x\n"],
)
def test_an_extended_header_with_a_malformed_record_is_refused(records):
    assert tar_archive._records(b"6 a=b\n10 size=7\n") == {b"a": b"b", b"size": b"7"}
    with pytest.raises(tarfile.ReadError, match="invalid header"):
        tar_archive._records(records)


def test_a_member_that_is_larger_than_the_limit_is_refused_at_its_header():
    with pytest.raises(Excessive, match="'x' alone has 2097152 bytes"):
        next(iter(Archive(io.BytesIO(header(b"0", 2 * MIB)), MIB, plenty())))


def test_a_global_header_may_hold_a_comment():
    data = b"16 comment=abcd\n"
    archive = header(b"g", len(data)) + data.ljust(512, b"\0") + header(b"0", 0) + bytes(1024)
    assert tar_archive.check(io.BytesIO(archive), len(archive), plenty()) is None


def test_a_compressed_file_is_not_read_past_the_deadline():
    """The decompressor may read much of the file without giving any content."""
    reads = []
    stream = SimpleNamespace(read=lambda size: reads.append(size) or b"x")
    file = tar_archive._Watched(stream, DeadlineWhen(passed=lambda: len(reads) == 2))
    assert file.read(7) + file.read(7) == b"xx"
    with pytest.raises(DeadlineExceeded):
        file.read(7)
    assert reads == [7, 7]


@pytest.mark.slow
@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_streams_without_content_do_not_outlast_the_deadline(tmp_path, compress):
    path = tmp_path / "base.tar"
    path.write_bytes(compress(b"") * 10_000)
    reads = 0

    class Late:
        """A deadline that passes after some reads, whatever the time."""

        def remaining(self):
            nonlocal reads
            reads += 1
            if reads > 10:
                raise DeadlineExceeded("too late")
            return 1.0

    with pytest.raises(DeadlineExceeded), tar_archive.opened(path, Late()) as archive:
        next(iter(archive))


@pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\x04\x22\x4d\x18"])
def test_a_program_without_output_does_not_outlast_the_deadline(tmp_path, monkeypatch, magic):
    """A sparse file of terabytes of frames that are skipped decompresses to nothing for days."""

    class Late:
        """A deadline that passes after some waits, whatever the time."""

        waits = 0

        def remaining(self):
            self.waits += 1
            if self.waits > 20:
                raise DeadlineExceeded("too late")
            return 0.01

    path = tmp_path / "x.tar"
    path.write_bytes(magic + bytes(100))
    (tmp_path / "silent").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "silent").chmod(0o755)
    found = tar_archive._program(magic + bytes(2))
    monkeypatch.setattr(tar_archive, "_program", lambda _: [str(tmp_path / "silent")])
    assert found[0] in ("zstd", "lz4")
    with pytest.raises(DeadlineExceeded), tar_archive.opened(path, Late()) as archive:
        list(archive)
