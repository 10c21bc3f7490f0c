"""Repositories from the host, as an archive on a disk. Nothing of them is trusted.

Objects must have the content of their checksums, and a commit the signatures that it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from particle_agent.contract.wire import INPUT_DISK
from particle_agent.errors import CommandFailed, StageError
from particle_agent.ostree.repositories.commit_record import workshop
from particle_agent.ostree.repositories.repository import OstreeRepository
from particle_agent.ostree.repositories.signing import GpgKey
from particle_agent.target.disks import wait_for_disk
from particle_agent.target.target import Target

WAIT_SECONDS = 30.0
CONFIGURATION = "[core]\nrepo_version=1\nmode=archive-z2\n"


@dataclass(frozen=True)
class Named:
    """A repository in messages: its name, and the hint for a repository that is refused."""

    what: str
    hint: str

    @contextmanager
    def blamed(self, message: str) -> Iterator[None]:
        """Raises StageError with `message` for a command that fails."""
        try:
            yield
        except CommandFailed as error:
            raise StageError(message, hint=self.hint, tail=error.tail) from error


def unpack(target: Target, place: Path, named: Named) -> OstreeRepository:
    """Unpacks the archive of the host into a new directory.

    Raises StageError for anything but files and directories.
    """
    place.mkdir(parents=True)
    disk = wait_for_disk(INPUT_DISK, 0, WAIT_SECONDS)
    options = ["--no-same-owner", "--no-same-permissions", "--warning=no-timestamp"]
    with named.blamed(f"{named.what} is no tar archive"):
        target.run(["tar", "--extract", f"--file={disk}", f"--directory={place}", *options])
    kinds = ["!", "-type", "f", "!", "-type", "d", "-print", "-quit"]
    if found := target.capture_outside(["find", str(place), *kinds]).strip():
        name = Path(found).name
        raise StageError(
            f"{named.what} has {name!r}, which is no file or directory", hint=named.hint
        )
    return OstreeRepository(target, place)


def configure(given: OstreeRepository) -> None:
    """Replaces the configuration, which could name other places."""
    (given.place / "config").write_text(CONFIGURATION)


def has_signature(given: OstreeRepository, checksum: str) -> bool:
    """Whether a commit has detached metadata, which are its signatures."""
    return (given.place / f"objects/{checksum[:2]}/{checksum[2:]}.commitmeta").exists()


def check_signature(given: OstreeRepository, checksum: str, key: GpgKey) -> None:
    """Raises CommandFailed for a commit that has no good signature of the key."""
    public = key.directory / "given.gpg"
    public.write_bytes(key.public)
    check = OstreeRepository(given.target, workshop(given.target) / "signature")
    check.create("archive")
    check.run("remote", "add", f"--gpg-import={public}", "given", "file:///given")
    words = ["--commit-metadata-only", "--gpg-verify", "--remote=given"]
    check.run("pull-local", *words, str(given.place), checksum)
