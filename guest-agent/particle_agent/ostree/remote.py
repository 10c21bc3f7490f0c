"""The server that machines update from, as a file of the commit (ostree.repo-config(5))."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import HostFile, Options, Text, refuse
from particle_agent.target.target import Target

DIRECTORY = "/etc/ostree/remotes.d"
KEYS = "/usr/share/ostree/keys"
ORIGIN = "origin"
RemoteName = Annotated[
    str, Text("a name of A-Z, a-z, 0-9, '_' and '-'", r"[A-Za-z0-9_][A-Za-z0-9_-]*", 60)
]
# ostree.repo-config(5) is in the form of GKeyFile, which takes a backslash for an escape.
MachinePath = Annotated[
    str,
    Text(
        "an absolute path such as '/etc/pki/machine.pem'",
        r"(/[A-Za-z0-9_+][A-Za-z0-9._+-]*)+",
        500,
    ),
]

RemoteUrl = Annotated[
    str,
    Text(
        "a URL with http, https or file",
        r"(https?://[A-Za-z0-9._:\[\]-]+|file://)(/[A-Za-z0-9._~%+/-]*)?",
        500,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Remote(Options):
    """The server that machines update from."""

    url: RemoteUrl
    """The URL of the repository: of the directory into which NAME.ostree.tar is unpacked."""
    name: RemoteName = ORIGIN
    """The name of the server on the machines, as `ostree remote list` shows it."""
    content_url: RemoteUrl | None = None
    """The URL of another server, from which machines fetch all objects except the summary and the
    signatures: a content delivery network."""
    verify: bool = True
    """Whether machines take only commits with a signature of the key in `sign`."""
    tls_ca: HostFile | None = None
    """A file beside the recipe with the certificates, in PEM, of the authorities that may certify
    the server. It becomes part of the commit. The default is those of the image."""
    tls_client_cert: MachinePath | None = None
    """The path, on each machine, of the certificate by which the server knows the machine."""
    tls_client_key: MachinePath | None = None
    """The path, on each machine, of the certificate's private key. The key is no part of the
    commit, which all machines share."""

    def __post_init__(self) -> None:
        if (self.tls_client_cert is None) != (self.tls_client_key is None):
            other = "tls-client-key" if self.tls_client_key is None else "tls-client-cert"
            refuse([((), f"remote: a client's certificate needs '{other}', too")])
        secure = all(url.startswith("https:") for url in self._urls())
        for name in ("tls_ca", "tls_client_cert"):
            if getattr(self, name) is not None and not secure:
                key = name.replace("_", "-")
                refuse([((key,), f"{key}: the server has no TLS; write a URL with https")])

    def _urls(self) -> Iterator[str]:
        yield self.url
        if self.content_url is not None:
            yield self.content_url


def need() -> Need:
    """The need of machines that verify signatures: libostree runs gpg."""
    found = needs.package("gpg", "/usr/bin/gpg", "the signature that machines verify", "remote")
    return replace(found, packages=(*found.packages, "gnupg"))


def paths(name: str) -> tuple[str, str, str]:
    """The files of a remote: its settings, the key of its signatures, and its authorities."""
    return f"{DIRECTORY}/{name}.conf", f"{KEYS}/{name}.gpg", f"{KEYS}/{name}-tls-ca.pem"


def write(
    target: Target, remote: Remote, ref: str, key: bytes | None, collection: str | None
) -> None:
    """Writes the remote; `key` is the public key of its signatures.

    `collection` is the ID of the collection that the server's refs belong to.
    """
    settings, path, authorities = paths(remote.name)
    if key is not None:
        target.write_from(io.BytesIO(key), path)
    lines = list(_lines(remote, ref, path))
    if collection is not None:
        lines.append(f"collection-id={collection}")
    if remote.tls_ca is not None:
        with target.attached(remote.tls_ca).open("rb") as data:
            target.write_from(data, authorities)
        lines.append(f"tls-ca-path={authorities}")
    target.write(settings, "".join(f"{line}\n" for line in lines))


def _lines(remote: Remote, ref: str, key: str) -> Iterator[str]:
    yield f'[remote "{remote.name}"]'
    yield f"url={remote.url}"
    if remote.content_url is not None:
        yield f"contenturl={remote.content_url}"
    yield f"branches={ref};"
    yield f"gpg-verify={str(remote.verify).lower()}"
    if remote.verify:
        yield f"gpgkeypath={key}"
    if remote.tls_client_cert is not None:
        yield f"tls-client-cert-path={remote.tls_client_cert}"
        yield f"tls-client-key-path={remote.tls_client_key}"
