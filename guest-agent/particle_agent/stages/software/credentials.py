"""Passwords for repositories, which stay out of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from particle_agent.contract.options import CONFIDENTIAL, Options, SecretName
from particle_agent.contract.values import RepositoryMachine
from particle_agent.errors import StageError
from particle_agent.target.target import SECRETS, Target

# /run is in memory and never a part of the image.
FILE = "/run/particle-os-apt-passwords"


@dataclass(frozen=True, kw_only=True)
class Credential(Options):
    """The user name and password for a repository (apt_auth.conf(5))."""

    machine: RepositoryMachine
    """The host of the repository, optionally with https:// or http://, a port and a path."""
    secret: Annotated[SecretName, CONFIDENTIAL]
    """The name of one of the stage's `secrets`, which holds USER:PASSWORD."""


@contextmanager
def known(target: Target, credentials: Sequence[Credential]) -> Iterator[list[str]]:
    """Yields the options that let apt use the credentials while the context lasts."""
    if not credentials:
        yield []
        return
    lines = [_line(target, each) for each in credentials]
    target.write(FILE, "".join(lines), mode=0o600)
    try:
        yield [f"-oDir::Etc::netrc={FILE}"]
    finally:
        target.remove(FILE)


def _line(target: Target, credential: Credential) -> str:
    text = target.read(f"{SECRETS}/{credential.secret}").rstrip("\n")
    user, colon, password = text.partition(":")
    if not (user and colon and password) or not text.isprintable() or " " in text:
        raise StageError(
            f"the secret for {credential.machine} is not USER:PASSWORD in one line without blanks"
        )
    return f"machine {credential.machine} login {user} password {password}\n"
