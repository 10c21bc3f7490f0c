"""The real ostree(1) fetches a commit with the settings of the server."""

import datetime
import functools
import http.server
import ipaddress
import random
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from particle_agent.ostree import remote
from particle_agent.ostree.remote import Remote

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ostree") is None, reason="no ostree"),
]
REF = "debian/13/amd64/edge"
BEGIN, END = datetime.datetime(2020, 1, 1), datetime.datetime(2099, 1, 1)


class Authority:
    """Certifies a server and a machine; `place` is the file with its own certificate."""

    def __init__(self, directory: Path):
        directory.mkdir()
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, directory.name)])
        self.place = directory / "ca.pem"
        self.place.write_bytes(self._certificate(self.name, self.key, authority=True))

    def certify(self, name: str) -> tuple[Path, Path]:
        """The files of a new certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        files = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        files[0].write_bytes(self._certificate(subject, key, authority=False))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _certificate(self, subject, key, *, authority: bool) -> bytes:
        number = x509.random_serial_number()
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), number, BEGIN, END)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        for extension in (
            x509.BasicConstraints(ca=authority, path_length=None),
            x509.SubjectAlternativeName([address]),
        ):
            builder = builder.add_extension(extension, critical=False)
        signed = builder.sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


def ostree(*words):
    return subprocess.run(["ostree", *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture
def cut():
    """While it is set, the server ends each connection in the middle of a file's object."""
    return threading.Event()


@pytest.fixture
def url(tmp_path, authority, cut):
    """A server that has a commit, and serves machines with a certificate of the authority alone."""
    (tmp_path / "tree/usr/bin").mkdir(parents=True)
    (tmp_path / "tree/usr/bin/tool").write_bytes(random.Random(1).randbytes(100_000))
    repository = tmp_path / "published"
    for words in (
        ("init", f"--repo={repository}", "--mode=archive"),
        ("commit", f"--repo={repository}", f"--branch={REF}", tmp_path / "tree"),
        ("summary", f"--repo={repository}", "--update"),
    ):
        assert ostree(*words).returncode == 0
    handler = functools.partial(Server, cut, directory=repository)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.certify("server"))
        context.load_verify_locations(authority.place)
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Server(http.server.SimpleHTTPRequestHandler):
    def __init__(self, cut, *arguments, **options):
        self.cut = cut
        super().__init__(*arguments, **options)

    def copyfile(self, source, outputfile):
        if self.cut.is_set() and self.path.endswith(".filez"):
            outputfile.write(source.read(50_000))
        else:
            super().copyfile(source, outputfile)

    def log_message(self, *arguments):
        pass


def fetched(target, server: Remote, authority: Authority) -> subprocess.CompletedProcess:
    """The attempt of a machine with the settings of `server` to fetch the newest commit."""
    shutil.copy(authority.place, target.attachments / "0123")
    remote.write(target, server, REF, None, None)
    settings, _, authorities = remote.paths(server.name)
    machine = target.directory / "machine"
    assert ostree("init", f"--repo={machine}", "--mode=bare-user-only").returncode == 0
    # The machine's files are those of the target.
    text = target.read(settings).replace(authorities, str(target.path(authorities)))
    with (machine / "config").open("a") as file:
        file.write(text)
    return ostree("pull", f"--repo={machine}", server.name)


def known(url, authority, **options) -> Remote:
    """The server as machines know it that have a certificate of the authority."""
    certificate, key = map(str, authority.certify("machine"))
    return Remote(
        url=url, verify=False, tls_ca="sha256:0123", tls_client_cert=certificate,
        tls_client_key=key, **options,
    )  # fmt: skip


def test_server_and_machine_know_each_other_by_their_certificates(target, url, authority):
    done = fetched(target, known(url, authority), authority)
    assert done.returncode == 0, done.stderr
    objects = list((target.directory / "machine/objects").rglob("*.commit"))
    assert len(objects) == 1


def test_a_machine_without_a_certificate_gets_nothing(target, url, authority):
    unknown = Remote(url=url, verify=False, tls_ca="sha256:0123")
    assert fetched(target, unknown, authority).returncode != 0


def test_a_machine_takes_nothing_from_a_server_of_another_authority(
    target, url, authority, tmp_path
):
    done = fetched(target, known(url, authority), Authority(tmp_path / "other"))
    assert done.returncode != 0
    assert "certificate" in done.stderr


def test_an_interrupted_download_changes_no_branch_and_continues_later(target, url, authority, cut):
    cut.set()
    server = known(url, authority)
    done = fetched(target, server, authority)
    assert done.returncode != 0
    machine = target.directory / "machine"
    assert ostree("refs", f"--repo={machine}").stdout == ""
    cut.clear()
    assert ostree("pull", f"--repo={machine}", server.name).returncode == 0
    assert ostree("fsck", f"--repo={machine}").returncode == 0
    assert ostree("refs", f"--repo={machine}").stdout == f"{server.name}:{REF}\n"
