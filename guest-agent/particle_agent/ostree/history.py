"""The version before the commit: taken from the host, and continued by the new one."""

from __future__ import annotations

import time

from particle_agent.errors import StageError
from particle_agent.ostree import account_ids
from particle_agent.ostree.repositories import parent
from particle_agent.ostree.repositories.repository import archive
from particle_agent.ostree.repositories.signing import GpgKey
from particle_agent.target.target import Target


def begin(target: Target, ref: str, stateroot: str, key: GpgKey | None) -> str:
    """Returns the checksum of the parent, whose IDs the accounts of the target then have.

    Raises StageError for a parent that is newer than this build: machines take no older commit.
    """
    checksum = parent.take(target, ref, stateroot, key)
    repository = archive(target)
    now = time.time() if target.source_date is None else target.source_date
    if (repository.date(checksum) or 0) > now:
        raise StageError(
            "the parent is newer than this build, and machines that run it would not update",
            hint="Compare the clock of the host, or give a later --source-date.",
        )
    passwd, group = (repository.file(checksum, f"/usr/etc/{n}") for n in ("passwd", "group"))
    account_ids.keep(target, passwd, group)
    return checksum
