"""A commit as the base, with the real ostree(1): from a stranger, damaged, and badly signed."""

import base64
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from particle_agent.contract.wire import BaseCommit
from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree import base
from particle_agent.ostree.repositories import given, signing
from particle_agent.ostree.repositories.commit_record import CommitRecord, workshop

from ..conftest import RecordingTarget

pytestmark = pytest.mark.skipif(shutil.which("ostree") is None, reason="no ostree")
REF = "debian/13/amd64/edge"
REAL = ("ostree", "tar", "find", "gpg", "rm")


def run(*argv):
    env = os.environ | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailed(argv, done.returncode, done.stderr.splitlines())
    return done.stdout


class Machine(RecordingTarget):
    """A target whose helper VM has the real programs."""

    def run(self, argv, *, stdin="", env=None, timeout=None):
        super().run(argv, stdin=stdin, env=env, timeout=timeout)
        if argv[0] in REAL:
            run(*argv)

    def capture_outside(self, argv, *, timeout=60.0):
        return run(*argv)


class Key:
    """A key of gpg in a directory with a short path, as the socket of its agent needs it."""

    def __init__(self, home, name):
        self.home = home
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
        run(*gpg, "--quick-gen-key", f"{name} <{name}@example.org>", "ed25519", "sign", "never")
        run(*gpg, "--armor", "--output", f"{home}/public.asc", "--export")
        listed = run(*gpg, "--list-keys", "--with-colons")
        (self.fingerprint,) = signing.PRIMARY.findall(listed)
        self.public = Path(home, "public.asc").read_bytes()


