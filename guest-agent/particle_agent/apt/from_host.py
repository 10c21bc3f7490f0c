"""Requests Debian packages from the host, and installs them from the host's disk.

apt is slow under emulation: it checks signatures and reads indexes of 50 MB, and dpkg decompresses.
The host's own apt does the same work at native speed. The request contains the installed packages
and the sources. The answer is a disk (squashfs) with an index of the packages to install, and with
the packages, uncompressed, under apt's names for them (`contract.packages`). For a base the disk
also contains dpkg's database of the extracted packages. For other stages it describes the packages
that can be unpacked without dpkg.
"""

from __future__ import annotations

import base64
import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager

from particle_agent.contract.packages import ARCHIVES, INDEX, SETTINGS
from particle_agent.contract.wire import AptSetting, FileContent, PackageRequest
from particle_agent.errors import StageError
from particle_agent.target.disks import wait_for_disk
from particle_agent.target.target import Target

MOUNT = "/run/particle-os-packages"
SOURCE = "/run/particle-os-packages.list"
LISTS = "/run/particle-os-lists"
PREFERENCES = "/run/particle-os-preferences"
# The host's apt has chosen the versions, also older ones than the installed ones (the origin "" is
# a local source).
PREFERRED = 'Package: *\nPin: origin ""\nPin-Priority: 1001\n'
BLKFLSBUF = 0x1261  # linux/fs.h
KEYRING = re.compile(r"/[A-Za-z0-9_./+-]+\.(?:gpg|asc|pgp)")
TRUSTED = "/etc/apt/trusted.gpg.d"


def make_request(target: Target) -> PackageRequest | None:
    """The request to the host's apt; None when the target's apt must do the work."""
    if not target.exists("/var/lib/dpkg/status") or _has_credentials(target):
        return None
    sources = _files(target, "/etc/apt/sources.list", "/etc/apt/sources.list.d")
    texts = [base64.b64decode(file.content).decode("utf-8", "replace") for file in sources]
    named = sorted({path for text in texts for path in KEYRING.findall(text)})
    keyrings = [_file(target, path) for path in named if target.exists(path)]
    settings = [AptSetting(key=k, value=v) for k, v in settings_of(target) if k in SETTINGS]
    return PackageRequest(
        status=_file(target, "/var/lib/dpkg/status"),
        architectures=_architectures(target),
        sources=tuple(sources),
        preferences=tuple(_files(target, "/etc/apt/preferences", "/etc/apt/preferences.d")),
        keyrings=(*keyrings, *_files(target, "/etc/apt/trusted.gpg", TRUSTED)),
        settings=tuple(settings),
    )


def fetched(target: Target, *, passwords: bool, others: bool) -> bool:
    """Asks the host's apt for the packages. Returns whether their disk is ready.

    With `passwords`, the stage has passwords for mirrors, which must stay in the VM. Without
    `others`, there is no other way to fetch the packages, and StageError is raised.
    """
    request = None if passwords else make_request(target)
    refused: str | None = "the system has passwords for mirrors, or no dpkg"
    if request is not None:
        with target.timings.part("packages from the host"):
            refused = target.reporter.packages(request).refused
    if refused and not others:
        message = f"the host cannot fetch the packages: {refused}"
        raise StageError(message, hint="Give the stage a network.")
    if refused and request is not None:
        target.reporter.note(f"apt runs in the VM, which is slower: {refused}")
    return refused is None


def _has_credentials(target: Target) -> bool:
    """Whether apt has passwords for a mirror, which must stay in the VM."""
    return target.exists("/etc/apt/auth.conf") or bool(target.list("/etc/apt/auth.conf.d"))


def _file(target: Target, path: str) -> FileContent:
    return FileContent(path=path, content=base64.b64encode(target.read_bytes(path)).decode("ascii"))


def _files(target: Target, single: str, directory: str) -> list[FileContent]:
    """The single file, then the files of the directory, in apt's order."""
    paths = [single, *(f"{directory}/{name}" for name in target.list(directory))]
    return [_file(target, path) for path in paths if target.path(path).is_file()]


def _architectures(target: Target) -> tuple[str, ...]:
    """The architectures of dpkg, the native one first; empty when no other was ever added."""
    place = "/var/lib/dpkg/arch"
    return tuple(target.read(place).split()) if target.exists(place) else ()


def settings_of(target: Target) -> Iterator[tuple[str, str]]:
    """The configuration of the target's apt (apt.conf(5)). List items repeat the name."""
    for line in target.capture(["apt-config", "dump"]).splitlines():
        if match := re.fullmatch(r'([A-Za-z:-]+) "([^"]*)";', line):
            yield match.group(1), match.group(2)


@contextmanager
def disk(target: Target) -> Iterator[str]:
    """Mounts the host's disk of packages in the target. Yields the mount point in the target."""
    device = wait_for_disk("packages", 0, 60.0)
    with device.open("rb") as file:
        # The host overwrites the disk for each request, so drop the cached blocks.
        fcntl.ioctl(file, BLKFLSBUF, 0)
    with target.mounted_inside(device, MOUNT, "-o", "ro,nodev"):
        yield MOUNT


@contextmanager
def options(target: Target) -> Iterator[list[str]]:
    """Yields the options that make apt-get install from the host's disk only."""
    with disk(target) as place:
        target.write(SOURCE, f"deb [trusted=yes] file:{place} ./\n")
        # Write the index to the place where `apt-get update` would. Its name is derived from the
        # source's URI.
        index = place.strip("/").replace("/", "_")
        target.write(f"{LISTS}/_{index}_._{INDEX}", target.read(f"{place}/{INDEX}"))
        target.make_directory(f"{LISTS}/partial")
        target.write(PREFERENCES, PREFERRED)
        try:
            yield [
                "--no-download",
                f"-oDir::Etc::sourcelist={SOURCE}",
                "-oDir::Etc::sourceparts=/dev/null",
                f"-oDir::Etc::preferences={PREFERENCES}",
                "-oDir::Etc::preferencesparts=/dev/null",
                "-oAPT::Default-Release=",
                f"-oDir::State::lists={LISTS}",
                f"-oDir::Cache::archives={place}/{ARCHIVES}",
                "-oDir::Cache::pkgcache=",
                "-oDir::Cache::srcpkgcache=",
                # The disk is read-only, and no other apt runs.
                "-oDebug::NoLocking=true",
            ]
        finally:
            for path in (SOURCE, PREFERENCES, LISTS):
                target.remove(path)
