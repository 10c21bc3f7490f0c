import gzip
import hashlib
import io
import lzma
import subprocess
import tarfile

import pytest
from particle_os.base import suite
from particle_os.base.lookup import find_base, resolve_file
from particle_os.base.model import TarBase
from particle_os.base.suite import is_damaged
from particle_os.base.tarball import architecture_of
from particle_os.errors import UsageError


def elf(machine, order="little"):
    ident = b"\x7fELF\x02" + (b"\x01" if order == "little" else b"\x02") + bytes(10)
    return ident + (2).to_bytes(2, order) + machine.to_bytes(2, order) + bytes(5000)


AMD64, ARM64, RISCV = elf(62), elf(183), elf(243)


def tar(**files):
    """A tarball of files; "__" in a name stands for "/"."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in {"etc__os-release": b"ID=debian\n", **files}.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zstd(data):
    return subprocess.run(["zstd", "-c", "-q"], input=data, capture_output=True, check=True).stdout


COMPRESSIONS = [bytes, gzip.compress, lzma.compress, zstd]


@pytest.fixture
def write(tmp_path):
    def write(data):
        (tmp_path / "base.tar").write_bytes(data)
        return tmp_path / "base.tar"

    return write


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize(("program", "name"), [(AMD64, "amd64"), (ARM64, "arm64")])
def test_the_architecture_is_that_of_the_programs(write, compress, program, name):
    assert architecture_of(write(compress(tar(usr__bin__ls=program)))) == name


@pytest.mark.parametrize("place", ["usr/bin/ls", "./usr/bin/ls", "bin/ls", "./bin/ls", "/bin/ls"])
def test_programs_are_found_wherever_they_lie(write, place):
    assert architecture_of(write(tar(**{place: AMD64}))) == "amd64"


def test_big_endian_programs(write):
    assert architecture_of(write(tar(usr__bin__ls=elf(22, "big")))) == "s390x"


def test_an_unknown_machine_is_reported_by_number(write):
    assert architecture_of(write(tar(usr__bin__ls=RISCV))) == "ELF machine 243"


def test_scripts_and_other_directories_are_passed_over(write):
    data = tar(usr__bin__a=b"#!/bin/sh\n", usr__bin__b=b"", usr__lib__so=ARM64, usr__bin__z=AMD64)
    assert architecture_of(write(data)) == "amd64"


def test_no_program_is_no_architecture(write):
    assert architecture_of(write(tar(usr__lib__so=AMD64))) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"this is no archive\n" * 100,
        AMD64,
        b"\x1f\x8b not gzip",
        b"\xfd7zXZ\x00 not xz",
        b"\x28\xb5\x2f\xfd not zstd",
        gzip.compress(b"no archive"),
        b"PK\x03\x04" + bytes(600),
    ],
    ids=["empty", "text", "program", "gzip", "xz", "zstd", "gzip-of-text", "zip"],
)
def test_a_file_that_is_no_archive_is_reported(write, data):
    with pytest.raises(UsageError, match="cannot be read as a tar archive"):
        architecture_of(write(data))


NOISE = hashlib.shake_128(b"noise").digest(200_000)


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_a_truncated_archive_is_reported(write, compress):
    data = compress(tar(usr__lib__big=NOISE, usr__bin__ls=AMD64))
    with pytest.raises(UsageError, match="cannot be read"):
        architecture_of(write(data[: len(data) // 2]))


@pytest.mark.parametrize("compress", COMPRESSIONS[1:])
def test_a_damaged_archive_is_reported(write, compress):
    data = bytearray(compress(tar(usr__lib__big=b"text " * 40_000, usr__bin__ls=AMD64)))
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    with pytest.raises(UsageError, match="cannot be read"):
        architecture_of(write(bytes(data)))


def test_a_base_is_named_by_its_digest(write, tmp_path):
    path = write(tar(usr__bin__ls=AMD64))
    base = resolve_file("tar:base.tar", tmp_path, "amd64")
    assert base.tarball == path
    assert base.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_other_references_are_not_files(tmp_path):
    assert resolve_file("mmdebstrap:trixie", tmp_path, "amd64") is None


def test_a_base_that_cannot_be_used_is_reported_before_anything_runs(write, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        resolve_file("tar:missing.tar", tmp_path, "amd64")
    write(tar(usr__bin__ls=ARM64))
    with pytest.raises(UsageError, match="is for arm64, and amd64 is wanted"):
        resolve_file("tar:base.tar", tmp_path, "amd64")
    write(tar())
    with pytest.raises(UsageError, match="no root file system"):
        resolve_file("tar:base.tar", tmp_path, "amd64")


def test_a_plain_base_and_another_are_two(tmp_path):
    suites = {plain: suite.suite_key("trixie", None, "amd64", plain) for plain in (False, True)}
    bases = tmp_path / "bases"
    bases.mkdir()
    (bases / f"{suites[True]}.sha256").write_text("sha256:0\n")
    where = ("mmdebstrap:trixie", tmp_path, "amd64", tmp_path)
    assert find_base(*where, mirror=None, rebuild=False, plain=False) is None
    assert find_base(*where, mirror=None, rebuild=False, plain=True) is not None


def test_a_changed_base_of_a_suite_is_damaged(tmp_path):
    tarball = tmp_path / "key.tar.zst"
    tarball.write_bytes(b"sound")
    digest = f"sha256:{hashlib.sha256(b'sound').hexdigest()}"
    base = TarBase("mmdebstrap:trixie", tarball, digest)
    assert not is_damaged(base)
    tarball.write_bytes(b"sounD")
    assert is_damaged(base)
    assert not is_damaged(TarBase("tar:base.tar", tarball, digest)), "it is the user's own"
    tarball.unlink()
    assert is_damaged(base)


@pytest.mark.parametrize(("machine", "name"), [(3, "i386"), (40, "arm"), (21, "ppc64el")])
def test_other_machines_of_debian(write, machine, name):
    assert architecture_of(write(tar(usr__bin__ls=elf(machine)))) == name
