"""The pins, answers, passwords and package files that apt gets beside names of packages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

from particle_agent.contract.options import (
    PUBLIC_IF_VALID,
    Confidential,
    Options,
    SecretName,
    refuse,
)
from particle_agent.contract.values import (
    DebconfQuestion,
    DebconfValue,
    InstalledName,
    PinnedPackages,
    PinPriority,
    PinText,
    RepositoryMachine,
)
from particle_agent.errors import CommandFailed, StageError
from particle_agent.target.target import SECRETS, Target

PREFERENCES = "/etc/apt/preferences.d/recipe.pref"


def require_apt(target: Target) -> None:
    """Raises StageError for an image without apt."""
    if not target.exists("/usr/bin/apt-get"):
        raise StageError(
            "the base has no apt-get",
            hint="Use a Debian base image that contains the 'apt' package.",
        )


@dataclass(frozen=True, kw_only=True)
class Pin(Options):
    """A preference of apt_preferences(5) for some packages. It stays in the image."""

    package: PinnedPackages
    """The packages: names, or patterns such as linux-* and *."""
    pin: PinText
    """The versions: release a=trixie-backports, version 1.2*, or origin "HOST"."""
    priority: PinPriority
    """The priority. Above 1000 apt even downgrades to these versions; below 0 it never installs
    them."""

    def __post_init__(self) -> None:
        if self.priority == 0:
            refuse([(("priority",), f"{self.package}: apt knows no priority 0")])


def pin(target: Target, pins: Sequence[Pin]) -> None:
    """Adds the preferences to those of earlier stages."""
    text = target.read(PREFERENCES) if target.exists(PREFERENCES) else ""
    for pin in pins:
        stanza = f"Package: {pin.package}\nPin: {pin.pin}\nPin-Priority: {pin.priority}\n\n"
        text += stanza if stanza not in text else ""
    if pins:
        target.write(PREFERENCES, text)


# Answers of these types appear in messages. Others, also of misspelt types, may be passwords.
SHOWN_ANSWERS = ("string", "boolean", "select", "multiselect", "note", "text")


@dataclass(frozen=True, kw_only=True)
class Answer(Options):
    """An answer to a question of a package (debconf-set-selections(1))."""

    # A value in place of another option may be the answer.
    package: Annotated[InstalledName, Confidential()]
    """The package that asks."""
    question: Annotated[DebconfQuestion, Confidential()]
    """The question, such as locales/default_environment_locale."""
    type: Annotated[
        Literal["string", "boolean", "select", "multiselect", "note", "text", "password"],
        Confidential(),
    ]
    """The type of the question."""
    value: Annotated[DebconfValue, Confidential("type", SHOWN_ANSWERS)]
    """The answer. Separate several answers of a multiselect with commas."""


def preseed(target: Target, answers: Sequence[Answer]) -> None:
    """Sets the answers. Raises StageError without debconf."""
    if not answers:
        return
    if not target.exists("/usr/bin/debconf-set-selections"):
        raise StageError(
            "the base has no debconf-set-selections",
            hint="Install 'debconf' in an earlier apt stage, or leave 'debconf' out.",
        )
    lines = [f"{a.package} {a.question} {a.type} {a.value}\n" for a in answers]
    target.chroot(["debconf-set-selections"], stdin="".join(lines))


# /run is in memory and never a part of the image.
PASSWORDS = "/run/particle-os-apt-passwords"
OWN_PASSWORDS = "/etc/apt/auth.conf"


@dataclass(frozen=True, kw_only=True)
class Credential(Options):
    """The user name and password for a repository (apt_auth.conf(5))."""

    machine: RepositoryMachine
    """The host of the repository, optionally with https:// or http://, a port and a path."""
    secret: Annotated[SecretName, PUBLIC_IF_VALID]
    """The name of one of the stage's `secrets`, which holds USER:PASSWORD."""


@contextmanager
def passwords(target: Target, credentials: Sequence[Credential]) -> Iterator[list[str]]:
    """Yields the options that let apt use the credentials while the context lasts."""
    if not credentials:
        yield []
        return
    lines = [_line(target, each) for each in credentials]
    # The option replaces the image's own file. apt takes the first entry that matches.
    own = target.read(OWN_PASSWORDS) if target.is_file(OWN_PASSWORDS) else ""
    target.write(PASSWORDS, "".join(lines) + own, mode=0o600)
    try:
        yield [f"-oDir::Etc::netrc={PASSWORDS}"]
    finally:
        target.remove(PASSWORDS)


def _line(target: Target, credential: Credential) -> str:
    text = target.read(f"{SECRETS}/{credential.secret}").rstrip("\n")
    user, colon, password = text.partition(":")
    if not (user and colon and password) or not text.isprintable() or " " in text:
        raise StageError(
            f"the secret for {credential.machine} is not USER:PASSWORD in one line without blanks"
        )
    return f"machine {credential.machine} login {user} password {password}\n"


LOCAL_DEBS = "/run/particle-os-debs"
DEB_FORMAT = "${Package} ${Version}\\n"


@dataclass(frozen=True)
class PackageFile:
    """A package file at `path` in the target."""

    path: str
    package: str
    version: str


@contextmanager
def local_debs(target: Target, references: Sequence[str]) -> Iterator[list[PackageFile]]:
    """Copies the package files of the recipe into the target until the context ends."""
    found = []
    try:
        for number, reference in enumerate(references):
            path = f"{LOCAL_DEBS}/{number}.deb"
            with target.attached(reference).open("rb") as data:
                target.write_from(data, path)
            try:
                shown = target.capture(["dpkg-deb", "--show", "--showformat", DEB_FORMAT, path])
            except CommandFailed as failed:
                raise StageError(
                    f"package file {number + 1} is no Debian package", tail=failed.tail
                ) from failed
            package, version = shown.split()
            found.append(PackageFile(path, package, version))
        yield found
    finally:
        target.remove(LOCAL_DEBS)
