import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import tarfile

import pytest
from particle_agent.contract import wire
from particle_agent.contract.decode import encode
from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.unpack.unpack import check_base, unpack, unpack_image


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
    """An empty root, with a neighbour that must not change."""
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


def lz4(data):
    return subprocess.run(["lz4", "-c", "-q"], input=data, capture_output=True, check=True).stdout


def long_zstd(data):
    """Data with a window of 2 GiB."""
    argv = ["zstd", "-c", "-q", "--long=31"]
    return subprocess.run(argv, input=data, capture_output=True, check=True).stdout


def pzstd(data):
    """Data after a frame that readers skip, as pzstd writes it."""
    return b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstd(data)


MORE = [bz2.compress, lz4, long_zstd, pzstd]
COMPRESSIONS = [bytes, gzip.compress, lzma.compress, zstd, *MORE]


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_a_root_file_system_is_unpacked_and_hashed(place, compress):
    data = compress(tar(*ROOT))
    result = unpack(io.BytesIO(data), place / "root")
    assert result == (len(data), hashlib.sha256(data).hexdigest())
    assert (place / "root/etc/os-release").read_text() == "ID=debian\n"


def test_what_follows_the_archive_is_hashed_too(place):
    data = tar(*ROOT) + b"trailing bytes" * 100_000
    result = unpack(io.BytesIO(data), place / "root")
    assert result == (len(data), hashlib.sha256(data).hexdigest())


def test_modes_and_times_are_kept(place):
    script = member("./usr/script", b"#!/bin/sh\n", mode=0o4755, mtime=1_000_000_000)
    unpack(io.BytesIO(tar(*ROOT, script)), place / "root")
    status = (place / "root/usr/script").stat()
    assert status.st_mode & 0o7777 == 0o4755
    assert status.st_mtime == 1_000_000_000


def assert_refused(place, *members, compress=bytes):
    """The archive is refused, although tar has unpacked what is before and after the members."""
    data = compress(tar(*ROOT, *members, member("./etc/last", b"last")))
    with pytest.raises(StageError, match="cannot unpack") as raised:
        unpack(io.BytesIO(data), place / "root")
    assert not isinstance(raised.value, EnvironmentFailed)
    assert (place / "root/etc/last").read_text() == "last"
    assert_nothing_outside(place)


def assert_unpacked(place, *members):
    unpack(io.BytesIO(tar(*ROOT, *members)), place / "root")
    assert_nothing_outside(place)


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("name", ["../outside/evil", "./../outside/evil", "etc/../../outside/evil"])
def test_dots_in_names(place, name, compress):
    assert_refused(place, member(name, b"evil"), compress=compress)


def test_dots_that_replace_a_file(place):
    assert_refused(place, member("../outside/file", b"evil"))


def test_absolute_names_land_inside(place):
    assert_unpacked(place, member(f"{place}/outside/evil", b"evil"))
    assert (place / f"root/{place}/outside/evil").read_text() == "evil"


@pytest.mark.parametrize("to", ["../../outside", "/outside", "{place}/outside"])
def test_writing_through_a_link(place, to):
    assert_refused(
        place, symlink("./etc/link", to.format(place=place)), member("./etc/link/evil", b"evil")
    )


def test_writing_through_a_chain_of_links(place):
    assert_refused(
        place,
        symlink("./etc/a", ".."),
        symlink("./etc/b", "a/.."),
        member("./etc/b/outside/evil", b"evil"),
    )


def test_replacing_a_file_through_a_link(place):
    assert_unpacked(
        place, symlink("./etc/link", f"{place}/outside/file"), member("./etc/link", b"evil")
    )
    assert os.path.lexists(place / "root/etc/link")


@pytest.mark.parametrize("to", ["../outside/file", "{place}/outside/file", "../../outside/file"])
def test_hard_links_to_files_outside(place, to):
    hard = member("./etc/hard", type=tarfile.LNKTYPE, linkname=to.format(place=place))
    assert_refused(place, hard, member("./etc/hard", b"evil"))


