"""The way from a system to a commit: one step a line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from particle_agent.disk import boot
from particle_agent.ostree import history, preparation, remote
from particle_agent.ostree.container import settings
from particle_agent.ostree.image.choices import Choices
from particle_agent.ostree.remote import Remote
from particle_agent.ostree.repositories.commit_record import KEY, CommitRecord, naming, workshop
from particle_agent.ostree.repositories.repository import OstreeRepository
from particle_agent.ostree.repositories.signing import GpgKey, signing_key
from particle_agent.target.target import Target


@dataclass(frozen=True)
class Bindings:
    """The names that a commit is bound to, so that no server passes it off as another one."""

    metadata: Mapping[str, str]
    collection: str | None
    refs: tuple[str, ...]

    @property
    def of_repository(self) -> list[str]:
        """The options of `ostree init`."""
        return [] if self.collection is None else [f"--collection-id={self.collection}"]

    @property
    def of_commit(self) -> list[str]:
        """The options of `ostree commit`."""
        words = [f"--add-metadata-string={key}={text}" for key, text in self.metadata.items()]
        return words + [f"--bind-ref={ref}" for ref in self.refs]


@dataclass(frozen=True)
class CommitPlan:
    """The wanted commit; `gpg_secret` is the name of the secret with the key that signs it."""

    ref: str
    stateroot: str
    version: str | None
    subject: str | None
    publishes: tuple[str, ...]
    remote: Remote | None
    gpg_secret: str | None
    has_parent: bool
    bindings: Bindings
    choices: Choices


def make(target: Target, plan: CommitPlan) -> None:
    """Turns the target into a commit, and writes its record for the stage of the disk."""
    with _key(target, plan) as key:
        before = None
        if plan.has_parent:
            before = history.begin(target, plan.ref, plan.stateroot, key)
        _make(target, plan, key, before)


def _make(target: Target, plan: CommitPlan, key: GpgKey | None, before: str | None) -> None:
    kernel = boot.newest_kernel(target)
    preparation.check(target, plan.choices, kernel.version)
    preparation.prepare(target, plan.choices, kernel.version)
    if plan.remote is not None:
        public = None if key is None else key.public
        remote.write(target, plan.remote, plan.ref, public, plan.bindings.collection)
    if plan.choices.container:
        settings.write(target, plan.stateroot)
    preparation.convert(target, plan.choices)
    checksum = _commit(target, plan, key, before)
    CommitRecord(
        ref=plan.ref,
        checksum=checksum,
        stateroot=plan.stateroot,
        kernel=kernel.version,
        publishes=plan.publishes,
        parent=before,
        version=plan.version,
        signer=None if key is None else key.fingerprint,
        remote=plan.remote.name if plan.remote else None,
        collection=plan.bindings.collection,
    ).write(target)
    target.reporter.note(f"the commit of {plan.ref} is {checksum}")


@contextmanager
def _key(target: Target, plan: CommitPlan) -> Iterator[GpgKey | None]:
    if plan.gpg_secret is None:
        yield None
        return
    with signing_key(target, plan.gpg_secret) as key:
        yield key


def _commit(target: Target, plan: CommitPlan, key: GpgKey | None, before: str | None) -> str:
    repository = OstreeRepository(target, workshop(target) / "repository")
    repository.create("bare", *plan.bindings.of_repository)
    arguments = ["--bootable", naming(plan.stateroot), *plan.bindings.of_commit]
    if before is not None:
        arguments.append(f"--parent={before}")
    if plan.version is not None:
        arguments.append(f"--add-metadata-string=version={plan.version}")
    if plan.subject is not None:
        arguments.append(f"--subject={plan.subject}")
    if key is not None:
        arguments += key.options
        (workshop(target) / KEY).write_bytes(key.public)
    # In seconds since 1970.
    date = int(time.time()) if target.source_date is None else target.source_date
    # The bind mount shows the tree without the mounts that the build needs.
    with target.mounted(target.root, "--bind") as place:
        return repository.commit(place, plan.ref, date, arguments)
