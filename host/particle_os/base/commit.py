"""Commits of OSTree repositories as bases. A disk brings the commit to the VM, and not a stream."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from particle_agent.contract.wire import BaseCommit

from particle_os.base.tarball import architecture_of_program
from particle_os.errors import UsageError
from particle_os.ostree.deployable import Deployable, deployable
from particle_os.recipe.commits.reference import commit_of, is_commit
from particle_os.sandbox.agent import Agent, Listener
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import Workspace, need_room

SECTOR = 512
PROGRAMS, HEAD_BYTES = "/usr/bin", 20
# "good": of the named key. "not-checked": no key is named.
Signature = Literal["good", "not-checked", "none"]


@dataclass(frozen=True)
class CommitBase:
    """A base as a commit; `digest` is "sha256:" and the checksum of the commit.

    `key` is the public key that must have signed it. The objects of the commit have `bytes` bytes.
    """

    reference: str
    repository: Path
    commit: BaseCommit
    bytes: int
    is_signed: bool

    @property
    def digest(self) -> str:
        return f"sha256:{self.commit.checksum}"

    @property
    def identity(self) -> str:
        """The checksum, and what else the disk of the commit, or its making, depends on."""
        key = self.commit.key
        of_key = "" if key is None else hashlib.sha256(key.encode()).hexdigest()
        return f"{self.digest} {self.commit.ref} {of_key}"

    @property
    def signature(self) -> Signature:
        """The signature of the commit, after the VM has taken the commit."""
        if self.commit.key is not None:
            return "good"
        return "not-checked" if self.is_signed else "none"

    @property
    def is_commit(self) -> bool:
        return True

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.repository,)

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def size(self) -> int:
        return self.bytes

    def fetch(self, work: Workspace, deadline: Deadline, log: Callable[[str], None]) -> None:
        pass

    def is_here(self) -> bool:
        return True

    def drop_damaged(self) -> bool:
        return False

    def description(self) -> dict[str, Any]:
        return {
            "ref": self.commit.ref,
            "checksum": self.commit.checksum,
            "version": self.commit.version,
            "signature": self.signature,
        }

    def write_disk(self, disk: Path) -> None:
        need_room(disk.parent, self.bytes, "the copy of the base's commit for the helper VM")
        with deployable(self.repository, self.commit.ref) as found, disk.open("wb") as file:
            if found.checksum != self.commit.checksum:
                raise UsageError(
                    f"{self.reference} has changed since the recipe was read",
                    hint="Do not write the repository during a build.",
                )
            found.pack(file)
            file.truncate(-(-file.tell() // SECTOR) * SECTOR)

    def push(self, agent: Agent, deadline: Deadline, listen: Listener) -> None:
        agent.take_commit(self.commit, deadline, listen)


def find_commit(
    reference: str, relative_to: Path, architecture: str, key: bytes | None
) -> CommitBase | None:
    """The base of an `ostree:` reference; None for other references.

    Raises UsageError when there is no such commit, when no disk can boot it, and when it is for
    another architecture.
    """
    if not is_commit(reference):
        return None
    path, ref = commit_of(reference)
    with deployable(relative_to / path, ref) as found:
        if fault := next(found.faults(), None):
            raise UsageError(f"{reference}: {fault}")
        _check_architecture(found, reference, architecture)
        return CommitBase(
            reference,
            relative_to / path,
            BaseCommit(
                ref=ref,
                checksum=found.checksum,
                stateroot=found.stateroot,
                version=found.version,
                key=None if key is None else base64.b64encode(key).decode(),
            ),
            sum(found.objects().values()),
            found.is_signed,
        )


def _check_architecture(found: Deployable, reference: str, architecture: str) -> None:
    programs = found.first_bytes(PROGRAMS, HEAD_BYTES)
    known = next((a for head in programs if (a := architecture_of_program(head))), None)
    if known is not None and known != architecture:
        raise UsageError(f"{reference} is for {known}, and {architecture} is wanted")
