"""A commit as a base: its identity, its disk for the VM, and a repository that changes."""

import base64
import io
import tarfile

import pytest
from particle_os.base.lookup import existing_base, find_base
from particle_os.base.model import TarBase
from particle_os.errors import UsageError
from particle_os.ostree import deployable
from particle_os.ostree.files import opened
from particle_os.ostree.history import refs

from ..ostree.bootable import KEY, bootable
from ..ostree.sample import archive

GOOD = KEY.encode()
EDGE = "ostree:edge.ostree.tar#debian/edge"


@pytest.fixture
def find(tmp_path):
    """A function that finds the base of a reference, beside a repository of commits."""
    (tmp_path / "edge.ostree.tar").write_bytes(bootable())

    def find(reference=EDGE, key=GOOD):
        return find_base(
            reference, tmp_path, "amd64", tmp_path, mirror=None, rebuild=False, plain=False, key=key
        )

    return find


def checksum(tmp_path):
    with opened(tmp_path / "edge.ostree.tar") as files:
        return refs(files)["debian/edge"]


def test_the_digest_is_the_checksum_of_the_commit(find, tmp_path):
    base = find()
    assert base.digest == f"sha256:{checksum(tmp_path)}"
    assert base.is_commit
    assert base.commit.stateroot == "debian"
    assert base64.b64decode(base.commit.key) == KEY.encode()
    assert base.files == (tmp_path / "edge.ostree.tar",)
    assert base.description() == {
        "ref": "debian/edge",
        "checksum": checksum(tmp_path),
        "version": "7",
        "signature": "good",
    }


def test_an_image_without_the_check_is_no_earlier_work_for_one_with_it(find):
    assert find().digest == find(key=None).digest
    assert len({find().identity, find(key=None).identity, find(key=KEY.encode()[1:]).identity}) == 3


def test_the_result_says_whether_the_signature_was_checked(find):
    unsigned = find("ostree:edge.ostree.tar#unsigned", key=None)
    found = [base.signature for base in (find(), find(key=None), unsigned)]
    assert found == ["good", "not-checked", "none"]
    assert unsigned.commit.stateroot == "fleet"
    assert unsigned.commit.version is None, "it is no line of text"


def test_the_disk_has_this_commit_alone(find, tmp_path):
    find().write_disk(tmp_path / "disk")
    data = (tmp_path / "disk").read_bytes()
    assert len(data) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        head = tar.extractfile("refs/heads/debian/edge").read().decode().strip()
        assert all(member.isreg() for member in tar)
        assert b"mode=archive" in tar.extractfile("config").read()
    assert head == checksum(tmp_path)
    assert [name for name in names if name.startswith("refs")] == ["refs/heads/debian/edge"]
    kinds = [name.rpartition(".")[2] for name in names if name.startswith("objects")]
    assert kinds.count("commit") == kinds.count("commitmeta") == 1
    with opened(tmp_path / "disk") as files:
        assert refs(files) == {"debian/edge": head}


def test_a_repository_that_changes_during_a_build_is_refused(find, tmp_path):
    base = find()
    changed = bootable().replace(checksum(tmp_path).encode(), b"0" * 64)
    (tmp_path / "edge.ostree.tar").write_bytes(changed)
    with pytest.raises(UsageError, match=r"lacks the object|has changed"):
        base.write_disk(tmp_path / "disk")


def test_a_repository_that_is_cut_off_during_a_build_is_refused(find, tmp_path):
    base = find()
    (tmp_path / "edge.ostree.tar").write_bytes(bootable()[:90_000])
    with pytest.raises(UsageError):
        base.write_disk(tmp_path / "disk")


def test_a_commit_for_another_architecture_is_refused(find):
    with pytest.raises(UsageError, match="is for arm64, and amd64 is wanted"):
        find("ostree:edge.ostree.tar#arm", key=None)


def test_a_commit_that_no_disk_can_boot_is_refused(find, tmp_path):
    with pytest.raises(UsageError, match="has no kernel"):
        find("ostree:edge.ostree.tar#no-kernel", key=None)
    (tmp_path / "other.tar").write_bytes(archive())
    with pytest.raises(UsageError, match="no system"):
        find("ostree:other.tar#debian/edge", key=None)


def test_a_commit_with_very_many_files_is_refused(find, monkeypatch):
    monkeypatch.setattr(deployable, "FILES_LIMIT", 5)
    with pytest.raises(UsageError, match="more than 5 files"):
        find()


def test_a_repository_is_no_root_file_system(find):
    with pytest.raises(UsageError, match="is a repository of OSTree") as raised:
        find("tar:edge.ostree.tar")
    assert raised.value.hint == "Write ostree:edge.ostree.tar#REF."


def test_inspect_takes_the_reference_too(find, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    find()
    assert existing_base(EDGE, "amd64", tmp_path, mirror=None).commit.ref == "debian/edge"
    with pytest.raises(UsageError, match="names no ref"):
        existing_base("ostree:edge.ostree.tar", "amd64", tmp_path, mirror=None)


def test_other_bases_have_no_disk_and_no_signature(tmp_path):
    base = TarBase("tar:x", tmp_path / "x", "sha256:4")
    base.write_disk(tmp_path / "disk")
    assert not (tmp_path / "disk").exists()
    assert (base.is_commit, base.signature, base.identity) == (False, None, "sha256:4")
