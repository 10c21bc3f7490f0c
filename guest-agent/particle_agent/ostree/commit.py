"""The way from a system to a commit: one step a line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from particle_agent.disk import boot
from particle_agent.ostree import (
    account_rules,
    boot_counting,
    history,
    initramfs,
    machine_files,
    remote,
    tree,
)
from particle_agent.ostree.image import lints
from particle_agent.ostree.image.layout import HIDDEN
from particle_agent.ostree.remote import Remote
from particle_agent.ostree.repositories.commit_record import KEY, STATEROOT, CommitRecord, workshop
from particle_agent.ostree.repositories.repository import REMOTE, OstreeRepository
from particle_agent.ostree.repositories.signing import GpgKey, signing_key
from particle_agent.system import generalize
from particle_agent.target.target import Target


@dataclass(frozen=True)
class CommitPlan:
    """The wanted commit; `gpg_secret` is the name of the secret with the key that signs it."""

    ref: str
    stateroot: str
    version: str | None
    subject: str | None
    counted_boots: int
    publishes: tuple[str, ...]
    remote: Remote | None
    gpg_secret: str | None
    has_parent: bool


def make(target: Target, plan: CommitPlan) -> None:
    """Turns the target into a commit, and writes its record for the stage of the disk."""
    with _key(target, plan) as key:
        before = None
        if plan.has_parent:
            before = history.begin(target, plan.ref, plan.stateroot, key)
        _make(target, plan, key, before)


def _make(target: Target, plan: CommitPlan, key: GpgKey | None, before: str | None) -> None:
    kernel = boot.newest_kernel(target)
    with target.mounted(target.root, "--bind") as place:
        found = [*lints.files(target, place, kernel.version), *account_rules.flaws(target)]
    lints.report(target, found)
    initramfs.make(target, kernel.version)
    tree.move_kernel(target, kernel.version)
    boot_counting.install(target, plan.counted_boots)
    generalize.run(target)
    if plan.remote is not None:
        public = None if key is None else key.public
        remote.write(target, REMOTE, plan.remote, plan.ref, public)
    with target.mounted(target.root, "--bind") as place:
        generalize.empty(place, HIDDEN)
    tree.convert(target)
    machine_files.write_rules(target)
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
    repository.create("bare")
    arguments = ["--bootable", f"--add-metadata-string={STATEROOT}={plan.stateroot}"]
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
