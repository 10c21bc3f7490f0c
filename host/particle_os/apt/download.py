"""Fetches files that stages name by URL and digest. apt's downloader runs confined, as the user."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from particle_agent.contract.values import Download

from particle_os.apt import transfer
from particle_os.errors import InfrastructureError
from particle_os.system import process
from particle_os.system.checksum import file_sha256
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import (
    RESERVE_BYTES,
    free_bytes,
    locked,
    need_room,
    remove,
    remove_unused,
)

# A part of the package apt; it follows redirections and the proxies of the environment.
HELPER = Path("/usr/lib/apt/apt-helper")
FETCH_SECONDS = 1800.0
# apt-helper would retry a file with another digest; a server that is away gets three tries.
CONFIGURATION = """\
Dir "{place}/";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
APT::Sandbox::User "";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"""
FAILURE = re.compile(r"E: Failed to fetch \S+  (.+)")
# Downloads that no build has used for so long are removed.
KEEP_DAYS = 30


def path_of(download: Download, cache: Path) -> Path:
    """The place of a download in the cache."""
    return cache / "downloads" / download.sha256


def fetch(
    download: Download,
    *,
    cache: Path,
    work: Path,
    limit: int,
    proxies: Mapping[str, str],
    deadline: Deadline,
    log: Callable[[str], None],
    note: Callable[[str], None],
) -> Path:
    """Returns the file in the cache; fetches it if it is missing or damaged.

    `work` is for the file until it is checked. At most `limit` bytes are fetched. `proxies` are the
    proxy variables. Raises InfrastructureError when the server does not send the file, or sends
    another one, and NotEnoughSpace.
    """
    deadline = deadline.sooner(FETCH_SECONDS, f"fetching {download.url}")
    place = path_of(download, cache)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    lock = place.parent / f"{download.sha256}.lock"
    with locked(lock, deadline):
        # A build that removes old locks must not remove this one.
        os.utime(lock)
        if _is_intact(place, download):
            os.utime(place)
            return place
        if place.exists():
            note(f"{download.url} was damaged in the cache; it is fetched again")
        log(f"fetching {download.url}")
        directory = Path(tempfile.mkdtemp(prefix="download-", dir=work))
        try:
            fetched = _fetch(download, directory, limit, proxies, deadline, log)
            remove(place)
            fetched.replace(place)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    remove_unused(KEEP_DAYS, place.parent.iterdir())
    return place


def _is_intact(place: Path, download: Download) -> bool:
    try:
        return file_sha256(place) == download.sha256
    except OSError:
        return False


def _fetch(
    download: Download,
    directory: Path,
    limit: int,
    proxies: Mapping[str, str],
    deadline: Deadline,
    log: Callable[[str], None],
) -> Path:
    if not HELPER.exists():
        raise InfrastructureError(
            f"{download.url} cannot be fetched: the host has no {HELPER}",
            hint="Install the package 'apt', or give the file in the recipe's directory.",
        )
    need_room(directory, 0, "a download")
    most = min(limit, free_bytes(directory) - RESERVE_BYTES)
    config, file = directory / "apt.conf", directory / "file"
    config.write_text(CONFIGURATION.format(place=directory))
    lines: list[str] = []
    announced = [0]

    def take(line: str) -> None:
        lines.append(line)
        announced.append(transfer.begun(line) or announced[-1])
        log(line)

    try:
        with transfer.watched(lambda: transfer.size_of([directory]), lambda: announced[-1], log):
            process.run(
                [HELPER, "download-file", download.url, file, f"SHA256:{download.sha256}"],
                within=Confinement(writes=(directory,), tcp="any", file_size=most),
                env={**proxies, "APT_CONFIG": str(config), "TMPDIR": str(directory)},
                deadline=deadline,
                what=f"fetching {download.url}",
                log=take,
            )
    except InfrastructureError as error:
        if any(each.stat().st_size >= most for each in directory.rglob("file*")):
            need_room(directory, most, download.url)
            raise InfrastructureError(
                f"{download.url} is larger than {limit} bytes, the room for it in the helper VM",
                hint="Give the VM more with --memory: files may fill a quarter of it.",
            ) from error
        if explained := _explained(error, download, lines):
            raise explained from error
        raise
    if file_sha256(file) != download.sha256:
        raise InfrastructureError(f"{download.url} has changed while it was fetched")
    return file


def _explained(
    error: InfrastructureError, download: Download, lines: Sequence[str]
) -> InfrastructureError | None:
    """The error with the reason that the output gives for a download that failed."""
    if any("Hash Sum mismatch" in line for line in lines):
        return InfrastructureError(
            f"{download.url} is another file than the one with this SHA-256",
            hint="Compare the digest in the recipe with the one that its publisher gives.",
            tail=error.tail,
        )
    if reason := next((m[1] for line in lines if (m := FAILURE.match(line))), None):
        return InfrastructureError(
            f"{download.url} cannot be fetched: {reason}",
            hint="Check the URL, the network and the proxy.",
            tail=error.tail,
        )
    return None
