"""The server that machines update from, as a file of the commit (ostree.repo-config(5))."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from particle_agent.contract.options import Options, Text
from particle_agent.target.target import Target

DIRECTORY = "/etc/ostree/remotes.d"
KEYS = "/usr/share/ostree/keys"

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
    verify: bool = True
    """Whether machines take only commits with a signature of the key in `sign`."""


def write(target: Target, name: str, remote: Remote, ref: str, key: bytes | None) -> None:
    """Writes the remote; `key` is the public key of its signatures."""
    path = f"{KEYS}/{name}.gpg"
    if key is not None:
        target.write_from(io.BytesIO(key), path)
    target.write(f"{DIRECTORY}/{name}.conf", "\n".join(_lines(name, remote, ref, path)) + "\n")


def _lines(name: str, remote: Remote, ref: str, key: str) -> Iterator[str]:
    yield f'[remote "{name}"]'
    yield f"url={remote.url}"
    yield f"branches={ref};"
    yield f"gpg-verify={str(remote.verify).lower()}"
    if remote.verify:
        yield f"gpgkeypath={key}"
