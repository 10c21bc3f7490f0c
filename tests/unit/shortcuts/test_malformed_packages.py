"""Only dpkg judges a malformed package: reading one raises Unusual, whatever is wrong with it."""

import gzip
import io
import subprocess
import tarfile

import pytest
from particle_os.apt import package_disk
from particle_os.errors import InfrastructureError
from particle_os.shortcuts import dpkg_database
from particle_os.system import tar_archive

from ...fuzz.archives import CONTROL, deb, tar

GOOD = tar({"./control": CONTROL})
DATA = tar({"./": b"", "./usr/a": b"x"})


def links(*members):
    """A tar archive of links, each a name, a type and a target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return buffer.getvalue()


def dated(mtime):
    """A control archive whose extended header gives a time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("control")
        member.size, member.pax_headers = len(CONTROL), {"mtime": mtime}
        archive.addfile(member, io.BytesIO(CONTROL))
    return buffer.getvalue()


MALFORMED = {
    "no archive": deb(b"", DATA),
    "noise": deb(b"x" * 2000, DATA),
    "a cut archive": deb(GOOD[:600], DATA),
    "cut data": deb(GOOD, DATA[:-1200]),
    "no control file": deb(tar({"./postinst": b"#!/bin/sh\n"}), DATA),
    "no name": deb(tar({"./control": b"Version: 1\n"}), DATA),
    "no data": deb(GOOD, DATA).replace(b"data.tar", b"date.tar"),
    "a negative size": deb(GOOD, DATA).replace(b"%-10d" % 4, b"%-10d" % -60, 1),
    "no size": deb(GOOD, DATA).replace(b"%-10d" % 4, b"%-10s" % b"four", 1),
    "no date": deb(dated("nan"), DATA),
    "an endless date": deb(dated("inf"), DATA),
    "a link to a directory": deb(
        GOOD, links(("a", tarfile.DIRTYPE, ""), ("b", tarfile.LNKTYPE, "a"))
    ),
    "a link to itself": deb(GOOD, links(("a", tarfile.SYMTYPE, "a"), ("b", tarfile.LNKTYPE, "a"))),
}


def write(data, place):
    package = place / "a_1_amd64.deb"
    package.write_bytes(data)
    dpkg_database.write([package], place / "database.tar")
    dpkg_database.write_loose([package], place)


def test_a_good_package_is_written(tmp_path):
    write(deb(GOOD, DATA), tmp_path)
    assert (tmp_path / "a_1_amd64.deb.json").exists()


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_package_is_left_to_dpkg(tmp_path, name):
    with pytest.raises(dpkg_database.Unusual):
        write(MALFORMED[name], tmp_path)


def test_an_archive_that_takes_much_memory_is_not_read():
    archive = links(("a" * (1 << 17), tarfile.SYMTYPE, "a"))
    with pytest.raises(dpkg_database.Unusual, match="an extended header has 131"):
        dpkg_database._check(io.BytesIO(archive), len(archive), "a.deb")


CONTROLS = {
    "noise": b"x" * 2000,
    "no control file": tar({"./postinst": b"#!/bin/sh\n"}),
    "a directory": tar({"./control/": b""}),
    "a link to itself": links(("control", tarfile.SYMTYPE, "control")),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_package_without_a_control_file_is_reported(name, soon):
    with pytest.raises(InfrastructureError, match="deb cannot be read"):
        package_disk._control(CONTROLS[name], "a.deb", soon)


@pytest.mark.parametrize("data", [DATA, DATA + b"\0"])
def test_a_package_without_compression_is_a_package(tmp_path, soon, data):
    package, made = tmp_path / "a_1_amd64.deb", tmp_path / "made"
    package.write_bytes(deb(GOOD, gzip.compress(data), data_name=b"data.tar.gz"))
    made.mkdir()
    (stanza,) = package_disk._decompress([package], made, soon)
    written = (made / package.name).read_bytes()
    assert f"\nSize: {len(written)}\n" in stanza
    padding = b"\n" * (len(data) % 2)
    assert written.endswith(b"%-10d`\n" % len(data) + data + padding)
    argv = ["dpkg-deb", "--fsys-tarfile", made / package.name]
    assert subprocess.run(argv, capture_output=True, check=True).stdout == data


def test_a_package_that_unpacks_to_too_many_bytes_is_refused(tmp_path, soon, monkeypatch):
    monkeypatch.setattr(tar_archive, "SMALL", 1 << 20)
    package = tmp_path / "a_1_amd64.deb"
    package.write_bytes(deb(GOOD, gzip.compress(bytes(4 << 20)), data_name=b"data.tar.gz"))
    with pytest.raises(InfrastructureError, match=r"a_1_amd64\.deb: it unpacks to too many bytes"):
        package_disk.write_disk([package], tmp_path / "disk", tmp_path, soon)


def test_a_package_with_too_many_bytes_of_control_files_is_refused(tmp_path, soon, monkeypatch):
    monkeypatch.setattr(package_disk, "CONTROL_LIMIT", len(GOOD) - 1)
    package = tmp_path / "a_1_amd64.deb"
    package.write_bytes(deb(GOOD, DATA))
    with pytest.raises(InfrastructureError, match="bytes of control files"):
        package_disk.write_disk([package], tmp_path / "disk", tmp_path, soon)


def test_a_package_for_several_architectures_has_its_own_in_its_files():
    text = "Package: a\nArchitecture: amd64\n"
    assert dpkg_database._info_name(text) == "a"
    assert dpkg_database._info_name(f"{text}Multi-Arch: foreign\n") == "a"
    assert dpkg_database._info_name(f"{text}Multi-Arch: same\n") == "a:amd64"
