"""Commits of strangers whose checksums are right, and whose content is not."""

import hashlib
import io
import random
import tarfile
from contextlib import suppress

import pytest
from particle_os.errors import UsageError
from particle_os.ostree import history, objects
from particle_os.ostree.deployable import Deployable, deployable

from .bootable import bootable


class Files:
    """The files of a repository in memory."""

    def __init__(self, content):
        self.content = content

    def open(self, name):
        data = self.content.get(name)
        return None if data is None else (io.BytesIO(data), len(data))

    def names(self, directory):
        return sorted(name for name in self.content if name.startswith(f"{directory}/"))


@pytest.fixture(scope="module")
def content():
    with tarfile.open(fileobj=io.BytesIO(bootable())) as tar:
        return {
            member.name.removeprefix("./"): tar.extractfile(member).read()
            for member in tar
            if member.isfile()
        }


def damaged(data, chance):
    """The data with a few other bytes, or cut off, or longer."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        match chance.randint(0, 3):
            case 0:
                made[chance.randrange(len(made))] = chance.randrange(256)
            case 1:
                del made[chance.randrange(len(made)) :]
            case 2:
                made += chance.randbytes(chance.randint(1, 9))
            case _:
                place = chance.randrange(len(made))
                made[place:place] = made[-8:]
        if not made:
            return b"\0"
    return bytes(made)


def look(files, checksum):
    """Looks at everything that the host reads of a commit."""
    found = Deployable(files, "debian/edge", objects.commit(files, checksum))
    assert isinstance(found.stateroot, str)
    list(found.faults())
    assert found.settings.etc in ("persistent", "transient")
    list(found.first_bytes("/usr/bin", 20))
    found.pack(io.BytesIO())


@pytest.mark.parametrize("seed", range(4))
def test_a_malformed_commit_is_refused_or_read(content, seed):
    chance = random.Random(seed)
    head = history.refs(Files(content))["debian/edge"]
    commit = content[f"objects/{head[:2]}/{head[2:]}.commit"]
    look(Files(content), head)
    for _ in range(100):
        made = damaged(commit, chance)
        checksum = hashlib.sha256(made).hexdigest()
        name = f"objects/{checksum[:2]}/{checksum[2:]}.commit"
        with suppress(UsageError):
            look(Files({**content, name: made}), checksum)


@pytest.mark.parametrize("seed", range(4))
def test_a_malformed_directory_is_refused_or_read(content, seed, monkeypatch):
    """The checksums are not looked at, as if they were right all the way up."""
    chance = random.Random(seed)
    head = history.refs(Files(content))["debian/edge"]
    trees = [name for name in content if name.endswith((".dirtree", ".filez"))]

    def unchecked(files, checksum, kind):
        stream = files.open(f"objects/{checksum[:2]}/{checksum[2:]}.{kind}")
        if stream is None or not objects.CHECKSUM.fullmatch(checksum):
            raise objects.BadObject("it is missing")
        return stream[0].read()

    monkeypatch.setattr(objects, "object_of", unchecked)
    for _ in range(100):
        name = chance.choice(trees)
        with suppress(UsageError):
            look(Files({**content, name: damaged(content[name], chance)}), head)


def test_names_that_lead_elsewhere_are_names_alone(content, tmp_path):
    """A path of the host, or of the tar archive, is never made of a name in a commit."""
    (tmp_path / "edge.ostree.tar").write_bytes(bootable())
    with deployable(tmp_path / "edge.ostree.tar", "debian/edge") as found:
        assert found.names("/usr/../usr") == []
        assert not found.has("/usr/lib/../lib/modules")
        assert found.text("/usr/etc/../etc/passwd", 100) == ""