def test_links_of_a_root_file_system_stay_as_they_are(place):
    unpack(io.BytesIO(tar(*ROOT, symlink("./etc/mtab", "/proc/self/mounts"))), place / "root")
    assert str((place / "root/etc/mtab").readlink()) == "/proc/self/mounts"


@pytest.mark.parametrize(
    "data", [b"this is no archive" * 100, b"\x1f\x8bnot gzip at all", b"x", b""]
)
def test_what_is_no_archive_is_reported(place, data):
    with pytest.raises(StageError, match="cannot unpack") as raised:
        unpack(io.BytesIO(data), place / "root")
    assert raised.value.tail


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_a_truncated_archive_is_reported(place, compress):
    big = member("./usr/big", bytes(range(256)) * 800)
    data = compress(tar(*ROOT, big))
    with pytest.raises(StageError, match="cannot unpack"):
        unpack(io.BytesIO(data[: len(data) // 2]), place / "root")


# Container images

LAYERS = [tar(*ROOT), tar(member("./etc/.wh.os-release"), member("./etc/new", b"new"))]


def image(*blobs, plain=None):
    """The stream that the host sends for layers. `plain` are the archives of compressed blobs."""
    layers = tuple(
        wire.LayerBlob(size=len(blob), diff_id=f"sha256:{hashlib.sha256(archive).hexdigest()}")
        for blob, archive in zip(blobs, plain or blobs, strict=True)
    )
    return b"".join([json.dumps(encode(wire.ImageHeader(layers=layers))).encode(), b"\n", *blobs])


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd, *MORE])
def test_an_image_is_unpacked_and_hashed(place, compress):
    data = image(*map(compress, LAYERS), plain=LAYERS)
    result = unpack_image(io.BytesIO(data), place / "root")
    assert result == (len(data), hashlib.sha256(data).hexdigest())
    assert [p.name for p in (place / "root/etc").iterdir()] == ["new"]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_layer_of_no_bytes_is_empty(place, number, compress):
    layers = [*LAYERS]
    layers.insert(number, b"")
    unpack_image(io.BytesIO(image(*map(compress, layers), plain=layers)), place / "root")
    assert (place / "root/etc/new").exists()


def test_compressed_in_several_parts(place):
    """eStargz has several gzip members; zstd:chunked ends with a frame that readers skip."""
    middle = len(LAYERS[0]) // 2
    parts = gzip.compress(LAYERS[0][:middle]) + gzip.compress(LAYERS[0][middle:])
    skipped = zstd(LAYERS[1]) + b"\x50\x2a\x4d\x18\x04\0\0\0" + b"toc."
    unpack_image(io.BytesIO(image(parts, skipped, plain=LAYERS)), place / "root")
    assert (place / "root/etc/new").exists()


def test_a_layer_that_is_not_the_one_of_the_configuration(place):
    with pytest.raises(StageError, match="layer 2 of the image does not match") as raised:
        unpack_image(
            io.BytesIO(image(*LAYERS, plain=[LAYERS[0], b"something else"])), place / "root"
        )
    assert "download it again" in raised.value.hint


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_a_layer_that_is_damaged(place, compress):
    big = tar(*ROOT, member("./usr/big", hashlib.shake_128(b"noise").digest(200_000)))
    damaged = bytearray(compress(big))
    damaged[100_000:100_040] = bytes(40)
    with pytest.raises(StageError, match=r"cannot be decompressed|is another than"):
        unpack_image(io.BytesIO(image(bytes(damaged), plain=[big])), place / "root")


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
@pytest.mark.parametrize("left", [0, 3, 500])
def test_a_stream_that_ends_too_soon(place, compress, left):
    blob = compress(LAYERS[0])
    data = image(blob, plain=LAYERS[:1])
    with pytest.raises(StageError, match="within a layer"):
        unpack_image(io.BytesIO(data[: len(data) - len(blob) + min(left, len(blob) - 1)]), place)


def test_a_compressed_layer_that_is_cut_short(place):
    cut = gzip.compress(LAYERS[0])[:-20]
    with pytest.raises(StageError, match="cannot be decompressed"):
        unpack_image(io.BytesIO(image(cut, plain=LAYERS[:1])), place / "root")


def damaged_end(compress, data):
    """Compressed data whose last byte is wrong: the content is whole, its checksum is not."""
    compressed = bytearray(compress(data))
    compressed[-1] ^= 0xFF
    return bytes(compressed)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstd])
