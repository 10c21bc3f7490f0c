"""The parent of a commit: the version before it, from the host, as an archive on a disk.

Nothing of its repository is trusted: not the names in the archive, not the configuration, and not
the objects, which must have the content that their checksums say.
"""

from __future__ import annotations

import configparser
from pathlib import Path

from particle_agent.contract.inspection import STATEROOT
from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree.repositories import given
from particle_agent.ostree.repositories.commit_record import workshop
from particle_agent.ostree.repositories.given import Named
from particle_agent.ostree.repositories.repository import OstreeRepository, archive
from particle_agent.ostree.repositories.signing import GpgKey
from particle_agent.target.target import Target

# Repositories of these modes have the files as any web server has them (ostree.repo-config(5)).
ARCHIVES = ("archive", "archive-z2")
CONFIGURATION_LIMIT = 1 << 16
HINT = "The parent is NAME.ostree.tar of an earlier build, or its content as a directory."
PARENT = Named("the parent", HINT)


def take(target: Target, ref: str, stateroot: str, key: GpgKey | None) -> str:
    """Takes the newest commit of `ref` into the repository to publish; returns its checksum.

    A commit with signatures must have one of `key`, if there is a key. Raises StageError for a
    parent without such a commit, or of another stateroot.
    """
    received = given.unpack(target, workshop(target) / "parent", PARENT)
    _check_mode(received.place / "config")
    given.configure(received)
    with PARENT.blamed(f"the parent has no commit of the ref '{ref}'"):
        checksum = received.checksum(ref)
    _check_signature(received, checksum, key)
    repository = archive(target)
    with PARENT.blamed("the parent's repository is damaged"):
        repository.pull(received, ref)
        repository.run("fsck", "--quiet")
    _check_stateroot(repository, checksum, stateroot)
    return checksum


def _check_mode(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            text = stream.read(CONFIGURATION_LIMIT).decode("utf-8", "replace")
        read = configparser.RawConfigParser(strict=False)
        read.read_string(text)
        mode = read.get("core", "mode")
    except (OSError, configparser.Error) as error:
        raise StageError("the parent is no repository of OSTree", hint=HINT) from error
    if mode not in ARCHIVES:
        raise StageError(
            f"the parent is a repository of the mode {mode[:40]!r}; it must be 'archive'",
            hint="'ostree pull-local' copies its commit into a repository of the mode 'archive'.",
        )


def _check_signature(received: OstreeRepository, checksum: str, key: GpgKey | None) -> None:
    """Raises StageError for a commit with signatures that has no good one of the key."""
    if key is None:
        return
    if not given.has_signature(received, checksum):
        received.target.reporter.note("the parent's commit has no signature")
        return
    try:
        given.check_signature(received, checksum, key)
    except CommandFailed as error:
        raise StageError(
            "the parent's commit has no good signature of the key in 'sign'",
            hint="Machines with the parent's key would refuse this commit.",
            tail=error.tail,
        ) from error


def _check_stateroot(repository: OstreeRepository, checksum: str, stateroot: str) -> None:
    """Raises StageError for a commit of another stateroot. Not every commit names its own."""
    found = repository.metadata(checksum, STATEROOT)
    if found not in (None, stateroot):
        raise StageError(
            f"the parent is for the stateroot '{found}', and this commit for '{stateroot}'",
            hint="A machine updates within its stateroot; write the same one in 'stateroot'.",
        )
