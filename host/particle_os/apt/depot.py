"""Debian packages for the VM, fetched and verified by the host's apt at native speed.

apt runs as the ordinary user in private directories, and installs nothing on the host. It checks
the packages against the signed indexes of the archive. dpkg-deb decompresses the packages. The host
writes them to a disk for the VM, and the VM's apt installs them. The guest's side is
particle_agent/apt/from_host.py.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from particle_agent.contract import wire
from particle_agent.contract.wire import PackageRequest, PackagesAnswer
from particle_agent.stages.software.apt import Apt

from particle_os.apt import directory as apt_directory
from particle_os.apt.directory import Refused
from particle_os.apt.host import Own, apt_get
from particle_os.apt.package_disk import CONTROL_LIMIT, write_disk
from particle_os.apt.proxy import ChosenProxy
from particle_os.errors import InfrastructureError, printable
from particle_os.system import process
from particle_os.system.checksum import copied, file_sha256
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import (
    failed_call,
    locked,
    need_room,
    remove,
    remove_directories,
    remove_unused,
)

FETCH_SECONDS = 900.0
# A line of `apt-get --print-uris`: 'URI' file size hash-kind:hash
_FETCH = re.compile(r"'(https?:\S+)' ([A-Za-z0-9.+:~%_-]+\.deb) (\d+)(?: (\w+):([0-9a-f]+))?")
# The end of apt-get's plan (apt-get(8)) if apt changes no installed package.
_ONLY_NEW = re.compile(r"0 upgraded, \d+ newly installed, 0 to remove and \d+ not upgraded\.")
# Indexes and packages that no build has used for so long are removed.
PACKAGE_DAYS = 30
LOCAL = "local"
# The format of dpkg-deb for apt's names of package files.
DEB_NAME = "${Package}_${Version}_${Architecture}.deb\\n"


@dataclass(frozen=True)
class _Download:
    """A package file that apt wants: its size in bytes, and its SHA-256 if the index has one."""

    name: str
    size: int
    sha256: str | None


class PackageSource(Protocol):
    """A cache of packages that machines share. What it gives is checked like a download."""

    def take(self, sha256: str, place: Path) -> bool:
        """Writes the package with this SHA-256 to a new file; returns whether it did."""

    def used(self, sha256: str, name: str) -> None:
        """Notes that the running stage gets this package."""


class Depot:
    """Answers the VM's requests for packages; the user's cache keeps the packages."""

    def __init__(
        self,
        *,
        cache: Path,
        work: Path,
        disk: Path,
        log: Callable[[str], None],
        note: Callable[[str], None],
        attachments: Mapping[str, Path],
        sizes: Mapping[str, int] = MappingProxyType({}),
        proxy: ChosenProxy,
        architecture: str,
        shared: PackageSource | None = None,
    ) -> None:
        self._architecture = architecture
        self._lists = cache / "apt"
        self._packages = cache / "packages"
        self._work = work
        self._disk = disk
        self._log = log
        self._note = note
        # The files that the recipe names, and the sizes that they had, keyed by digest.
        self._attachments, self._sizes = attachments, sizes
        self._proxy = proxy
        self._shared = shared
        self._fresh: set[str] = set()
        self._count = 0

    def answer(self, stage: Apt, request: PackageRequest, deadline: Deadline) -> PackagesAnswer:
        """Writes the disk of packages for a stage, or returns why the VM must fetch them.

        `request` is the guest's description of the target. Raises StageFailed with apt's message
        if apt cannot install the packages, and InfrastructureError if a mirror cannot be reached.
        """
        if stage.network == "none":
            return PackagesAnswer(refused="the stage has 'network: none'")
        if stage.hosts:
            return PackagesAnswer(refused="the stage's 'network' lists the hosts that it may reach")
        if not all(shutil.which(name) for name in ("apt-get", "dpkg-deb", "gensquashfs")):
            return PackagesAnswer(refused="the host has no apt")
        deadline = deadline.sooner(FETCH_SECONDS, "fetching packages")
        self._count += 1
        directory = self._work / f"packages-{self._count}"
        (directory / LOCAL).mkdir(mode=0o700, parents=True)
        key = apt_directory.sources_key(request, self._architecture)
        self._lists.mkdir(exist_ok=True, mode=0o700)
        self._packages.mkdir(exist_ok=True, mode=0o700)
        try:
            lock = self._lists / f"{key}.lock"
            with locked(lock, deadline):
                os.utime(lock)
                local = self._take_local(stage.package_files, directory / LOCAL, deadline)
                only_new = self._proxy.through(
                    lambda proxy: self._fetch_all(stage, request, proxy, local, directory, deadline)
                )
        except Refused as refused:
            return PackagesAnswer(refused=str(refused))
        debs = sorted((directory / "archives").glob("*.deb"))
        # With autoremove, the target's apt may remove packages that the host does not know.
        loose = only_new and not stage.autoremove
        write_disk(debs, self._disk, directory, deadline, loose=loose)
        shutil.rmtree(directory)
        self._prune()
        return PackagesAnswer()

    def _fetch_all(
        self,
        stage: Apt,
        request: PackageRequest,
        proxy: wire.AptProxy | None,
        local: Sequence[Path],
        directory: Path,
        deadline: Deadline,
    ) -> bool:
        """Lets apt collect the packages to install in `directory`/archives.

        Returns whether apt changes no installed package.
        """
        key = apt_directory.sources_key(request, self._architecture)
        lists = self._lists / key
        config = apt_directory.write(request, directory, lists, proxy, self._architecture)
        if key not in self._fresh and (stage.update or not any(lists.glob("*Packages*"))):
            self._apt(config, ["update"], deadline)
            self._fresh.add(key)
        installed = apt_directory.installed(directory)
        removals = [f"{name}-" for name in stage.remove if name.split(":")[0] in installed]
        names = [*stage.packages, *map(str, local), *removals]
        arguments = [*stage.release_options(), *stage.arguments(names)]
        only_new = self._fetch(arguments, directory / "archives", config, deadline)
        for path in local:
            self._add_local(path, directory / "archives", deadline)
        return only_new

    def _take_local(
        self, references: Sequence[str], directory: Path, deadline: Deadline
    ) -> list[Path]:
        """Copies the package files that the recipe names, so that apt reads the hashed bytes."""
        taken = []
        for number, reference in enumerate(references):
            path = self._attachments.get(reference)
            if path is None:
                raise Refused("the host does not have the recipe's package files")
            copy = directory / f"{number}.deb"
            try:
                sha256 = copied(path, copy, self._sizes.get(reference), deadline)
            except OSError as error:
                raise failed_call(error) from error
            if f"sha256:{sha256}" != reference:
                raise InfrastructureError(f"{path} has changed since the recipe was read")
            taken.append(copy)
        return taken

    def _add_local(self, path: Path, archives: Path, deadline: Deadline) -> None:
        """Links a package file into apt's directory of fetched packages, under apt's name."""
        lines: list[str] = []
        process.run(
            ["dpkg-deb", "--show", "--showformat", DEB_NAME, path],
            deadline=deadline,
            what=f"reading the package file {path.name}",
            # dpkg-deb unpacks the control file into a temporary directory.
            within=Confinement(writes=(path.parent,), file_size=CONTROL_LIMIT),
            env={"TMPDIR": str(path.parent)},
            log=lines.append,
        )
        name = lines[-1].replace(":", "%3a")
        if not re.fullmatch(r"[A-Za-z0-9.+~%_-]+\.deb", name):
            raise InfrastructureError(f"{path.name} has an unusual name: {printable(name, 80)}")
        (archives / name).unlink(missing_ok=True)
        os.link(path, archives / name)

    def _fetch(
        self, arguments: Sequence[str], archives: Path, config: Path, deadline: Deadline
    ) -> bool:
        lines = self._apt(
            config, ["--print-uris", "-oAcquire::ForceHash=SHA256", *arguments], deadline
        )
        wanted = [
            _Download(m[2], int(m[3]), m[5] if m[4] == "SHA256" else None)
            for line in lines
            if (m := _FETCH.fullmatch(line))
        ]
        need_room(archives, sum(file.size for file in wanted) * 4, "the packages")
        missing = [file for file in wanted if not self._take_known(file, archives)]
        shared = sum(self._take_shared(file, archives) for file in missing)
        here = len(wanted) - len(missing) + shared
        self._log(f"{len(wanted)} packages to fetch, {here} of them from the cache")
        if here < len(wanted):
            self._apt(config, ["--download-only", *arguments], deadline)
            for file in wanted:
                self._keep(file, archives)
        for file in wanted:
            if self._shared is not None and file.sha256 is not None:
                self._shared.used(file.sha256, file.name)
        return any(_ONLY_NEW.fullmatch(line) for line in lines)

    def _apt(self, config: Path, arguments: Sequence[str], deadline: Deadline) -> list[str]:
        def log(line: str) -> None:
            # apt logs these packages again when it fetches them.
            if not _FETCH.fullmatch(line):
                self._log(line)

        own = Own(config, self._lists, self._proxy.environment())
        return apt_get(own, arguments, deadline, log)

    def _place(self, file: _Download) -> Path | None:
        return self._packages / f"{file.sha256}.deb" if file.sha256 else None

    def _take_known(self, file: _Download, archives: Path) -> bool:
        """Links an intact package from the cache into apt's directory; returns whether it did."""
        place = self._place(file)
        if place is None:
            return False
        try:
            if file_sha256(place) != file.sha256:
                place.unlink()
                self._note(f"the package {file.name} was damaged in the cache; it is fetched again")
                return False
            os.utime(place)
            os.link(place, archives / file.name)
        except OSError:
            # Another process has removed it, or it is no file.
            with suppress(OSError):
                remove(place)
            return False
        return True

    def _take_shared(self, file: _Download, archives: Path) -> bool:
        """Takes a package from a shared cache into the user's; returns whether it did.

        The signed index of the archive has its size and its SHA-256, which decide.
        """
        place = self._place(file)
        if place is None or file.sha256 is None or self._shared is None:
            return False
        made = archives.parent / "shared.deb"
        try:
            if not self._shared.take(file.sha256, made):
                return False
            if (made.stat().st_size, file_sha256(made)) != (file.size, file.sha256):
                self._note(f"the package {file.name} of a shared cache is another one")
                return False
            made.rename(place)
        finally:
            made.unlink(missing_ok=True)
        return self._take_known(file, archives)

    def _keep(self, file: _Download, archives: Path) -> None:
        place = self._place(file)
        if place is not None and not place.exists():
            try:
                os.link(archives / file.name, place)
            except FileExistsError:
                pass  # Another build has just added the package.

    def _prune(self) -> None:
        """Removes the indexes and packages that no build has used for PACKAGE_DAYS."""
        remove_unused(PACKAGE_DAYS, self._packages.glob("*.deb"))
        for lock in remove_unused(PACKAGE_DAYS, self._lists.glob("*.lock")):
            remove_directories(lock.with_suffix(""))
