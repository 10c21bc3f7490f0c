import pytest
from particle_agent.contract.decode import DecodeError, decode
from particle_agent.contract.options import Faults
from particle_agent.ostree import remote
from particle_agent.ostree.remote import Remote
from particle_agent.stages.base import Secret
from particle_agent.stages.output.ostree import Ostree, Sign

URL = "https://updates.example.org/edge"
KEY = Secret(name="key", env="KEY")


@pytest.mark.parametrize(("verify", "key"), [(True, b"public"), (False, None)])
def test_machines_find_the_server_and_the_key(target, verify, key):
    remote.write(target, "origin", Remote(url=URL, verify=verify), "a/b", key)
    lines = target.read("/etc/ostree/remotes.d/origin.conf").splitlines()
    assert lines[0] == '[remote "origin"]'
    assert f"url={URL}" in lines
    assert "branches=a/b;" in lines
    assert f"gpg-verify={str(verify).lower()}" in lines
    assert ("gpgkeypath=/usr/share/ostree/keys/origin.gpg" in lines) == verify
    assert target.exists("/usr/share/ostree/keys/origin.gpg") == (key is not None)


@pytest.mark.parametrize(
    "url", ["ftp://example.org", "https://example.org/a b", "https://e\nx=1", "/srv", "file:x"]
)
def test_other_urls_are_refused(url):
    with pytest.raises(DecodeError, match="not accepted"):
        decode(Remote, {"url": url})


@pytest.mark.parametrize(
    ("options", "place", "message"),
    [
        ({"remote": Remote(url=URL)}, ("remote", "verify"), "the commit has no signature"),
        ({"sign": Sign(gpg_secret="key")}, ("sign", "gpg-secret"), "'secrets' names no 'key'"),
    ],
)
def test_a_signature_needs_its_key(options, place, message):
    with pytest.raises(Faults, match=message) as raised:
        Ostree(ref="a", **options)
    assert [where for where, _ in raised.value.found] == [place]


def test_a_signed_commit_may_have_a_remote_that_verifies():
    stage = Ostree(ref="a", secrets=(KEY,), sign=Sign(gpg_secret="key"), remote=Remote(url=URL))
    assert stage.publishes == ("repository", "key")
    assert Ostree(ref="a").publishes == ("repository",)
