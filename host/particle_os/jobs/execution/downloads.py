"""The files that stages name by URL: from the network to the cache, and from there to the VM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from particle_agent.contract.values import Download, downloads

from particle_os.apt import proxy
from particle_os.apt.download import fetch, path_of
from particle_os.errors import InfrastructureError
from particle_os.jobs.execution.input_disk import most_input
from particle_os.jobs.execution.job import Job
from particle_os.jobs.plan import check_attached, most_attached
from particle_os.sandbox.running import Sandbox
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular
from particle_os.system.workspace import cache_directory


def of(stages: Sequence[object]) -> Sequence[Download]:
    """The downloads of stages, each once."""
    return list(dict.fromkeys(downloads(tuple(stages))))


def fetch_all(wanted: Sequence[Download], job: Job, deadline: Deadline) -> None:
    """Fetches what the cache does not have.

    Raises InfrastructureError, and UsageError when the files are too much for the VM's memory.
    """
    if not wanted:
        return
    plan = job.plan
    needed = plan.loaded.attached_bytes
    with job.progress.phase("downloads"):
        for download in wanted:
            on_disk = download.reference in plan.input_disks
            place = fetch(
                download,
                cache=cache_directory(),
                work=job.work.path,
                limit=most_input(plan) if on_disk else most_attached(plan.memory) - needed,
                proxies=proxy.of_environment(),
                deadline=deadline,
                log=job.progress.line,
                note=job.note,
            )
            needed += 0 if on_disk else place.stat().st_size
            check_attached(needed, plan.memory)


def push(wanted: Sequence[Download], sandbox: Sandbox, deadline: Deadline) -> None:
    """Copies fetched files into the VM. Raises InfrastructureError."""
    for download in wanted:
        try:
            with open_regular(path_of(download, cache_directory())) as data:
                arrived = sandbox.agent.attach(download.sha256, data, deadline)
        except OSError as error:
            raise InfrastructureError(
                f"the download of {download.url} cannot be read: {error}"
            ) from error
        if arrived != download.sha256:
            raise InfrastructureError(f"the download of {download.url} has changed")


def paths(wanted: Sequence[Download]) -> dict[str, Path]:
    """The files in the cache, by their references in stages."""
    return {download.reference: path(download) for download in wanted}


def path(download: Download) -> Path:
    """The place of a file in the cache, whether it is there or not."""
    return path_of(download, cache_directory())
