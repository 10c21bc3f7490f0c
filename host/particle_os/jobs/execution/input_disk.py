"""The disk with a file for a stage that is too large for the VM's memory.

The disk is a copy: no other program changes it while the VM reads it, or puts a link in its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from particle_agent.contract.values import downloads
from particle_agent.contract.wire import INPUT_DISK

from particle_os.apt.download import path_of
from particle_os.base.model import Base
from particle_os.errors import InfrastructureError, UsageError
from particle_os.jobs.execution.job import Job
from particle_os.jobs.plan import Plan
from particle_os.recipe.files.attachments import Attachment, NotAttachable
from particle_os.system.regular_file import open_regular
from particle_os.system.workspace import cache_directory, need_room

SECTOR, CHUNK = 512, 1 << 20
# The files are unpacked on the scratch disk, and copied there once more.
SHARE_OF_SCRATCH = 4


def most_input(plan: Plan) -> int:
    """The most bytes of a file that a stage reads from a disk."""
    return plan.options.scratch // SHARE_OF_SCRATCH


def make(job: Job, first: int, base: Base | None) -> Mapping[str, Path]:
    """The disk for the stages from `first` on, by its serial number; empty when they need none.

    It may also bring the base that the VM has to unpack. No stage after such a base reads a disk.
    Raises UsageError for a file that is too large, NotEnoughSpace, and InfrastructureError for a
    file that has changed.
    """
    disk = job.work.path / "input.raw"
    if base is not None and base.is_commit:
        if base.size() > most_input(job.plan):
            raise _too_large(job.plan, base.reference, base.size())
        base.write_disk(disk)
        return {INPUT_DISK: disk}
    wanted = [stage.input_disk for stage in job.plan.stages[first:] if stage.input_disk]
    if not wanted:
        return {}
    with ExitStack() as stack:
        try:
            path, data = _opened(job, wanted[0], stack)
            size = data.seek(0, 2)
            data.seek(0)
            _check_size(job, path, size)
            changed = _copy(data, disk) != wanted[0].partition(":")[2]
        except (OSError, NotAttachable) as error:
            raise InfrastructureError(f"the file of a stage cannot be read: {error}") from error
    if changed:
        raise InfrastructureError(
            f"{path} has changed since the recipe was read",
            hint="Do not write the recipe's files during a build.",
        )
    return {INPUT_DISK: disk}


def _opened(job: Job, reference: str, stack: ExitStack) -> tuple[Path, IO[bytes]]:
    """The path of a file that a stage names, and its content."""
    found: list[Attachment] = [a for each in job.plan.loaded.attachments for a in each]
    for attachment in found:
        if attachment.reference == reference:
            return attachment.path, stack.enter_context(attachment.open(job.work.path))
    download = next(d for d in downloads(job.plan.stages) if d.reference == reference)
    path = path_of(download, cache_directory())
    return path, stack.enter_context(open_regular(path, follow=False))


def _check_size(job: Job, path: Path, size: int) -> None:
    if size > most_input(job.plan):
        raise _too_large(job.plan, str(path), size)
    need_room(job.work.path, size, "the copy of a file for the helper VM")


def _too_large(plan: Plan, what: str, size: int) -> UsageError:
    return UsageError(
        f"{what} has {size} bytes; it may fill a quarter of the scratch disk, "
        f"{most_input(plan)} bytes",
        hint="Give the helper VM a larger disk with --scratch-size.",
    )


def _copy(data: IO[bytes], disk: Path) -> str:
    """Copies the data to whole sectors of a disk; returns their SHA-256."""
    digest = hashlib.sha256()
    with disk.open("wb") as file:
        while chunk := data.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
        file.truncate(-(-file.tell() // SECTOR) * SECTOR)
    return digest.hexdigest()