def test_what_the_decompressor_finds_damaged_is_refused_although_tar_is_content(place, compress):
    with pytest.raises(StageError, match="cannot unpack"):
        unpack(io.BytesIO(damaged_end(compress, tar(*ROOT))), place / "root")
    data = image(damaged_end(compress, LAYERS[0]), plain=LAYERS[:1])
    with pytest.raises(StageError, match="cannot be decompressed"):
        unpack_image(io.BytesIO(data), place / "root")


# The check of the base

APT = member("./usr/bin/apt-get", b"#!/bin/sh\n", mode=0o755)


def base(place, *members):
    unpack(io.BytesIO(tar(directory("./etc"), directory("./usr"), *members)), place / "root")
    check_base(place / "root")


def os_release(text, name="./etc/os-release"):
    return member(name, text.encode())


@pytest.mark.parametrize(
    "members",
    [
        [os_release("ID=debian\n"), APT],
        [os_release('# a comment\n\nNAME="x"\nID="ubuntu"\nID_LIKE="debian"\n'), APT],
        [os_release("ID=mint\nID_LIKE='ubuntu debian'\n"), APT],
        [os_release("ID=debian\n", "./usr/lib/os-release"), APT],
        [
            os_release("ID=debian\n", "./usr/lib/os-release"),
            symlink("./etc/os-release", "/usr/lib/os-release"),
            APT,
        ],
    ],
)
def test_what_is_like_debian_and_has_apt_is_a_base(place, members):
    base(place, *members)
    assert (place / "root/usr/bin/apt-get").exists()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([APT], "no Debian, nor like one: a system without /etc/os-release"),
        ([os_release('ID=alpine\nPRETTY_NAME="Alpine Linux v3.20"\n'), APT], "Alpine Linux"),
        ([os_release("ID=debianish\n"), APT], "debianish"),
        ([os_release("ID=debian\n")], "no apt"),
        ([symlink("./etc/os-release", "/proc/version"), APT], "no Debian"),
    ],
)
def test_what_is_no_base_is_refused_with_the_reason(place, members, words):
    with pytest.raises(StageError, match=words) as raised:
        base(place, *members)
    assert raised.value.hint


def test_links_are_not_followed_out_of_the_base(place):
    (place / "outside/os-release").write_text("ID=debian\n")
    with pytest.raises(StageError, match="no Debian"):
        base(place, symlink("./etc/os-release", f"{place}/outside/os-release"), APT)


@pytest.mark.parametrize("data", [tar(member("debian/etc/x")), tar(directory("./etc"))])
def test_an_archive_without_a_root_file_system_is_reported(place, data):
    unpack(io.BytesIO(data), place / "root")
    with pytest.raises(StageError, match="no root file system") as raised:
        check_base(place / "root")
    assert "root directory itself" in raised.value.hint


@pytest.mark.timeout(60)
def test_however_much_tar_complains_it_comes_to_an_end(tmp_path, monkeypatch):
    """On a full disk tar prints a message for each file."""
    lines = "yes 'tar: x: Cannot write: No space left on device' | head -n 9999 >&2"
    (tmp_path / "tar").write_text(f"#!/bin/sh\n{lines}\ncat >/dev/null\nexit 2\n")
    (tmp_path / "tar").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EnvironmentFailed, match="cannot unpack") as raised:
        unpack(io.BytesIO(bytes(3_000_000)), tmp_path)
    assert "--scratch-size" in raised.value.hint
