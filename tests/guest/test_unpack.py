import gzip
import hashlib
import io
import lzma
import subprocess
import tarfile

import pytest
from particle_agent.errors import InfrastructureError, StageError
from particle_agent.unpack import unpack


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o755 if fields.get("type") == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(content)


def directory(name):
    return member(name, type=tarfile.DIRTYPE)


def symlink(name, to):
    return member(name, type=tarfile.SYMTYPE, linkname=to)


ROOT = [directory("./etc"), directory("./usr"), member("./etc/os-release", b"ID=debian\n")]


def tar(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            content.seek(0)
            archive.addfile(info, content)
    return buffer.getvalue()


@pytest.fixture
def place(tmp_path):
    """An empty root, with a neighbour that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("untouched")
    (tmp_path / "root").mkdir()
    return tmp_path


def assert_nothing_outside(place):
    assert sorted(p.name for p in place.iterdir()) == ["outside", "root"]
    assert [p.name for p in (place / "outside").iterdir()] == ["file"]
    assert (place / "outside/file").read_text() == "untouched"


def zstd(data):
    return subprocess.run(["zstd", "-c", "-q"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, zstd])
def test_a_root_file_system_is_unpacked_and_hashed(place, compress):
    data = compress(tar(*ROOT))
    told = unpack(io.BytesIO(data), place / "root")
    assert told == (len(data), hashlib.sha256(data).hexdigest())
    assert (place / "root/etc/os-release").read_text() == "ID=debian\n"


def test_what_follows_the_archive_is_hashed_too(place):
    data = tar(*ROOT) + b"trailing bytes" * 100_000
    told = unpack(io.BytesIO(data), place / "root")
    assert told == (len(data), hashlib.sha256(data).hexdigest())


def test_modes_and_times_are_kept(place):
    script = member("./usr/script", b"#!/bin/sh\n", mode=0o4755, mtime=1_000_000_000)
    unpack(io.BytesIO(tar(*ROOT, script)), place / "root")
    status = (place / "root/usr/script").stat()
    assert status.st_mode & 0o7777 == 0o4755
    assert status.st_mtime == 1_000_000_000


def unpack_hostile(place, *members):
    try:
        unpack(io.BytesIO(tar(*ROOT, *members)), place / "root")
    except StageError as error:
        assert not isinstance(error, InfrastructureError)
    assert_nothing_outside(place)


@pytest.mark.parametrize("name", ["../outside/evil", "./../outside/evil", "etc/../../outside/evil"])
def test_dots_in_names(place, name):
    unpack_hostile(place, member(name, b"evil"))


def test_dots_that_replace_a_file(place):
    unpack_hostile(place, member("../outside/file", b"evil"))


def test_absolute_names_land_inside(place):
    unpack_hostile(place, member(f"{place}/outside/evil", b"evil"))
    assert (place / f"root/{place}/outside/evil").read_text() == "evil"


@pytest.mark.parametrize("to", ["../../outside", "/outside", "{place}/outside"])
def test_writing_through_a_link(place, to):
    unpack_hostile(
        place, symlink("./etc/link", to.format(place=place)), member("./etc/link/evil", b"evil")
    )


def test_writing_through_a_chain_of_links(place):
    unpack_hostile(
        place,
        symlink("./etc/a", ".."),
        symlink("./etc/b", "a/.."),
        member("./etc/b/outside/evil", b"evil"),
    )


def test_replacing_a_file_through_a_link(place):
    unpack_hostile(
        place, symlink("./etc/link", f"{place}/outside/file"), member("./etc/link", b"evil")
    )


@pytest.mark.parametrize("to", ["../outside/file", "{place}/outside/file", "../../outside/file"])
def test_hard_links_to_files_outside(place, to):
    hard = member("./etc/hard", type=tarfile.LNKTYPE, linkname=to.format(place=place))
    unpack_hostile(place, hard, member("./etc/hard", b"evil"))


def test_links_of_a_root_file_system_stay_as_they_are(place):
    unpack(io.BytesIO(tar(*ROOT, symlink("./etc/mtab", "/proc/self/mounts"))), place / "root")
    assert str((place / "root/etc/mtab").readlink()) == "/proc/self/mounts"


@pytest.mark.parametrize(
    "data", [b"this is no archive" * 100, b"\x1f\x8bnot gzip at all", b"x", b""]
)
def test_what_is_no_archive_is_told(place, data):
    with pytest.raises(StageError, match="cannot unpack") as told:
        unpack(io.BytesIO(data), place / "root")
    assert told.value.tail


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, zstd])
def test_a_truncated_archive_is_told(place, compress):
    big = member("./usr/big", bytes(range(256)) * 800)
    data = compress(tar(*ROOT, big))
    with pytest.raises(StageError, match="cannot unpack"):
        unpack(io.BytesIO(data[: len(data) // 2]), place / "root")


@pytest.mark.parametrize("data", [tar(member("debian/etc/x")), tar(directory("./etc"))])
def test_an_archive_without_a_root_file_system_is_told(place, data):
    with pytest.raises(StageError, match="no root file system"):
        unpack(io.BytesIO(data), place / "root")
