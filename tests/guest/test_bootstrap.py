import io
import stat
import tarfile

import pytest
from particle_agent.bootstrap import extract
from particle_agent.errors import InfrastructureError


def tar(*members):
    """A tar archive of (name, content or link target or None for a directory, mode)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content, mode in members:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if content is None:
                info.type = tarfile.DIRTYPE
            elif content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:]
                content = None
            data = (content or "").encode()
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name, data):
    header = b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, 0o100644, len(data))
    return header + data + b"\n" * (len(data) % 2)


def deb(*members):
    parts = [member(b"debian-binary", b"2.0\n"), member(b"control.tar", b"odd")]
    return b"!<arch>\n" + b"".join(parts) + member(b"data.tar", tar(*members))


@pytest.fixture
def archives(tmp_path):
    place = tmp_path / "archives"
    place.mkdir()
    (place / "a.deb").write_bytes(
        deb(
            ("./bin/", None, 0o755),
            ("./bin/one", "first", 0o4755),
            ("./etc/apt/", None, 0o755),
            ("./var/lib/dpkg/", None, 0o755),
        )
    )
    (place / "b.deb").write_bytes(
        deb(("./usr/bin/two", "second", 0o755), ("./lib", "-> usr/lib", 0o777))
    )
    return place


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "root"
    place.mkdir()
    return place


def test_packages_of_both_layouts_end_up_under_usr(archives, root):
    extract(archives, root, "deb http://m.example s main\n")
    assert (root / "usr/bin/one").read_text() == "first"
    assert stat.S_IMODE((root / "usr/bin/one").stat().st_mode) == 0o4755
    assert (root / "bin").is_symlink()
    assert (root / "bin/two").read_text() == "second"
    assert (root / "lib").readlink().as_posix() == "usr/lib"
    assert (root / "etc/apt/sources.list").read_text() == "deb http://m.example s main\n"
    assert (root / "var/lib/dpkg/status").read_text() == ""


def test_a_package_that_is_still_compressed_is_told(archives, root):
    data = (archives / "a.deb").read_bytes().replace(b"data.tar  ", b"data.tar.x")
    (archives / "a.deb").write_bytes(data)
    with pytest.raises(InfrastructureError, match="no decompressed files"):
        extract(archives, root, "")
