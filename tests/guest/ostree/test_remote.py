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
    remote.write(target, Remote(url=URL, verify=verify), "a/b", key, None)
    lines = target.read("/etc/ostree/remotes.d/origin.conf").splitlines()
    assert lines[0] == '[remote "origin"]'
    assert f"url={URL}" in lines
    assert "branches=a/b;" in lines
    assert f"gpg-verify={str(verify).lower()}" in lines
    assert ("gpgkeypath=/usr/share/ostree/keys/origin.gpg" in lines) == verify
    assert target.exists("/usr/share/ostree/keys/origin.gpg") == (key is not None)


def test_machines_know_the_server_by_its_certificate_and_it_knows_them_by_theirs(target):
    (target.attachments / "0123").write_text("-----BEGIN CERTIFICATE-----\n")
    server = Remote(
        name="fleet",
        url=URL,
        content_url="https://cdn.example.org/edge",
        verify=False,
        tls_ca="sha256:0123",
        tls_client_cert="/etc/pki/machine.pem",
        tls_client_key="/etc/pki/machine.key",
    )
    remote.write(target, server, "a/b", None, "org.example.Edge")
    assert target.read("/etc/ostree/remotes.d/fleet.conf").splitlines() == [
        '[remote "fleet"]',
        f"url={URL}",
        "contenturl=https://cdn.example.org/edge",
        "branches=a/b;",
        "gpg-verify=false",
        "tls-client-cert-path=/etc/pki/machine.pem",
        "tls-client-key-path=/etc/pki/machine.key",
        "collection-id=org.example.Edge",
        "tls-ca-path=/usr/share/ostree/keys/fleet-tls-ca.pem",
    ]
    authorities = target.read("/usr/share/ostree/keys/fleet-tls-ca.pem")
    assert authorities == "-----BEGIN CERTIFICATE-----\n"


CLIENT = {"tls_client_cert": "/c", "tls_client_key": "/k"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": URL, "tls_client_cert": "/c"}, "needs 'tls-client-key', too"),
        ({"url": URL, "tls_client_key": "/k"}, "needs 'tls-client-cert', too"),
        ({"url": "http://u.example.org", **CLIENT}, "tls-client-cert: the server has no TLS"),
        ({"url": "http://u.example.org", "tls_ca": "ca.pem"}, "tls-ca: the server has no TLS"),
        ({"url": "file:///srv", "tls_ca": "ca.pem"}, "tls-ca: the server has no TLS"),
        (
            {"url": URL, "content_url": "http://u.example.org", "tls_ca": "ca.pem"},
            "tls-ca: the server has no TLS",
        ),
    ],
)
def test_certificates_without_tls_or_without_their_keys_are_refused(options, message):
    with pytest.raises(Faults, match=message):
        Remote(**options)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", value) for value in ("", "-a", "a b", 'a"]', "a/b", "..", "ä")),
        *(("tls-client-key", value) for value in ("k", "/a/../b", "/a\nx=1", "/a b", "/", "/a\\")),
    ],
)
def test_names_and_paths_that_would_be_other_lines_are_refused(key, value):
    with pytest.raises(DecodeError, match="not accepted"):
        decode(Remote, {"url": URL, "tls-client-cert": "/c", key: value})


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
