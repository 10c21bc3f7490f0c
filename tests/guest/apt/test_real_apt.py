"""The words of this machine's apt about a defective repository get the headline of its cause."""

import subprocess

import pytest
from particle_agent.apt.failure import apt_failure

from ... import archive as archives


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    directory = tmp_path_factory.mktemp("archive") / "archive"
    with archives.served(directory, ("zz-tool", "1.0", "")) as served:
        served.publish("old", ("zz-old", "1.0", ""), expired=True)
        yield served


@pytest.fixture
def apt(tmp_path, archive):
    """Runs apt-get with directories of its own; returns the error that the stage would report."""

    def run(*arguments, suite=archives.SUITE, url="", key=None):
        source = tmp_path / "etc/apt/sources.list.d/extra.sources"
        for path in (
            source.parent,
            tmp_path / "lists/partial",
            tmp_path / "cache/archives/partial",
        ):
            path.mkdir(parents=True, exist_ok=True)
        keyring = tmp_path / "key.asc"
        keyring.write_text(archive.key if key is None else key)
        source.write_text(
            f"Types: deb\nURIs: {url or f'http://127.0.0.1:{archive.port}'}\nSuites: {suite}\n"
            f"Components: main\nArchitectures: amd64\nSigned-By: {keyring}\n"
        )
        (tmp_path / "status").touch()
        options = {
            "Dir::Etc": tmp_path / "etc/apt", "Dir::State::Lists": tmp_path / "lists",
            "Dir::State::Status": tmp_path / "status", "Dir::Cache": tmp_path / "cache",
            "APT::Architecture": "amd64", "Acquire::Retries": "0", "APT::Sandbox::User": "",
            "Acquire::Check-Valid-Until": "true", "Acquire::Check-Date": "true",
        }  # fmt: skip
        argv = ["apt-get", *(f"-o{name}={value}" for name, value in options.items()), *arguments]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={"LANG": "C.UTF-8"}
        )
        lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
        return apt_failure(lines), lines

    return run


def another_key(directory):
    with archives._signing(directory / "gnupg") as key:
        return key


def test_a_good_repository_has_no_error(apt):
    assert apt("update")[0] is None
    assert apt("--yes", "--download-only", "install", "zz-tool")[0] is None


@pytest.mark.parametrize(
    ("given", "headline", "hint"),
    [
        ({"suite": "nothing"}, "there is no such suite", "dists/SUITE"),
        ({"suite": "old"}, "has expired", "'snapshot'"),
        ({"url": "http://127.0.0.1:1"}, "127.0.0.1 cannot be reached", ""),
    ],
    ids=["no suite", "expired", "away"],
)
def test_a_defective_repository_is_named_with_its_cause(apt, given, headline, hint):
    error, lines = apt("update", **given)
    assert error is not None, lines
    assert headline in error.message, lines
    assert hint in (error.hint or "")


def test_a_wrong_key_is_told_from_a_missing_signature(apt, archive, tmp_path):
    error, lines = apt("update", key=another_key(tmp_path))
    assert error is not None, lines
    assert "no key" in error.message, lines
    assert "'key-file'" in error.hint
    signed = archive.directory / f"dists/{archives.SUITE}/InRelease"
    content = signed.read_text()
    signed.unlink()
    try:
        error, lines = apt("update")
    finally:
        signed.write_text(content)
    assert "the repository is not signed" in error.message, lines


def test_a_package_that_the_index_names_and_the_mirror_lacks(apt, archive):
    assert apt("update")[0] is None
    (deb,) = (archive.directory / f"pool/{archives.SUITE}").glob("zz-tool_*.deb")
    content = deb.read_bytes()
    deb.unlink()
    try:
        error, lines = apt("--yes", "--download-only", "install", "zz-tool")
    finally:
        deb.write_bytes(content)
    assert error is not None, lines
    assert "no longer has" in error.message, lines
    assert "'--refresh'" in error.hint


def test_a_package_of_another_component_is_named(apt):
    assert apt("update")[0] is None
    error, lines = apt("--yes", "--download-only", "install", "firmware-iwlwifi")
    assert error is not None, lines
    assert "firmware-iwlwifi" in error.message
    assert "non-free-firmware" in error.hint
