"""The parent's repository, from a stranger."""

import subprocess

import pytest
from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree.repositories import given as given_repository
from particle_agent.ostree.repositories import parent
from particle_agent.ostree.repositories.commit_record import workshop
from particle_agent.ostree.repositories.signing import GpgKey

CHECKSUM = "0123456789abcdef" * 4
OBJECT = f"objects/{CHECKSUM[:2]}/{CHECKSUM[2:]}"
ARCHIVE = "[core]\nrepo_version=1\nmode=archive-z2\n"
REF = "debian/13/amd64/edge"


@pytest.fixture
def given(target, tmp_path, monkeypatch):
    """A function that takes a parent with these files; ostree(1) is imitated, tar(1) is not."""
    target.captured |= {"ostree": f"{CHECKSUM}\n"}
    target.failing = ""

    def run(command):
        if target.failing and target.failing in command.argv:
            raise CommandFailed(command.argv, 1, ("error: it failed",))

    def real(command):
        if (ended := subprocess.run(command.argv, capture_output=True, text=True)).returncode:
            raise CommandFailed(command.argv, ended.returncode, ended.stderr.splitlines())

    target.when("ostree", run)
    target.when("tar", real)
    monkeypatch.setattr(given_repository, "wait_for_disk", lambda *_: tmp_path / "disk")

    def take(config=ARCHIVE, key=None, **files):
        tree = tmp_path / "tree"
        for name, text in {"config": config, **files}.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
        if not (tmp_path / "disk").exists():
            pack = ["tar", "--create", f"--file={tmp_path}/disk", f"--directory={tree}", "."]
            subprocess.run(pack, check=True)
        return parent.take(target, REF, "debian", key)

    return take


def verbs(target):
    return [command.argv[1] for command in target.commands if command.argv[0] == "ostree"]


def test_the_commit_is_copied_and_every_object_of_it_is_checked(target, given):
    assert given() == CHECKSUM
    assert verbs(target) == ["rev-parse", "init", "config", "pull-local", "fsck", "show"]
    assert (workshop(target) / "archive").is_dir()


def test_the_configuration_of_a_stranger_is_not_used(target, given):
    given(f'{ARCHIVE}parent=/run\n[remote "evil"]\nurl=file:///\n')
    assert (workshop(target) / "parent/config").read_text() == ARCHIVE


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[core]\nmode=bare\n", "mode 'bare'; it must be 'archive'"),
        ("[core]\n", "no repository of OSTree"),
        ("no configuration", "no repository of OSTree"),
        ("[core]\nmode=" + "x" * (1 << 17), "mode 'x+'"),
    ],
)
def test_another_kind_of_repository_is_refused(given, config, message):
    with pytest.raises(StageError, match=message) as raised:
        given(config)
    assert raised.value.hint


def test_a_file_that_is_no_archive_is_refused(given, tmp_path):
    (tmp_path / "disk").write_text("no archive\n" * 100)
    with pytest.raises(StageError, match="no tar archive"):
        given()


def test_links_and_devices_are_refused(target, given):
    target.captured["find"] = "/scratch/ostree/parent/objects/\x1b[31mlink\n"
    with pytest.raises(StageError, match=r"has '\\x1b\[31mlink', which is no file") as raised:
        given()
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("pull-local", "the parent's repository is damaged"),
        ("fsck", "the parent's repository is damaged"),
    ],
)
def test_a_damaged_repository_is_refused(target, given, failing, message):
    target.failing = failing
    with pytest.raises(StageError, match=message) as raised:
        given()
    assert raised.value.tail == ("error: it failed",)


def test_a_parent_without_the_ref_is_refused(target, given, monkeypatch):
    def fail(argv, timeout=60.0):
        raise CommandFailed(argv, 1, ())

    outside = {"find": lambda argv: ""}
    capture = lambda argv, **_: outside.get(argv[0], fail)(argv)  # noqa: E731
    monkeypatch.setattr(target, "capture_outside", capture)
    with pytest.raises(StageError, match=f"has no commit of the ref '{REF}'"):
        given()


def test_a_parent_of_another_stateroot_is_refused(target, given, monkeypatch):
    def capture(argv, **_):
        return {"rev-parse": CHECKSUM, "show": "'fedora'\n"}.get(argv[1], "")

    monkeypatch.setattr(target, "capture_outside", capture)
    with pytest.raises(StageError, match="the stateroot 'fedora', and this commit for 'debian'"):
        given()


@pytest.fixture
def key(tmp_path):
    return GpgKey(tmp_path, "0" * 40, b"public key")


def test_a_signature_must_be_of_the_key(target, given, key):
    given(key=key, **{f"{OBJECT}.commitmeta": "signature"})
    (pull,) = [c.argv for c in target.commands if "--gpg-verify" in c.argv]
    assert pull[1:] == (
        "pull-local",
        f"--repo={workshop(target)}/signature",
        "--commit-metadata-only",
        "--gpg-verify",
        "--remote=given",
        f"{workshop(target)}/parent",
        CHECKSUM,
    )
    assert (key.directory / "given.gpg").read_bytes() == b"public key"


def test_another_signature_is_refused(target, given, key):
    target.failing = "--gpg-verify"
    with pytest.raises(StageError, match="no good signature of the key in 'sign'"):
        given(key=key, **{f"{OBJECT}.commitmeta": "signature"})


def test_a_parent_without_signature_is_noted(target, given, key):
    assert given(key=key) == CHECKSUM
    assert target.report.notes == ["the parent's commit has no signature"]
    assert "--gpg-verify" not in [word for command in target.commands for word in command.argv]