@pytest.fixture(scope="module")
def keys():
    """The keys of the one who signs, and of another."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as one,
        tempfile.TemporaryDirectory(dir="/tmp") as other,
    ):
        yield Key(one, "edge"), Key(other, "other")
        for home in (one, other):
            run("gpgconf", "--homedir", home, "--kill", "all")


@pytest.fixture(scope="module")
def repository(tmp_path_factory, keys):
    """A function that makes a repository with a signed commit of some files."""

    def make(*options, signed=True, **more):
        top = tmp_path_factory.mktemp("repository")
        files = {
            "usr/lib/modules/6.12/vmlinuz": "kernel",
            "usr/lib/modules/6.12/initramfs.img": "initramfs",
            "usr/etc/passwd": "root:x:0:0::/root:/bin/sh\n",
            "usr/etc/ostree/remotes.d/fleet.conf": f'[remote "fleet"]\nbranches={REF};\n',
            "usr/bin/tool": "program",
        }
        for name, text in {**files, **more}.items():
            if text is not None:
                (top / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
                (top / "tree" / name).write_text(text)
        place = top / "repo"
        run("ostree", "init", f"--repo={place}", "--mode=archive")
        words = [f"--repo={place}", f"--branch={REF}", "--owner-uid=0", "--owner-gid=0", *options]
        if signed:
            words += [f"--gpg-sign={keys[0].fingerprint}", f"--gpg-homedir={keys[0].home}"]
        run("ostree", "commit", *words, str(top / "tree"))
        return place

    return make


@pytest.fixture
def take(tmp_path, monkeypatch):
    """A function that makes the commit of a repository the base of a target."""
    monkeypatch.setattr(given, "wait_for_disk", lambda *_: tmp_path / "disk")
    # The memory of the VM; paths of sockets are short.
    monkeypatch.setattr(signing, "MEMORY", Path("/tmp"))

    def taken(place, *, key=None, **changes):
        disk = tmp_path / "disk"
        if not disk.exists():
            run("tar", "--create", f"--file={disk}", f"--directory={place}", ".")
        target = Machine(tmp_path)
        wanted = {
            "ref": REF,
            "checksum": run("ostree", "rev-parse", f"--repo={place}", REF).strip(),
            "stateroot": "debian",
            "version": "1",
            "key": None if key is None else base64.b64encode(key.public).decode(),
        }
        base.take(target, BaseCommit(**wanted | changes))
        return target

    return taken


def test_the_commit_becomes_the_target_and_has_its_record(repository, take, keys):
    target = take(repository(), key=keys[0])
    assert target.read("/usr/bin/tool") == "program"
    record = CommitRecord.read(target)
    assert (record.ref, record.kernel, record.stateroot) == (REF, "6.12", "debian")
    assert (record.remote, record.version, record.publishes) == ("fleet", "1", ())
    assert record.signer == keys[0].fingerprint
    assert f"good signature of the key {record.signer}" in target.report.notes[0]
    place = workshop(target) / "repository"
    assert run("ostree", "rev-parse", f"--repo={place}", REF).strip() == record.checksum
    assert not (workshop(target) / "given").exists()


def test_a_program_of_the_commit_cannot_change_the_objects(repository, take):
    target = take(repository())
    with target.path("/usr/bin/tool").open("r+b") as file:
        file.write(b"evil")
    assert target.read("/usr/bin/tool") == "evilram"
    shown = run("ostree", "cat", f"--repo={workshop(target) / 'repository'}", REF, "/usr/bin/tool")
    assert shown == "program"


def test_without_a_key_no_signature_is_checked(repository, take):
    target = take(repository())
    assert CommitRecord.read(target).signer is None
    assert target.report.notes == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_commit_without_a_good_signature_of_the_key_is_refused(repository, take, keys, number):
    """Another one has signed it, or there is no signature."""
    place = repository(signed=number == 1)
    with pytest.raises(StageError, match="no good signature of the key") as raised:
        take(place, key=keys[number])
    assert keys[number].fingerprint in raised.value.message


def test_a_signature_of_another_commit_is_refused(repository, take, keys):
    signed, other = repository(), repository(signed=False, **{"usr/bin/tool": "another"})
    (signature,) = signed.glob("objects/*/*.commitmeta")
    (commit,) = other.glob("objects/*/*.commit")
    shutil.copy(signature, commit.with_suffix(".commitmeta"))
    with pytest.raises(StageError, match="no good signature"):
        take(other, key=keys[0])


def test_a_file_with_several_keys_is_refused(repository, take, keys):
    class Both:
        public = keys[0].public + keys[1].public

    with pytest.raises(StageError, match="has 2 keys; it must have one"):
        take(repository(), key=Both)


@pytest.mark.parametrize("kind", ["filez", "dirtree", "dirmeta", "commit"])
def test_a_damaged_object_is_refused(repository, take, kind):
    place = repository(signed=False)
    objects = sorted(place.glob(f"objects/*/*.{kind}"))
    for path in objects:
        data = path.read_bytes()
        path.write_bytes(data[:-4] + bytes([data[-4] ^ 1]) + data[-3:])
    with pytest.raises(StageError, match="the base's repository is damaged") as raised:
        take(place)
    assert raised.value.tail


def test_an_object_with_the_content_of_another_is_refused(repository, take):
    """Each is a whole object, but not the one that its name says."""
    place = repository(signed=False)
    one, other = sorted(place.glob("objects/*/*.filez"))[:2]
    shutil.copy(one, other)
    with pytest.raises(StageError, match="the base's repository is damaged"):
        take(place)


def test_a_missing_object_is_refused(repository, take):
    place = repository(signed=False)
    next(place.glob("objects/*/*.filez")).unlink()
    with pytest.raises(StageError, match="the base's repository is damaged"):
        take(place)


def test_another_commit_than_the_one_that_the_host_has_seen_is_refused(repository, take):
    with pytest.raises(StageError, match="has changed while it was read"):
        take(repository(), checksum=hashlib.sha256(b"").hexdigest())


@pytest.mark.parametrize(
    "files",
    [
        {"usr/lib/modules/6.12/vmlinuz": None},
        {"usr/lib/modules/6.13/vmlinuz": "another kernel"},
        {"usr/etc/passwd": None, "usr/etc/ostree/remotes.d/fleet.conf": None},
    ],
)
def test_a_commit_that_is_no_system_is_refused(repository, take, files):
    with pytest.raises(StageError, match="no system that OSTree boots"):
        take(repository(**files))


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        ([], "origin"),
        (['[remote "a"]\nurl=x\n'], "a"),
        (['[remote "a"]\n', f'[remote "b"]\nbranches=x;{REF};\n'], "b"),
        (['[remote "a"]\n', '[remote "b"]\n'], "origin"),
        (['[remote "../../x"]\n'], "origin"),
        (['[remote "--set=x"]\n'], "origin"),
        (["no configuration\n" * 10000], "origin"),
    ],
)
def test_the_server_is_that_of_the_commit(repository, take, texts, name):
    files = {f"usr/etc/ostree/remotes.d/{n}.conf": text for n, text in enumerate(texts)}
    place = repository(**{"usr/etc/ostree/remotes.d/fleet.conf": None, **files})
    assert CommitRecord.read(take(place)).remote == name
