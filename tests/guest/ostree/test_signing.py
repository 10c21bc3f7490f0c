"""Signing keys in the helper VM, with the real gpg."""

import shutil
import subprocess
from pathlib import Path

import pytest
from particle_agent.errors import StageError
from particle_agent.ostree.repositories import signing
from particle_agent.target.target import SECRETS, Target

NEEDS_GPG = pytest.mark.skipif(shutil.which("gpg") is None, reason="no gpg")


class Lines(list):
    output = list.append


def gpg(home, *arguments):
    argv = ["gpg", "--homedir", home, "--batch", "--passphrase", "secret words", *arguments]
    return subprocess.run(argv, check=True, capture_output=True).stdout


@pytest.fixture
def target(tmp_path, monkeypatch):
    monkeypatch.setattr(signing, "MEMORY", tmp_path)
    (tmp_path / "root").mkdir()
    return Target(tmp_path / "root", Lines(), hostname="box")


@pytest.fixture
def make(tmp_path):
    """Makes keys of gpg; returns the exported secret keys."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)

    def made(*names, passphrase=""):
        for name in names:
            gpg(home, "--passphrase", passphrase, "--quick-gen-key", name, "ed25519", "sign")
        words = ["--passphrase", passphrase, "--pinentry-mode", "loopback"]
        return gpg(home, *words, "--export-secret-keys")

    yield made
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@NEEDS_GPG
def test_a_key_signs_and_nothing_of_it_is_left(target, make, tmp_path):
    target.write(f"{SECRETS}/key", "")
    target.path(f"{SECRETS}/key").write_bytes(make("Edge <edge@example.org>"))
    with signing.signing_key(target, "key") as key:
        assert len(key.fingerprint) == 40
        assert key.directory.stat().st_mode & 0o777 == 0o700
        gpg(key.directory, "--local-user", key.fingerprint, "--detach-sign", __file__)
        Path(f"{__file__}.sig").replace(tmp_path / "signature")
        (tmp_path / "public").write_bytes(key.public)
    assert not key.directory.exists()
    verified = ["gpgv", "--keyring", tmp_path / "public", tmp_path / "signature", __file__]
    assert subprocess.run(verified, capture_output=True).returncode == 0
    assert b"PRIVATE" not in key.public


@NEEDS_GPG
@pytest.mark.parametrize(
    ("names", "message"),
    [((), "gpg cannot read the signing key"), (("one", "two"), "'key' has 2 secret keys")],
)
def test_a_secret_that_is_not_one_key_is_refused(target, make, names, message):
    target.write(f"{SECRETS}/key", "")
    target.path(f"{SECRETS}/key").write_bytes(make(*names) if names else b"no key")
    with pytest.raises(StageError, match=message) as raised, signing.signing_key(target, "key"):
        pass
    assert raised.value.hint
