"""Fetches files that stages name by URL and digest. apt's downloader runs confined, as the user."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from particle_agent.contract.values import Download

from particle_os.errors import InfrastructureError
from particle_os.system import process
from particle_os.system.checksum import file_sha256
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import locked

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
    proxies: Mapping[str, str],
    deadline: Deadline,
    log: Callable[[str], None],
) -> Path:
    """Returns the file in the cache; fetches it if it is missing or damaged.

    `work` is for the file until it is checked. `proxies` are the proxy variables. Raises
    InfrastructureError when the server does not send the file, or sends another one.
    """
    deadline = deadline.sooner(FETCH_SECONDS, f"fetching {download.url}")
    place = path_of(download, cache)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    with locked(place.parent / f"{download.sha256}.lock", deadline):
        if place.exists() and file_sha256(place) == download.sha256:
            os.utime(place)
            return place
        log(f"fetching {download.url}")
        directory = Path(tempfile.mkdtemp(prefix="download-", dir=work))
        try:
            _fetch(download, directory, proxies, deadline, log).replace(place)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    _prune(place.parent)
    return place


def _fetch(
    download: Download,
    directory: Path,
    proxies: Mapping[str, str],
    deadline: Deadline,
    log: Callable[[str], None],
) -> Path:
    if not HELPER.exists():
        raise InfrastructureError(
            f"{download.url} cannot be fetched: the host has no {HELPER}",
            hint="Install the package 'apt', or give the file in the recipe's directory.",
        )
    config, file = directory / "apt.conf", directory / "file"
    config.write_text(CONFIGURATION.format(place=directory))
    lines: list[str] = []

    def take(line: str) -> None:
        lines.append(line)
        log(line)

    try:
        process.run(
            [HELPER, "download-file", download.url, file, f"SHA256:{download.sha256}"],
            within=Confinement(writes=(directory,), tcp="any"),
            env={**proxies, "APT_CONFIG": str(config), "TMPDIR": str(directory)},
            deadline=deadline,
            what=f"fetching {download.url}",
            log=take,
        )
    except InfrastructureError as error:
        if any("Hash Sum mismatch" in line for line in lines):
            raise InfrastructureError(
                f"{download.url} is another file than the one with this SHA-256",
                hint="Compare the digest in the recipe with the one that its publisher gives.",
                tail=error.tail,
            ) from error
        if reason := next((m[1] for line in lines if (m := FAILURE.match(line))), None):
            raise InfrastructureError(
                f"{download.url} cannot be fetched: {reason}",
                hint="Check the URL, the network and the proxy.",
                tail=error.tail,
            ) from error
        raise
    if file_sha256(file) != download.sha256:
        raise InfrastructureError(f"{download.url} has changed while it was fetched")
    return file


def _prune(directory: Path) -> None:
    long_ago = time.time() - KEEP_DAYS * 86400
    for file in directory.iterdir():
        if file.stat().st_mtime < long_ago:
            file.unlink(missing_ok=True)
