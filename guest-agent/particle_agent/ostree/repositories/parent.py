"""The parent of a commit: the version before it, from the host, as an archive on a disk.

Nothing of its repository is trusted: not the names in the archive, not the configuration, and not
the objects, which must have the content that their checksums say.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from particle_agent.contract.inspection import STATEROOT
from particle_agent.contract.wire import INPUT_DISK
from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree.repositories.commit_record import workshop
from particle_agent.ostree.repositories.repository import OstreeRepository, archive
from particle_agent.ostree.repositories.signing import GpgKey
from particle_agent.target.disks import wait_for_disk
from particle_agent.target.target import Target

WAIT_SECONDS = 30.0
# Repositories of these modes have the files as any web server has them (ostree.repo-config(5)).
ARCHIVES = ("archive", "archive-z2")
CONFIGURATION = "[core]\nrepo_version=1\nmode=archive-z2\n"
CONFIGURATION_LIMIT = 1 << 16
HINT = "The parent is NAME.ostree.tar of an earlier build, or its content as a directory."


def take(target: Target, ref: str, stateroot: str, key: GpgKey | None) -> str:
    """Takes the newest commit of `ref` into the repository to publish; returns its checksum.

    A commit with signatures must have one of `key`, if there is a key. Raises StageError for a
    parent without such a commit, or of another stateroot.
    """
    given = OstreeRepository(target, workshop(target) / "parent")
    _unpack(target, given.place)
    _check_mode(given.place / "config")
    # Its own configuration could name other places.
    (given.place / "config").write_text(CONFIGURATION)
    with _blamed(f"the parent has no commit of the ref '{ref}'"):
        checksum = given.checksum(ref)
    _check_signature(given, checksum, key)
    repository = archive(target)
    with _blamed("the parent's repository is damaged"):
        repository.pull(given, ref)
        repository.run("fsck", "--quiet")
    _check_stateroot(repository, checksum, stateroot)
    return checksum


@contextmanager
def _blamed(message: str) -> Iterator[None]:
    """Raises StageError with `message` for a command that fails."""
    try:
        yield
    except CommandFailed as error:
        raise StageError(message, hint=HINT, tail=error.tail) from error


def _unpack(target: Target, place: Path) -> None:
    """Unpacks the archive of the host. Raises StageError for anything but files and directories."""
    place.mkdir(parents=True)
    disk = wait_for_disk(INPUT_DISK, 0, WAIT_SECONDS)
    options = ["--no-same-owner", "--no-same-permissions", "--warning=no-timestamp"]
    with _blamed("the parent is no tar archive"):
        target.run(["tar", "--extract", f"--file={disk}", f"--directory={place}", *options])
    kinds = ["!", "-type", "f", "!", "-type", "d", "-print", "-quit"]
    if found := target.capture_outside(["find", str(place), *kinds]).strip():
        name = Path(found).name
        raise StageError(f"the parent has {name!r}, which is no file or directory", hint=HINT)


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


def _check_signature(given: OstreeRepository, checksum: str, key: GpgKey | None) -> None:
    """Raises StageError for a commit with signatures that has no good one of the key."""
    signed = given.place / f"objects/{checksum[:2]}/{checksum[2:]}.commitmeta"
    if key is None:
        return
    if not signed.exists():
        given.target.reporter.note("the parent's commit has no signature")
        return
    public = key.directory / "parent.gpg"
    public.write_bytes(key.public)
    check = OstreeRepository(given.target, workshop(given.target) / "signature")
    check.create("archive")
    check.run("remote", "add", f"--gpg-import={public}", "parent", "file:///parent")
    try:
        words = ["--commit-metadata-only", "--gpg-verify", "--remote=parent"]
        check.run("pull-local", *words, str(given.place), checksum)
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
