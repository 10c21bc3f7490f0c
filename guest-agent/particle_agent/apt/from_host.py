"""Debian packages that the host has fetched: asking for them, and installing from them.

apt is slow under emulation: it checks signatures, reads indexes of 50 MB, and dpkg decompresses.
The host's own apt does the same at native speed, told what is installed here and where packages
come from. It hands in a disk (squashfs) with `Packages`, an index of what is to be installed, and
`archives/`, where the packages lie under the names that apt gives them, decompressed. For a base
it also holds dpkg's database of the packages as they are once they are extracted; for others, what
there is to know of those that can be unpacked without dpkg (plain.py).
"""

from __future__ import annotations

import base64
import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager

from particle_agent.contract.packages import ARCHIVES, INDEX, SETTINGS
from particle_agent.contract.wire import AptSetting, FileContent, PackageRequest
from particle_agent.target.target import Target, wait_for_disk

MOUNT = "/run/particle-os-packages"
SOURCE = "/run/particle-os-packages.list"
LISTS = "/run/particle-os-lists"
BLKFLSBUF = 0x1261  # linux/fs.h
KEYRING = re.compile(r"/[A-Za-z0-9_./+-]+\.(?:gpg|asc|pgp)")
TRUSTED = "/etc/apt/trusted.gpg.d"


def make_request(target: Target) -> PackageRequest | None:
    """What the host's apt must know; None when the target's apt has to do the work itself."""
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


def _has_credentials(target: Target) -> bool:
    """Passwords for a mirror stay in the VM."""
    return target.exists("/etc/apt/auth.conf") or bool(target.list("/etc/apt/auth.conf.d"))


def _file(target: Target, path: str) -> FileContent:
    return FileContent(path=path, content=base64.b64encode(target.read_bytes(path)).decode("ascii"))


def _files(target: Target, single: str, directory: str) -> list[FileContent]:
    """The file and those of the directory, in apt's order."""
    paths = [single, *(f"{directory}/{name}" for name in target.list(directory))]
    return [_file(target, path) for path in paths if target.path(path).is_file()]


def _architectures(target: Target) -> tuple[str, ...]:
    """The native one first, as dpkg notes them; empty when only the native one was ever used."""
    place = "/var/lib/dpkg/arch"
    return tuple(target.read(place).split()) if target.exists(place) else ()


def settings_of(target: Target) -> Iterator[tuple[str, str]]:
    """The configuration of the target's apt, apt.conf(5); each item of a list has its name."""
    for line in target.capture(["apt-config", "dump"]).splitlines():
        if match := re.fullmatch(r'([A-Za-z:-]+) "([^"]*)";', line):
            yield match.group(1), match.group(2)


@contextmanager
def disk(target: Target) -> Iterator[str]:
    """The host's disk of packages, mounted inside the target; yields where."""
    device = wait_for_disk("packages", 0, 60.0)
    with device.open("rb") as file:
        # The host writes the disk anew for each request.
        fcntl.ioctl(file, BLKFLSBUF, 0)
    with target.mounted_inside(device, MOUNT, "-o", "ro"):
        yield MOUNT


@contextmanager
def options(target: Target) -> Iterator[list[str]]:
    """The options that have apt-get install from the host's disk and from nowhere else."""
    with disk(target) as place:
        target.write(SOURCE, f"deb [trusted=yes] file:{place} ./\n")
        # What `apt-get update` would make of that source (apt names a list after its URI).
        index = place.strip("/").replace("/", "_")
        target.write(f"{LISTS}/_{index}_._{INDEX}", target.read(f"{place}/{INDEX}"))
        target.make_directory(f"{LISTS}/partial")
        try:
            yield [
                "--no-download",
                f"-oDir::Etc::sourcelist={SOURCE}",
                "-oDir::Etc::sourceparts=/dev/null",
                "-oDir::Etc::preferences=/dev/null",
                "-oDir::Etc::preferencesparts=/dev/null",
                "-oAPT::Default-Release=",
                f"-oDir::State::lists={LISTS}",
                f"-oDir::Cache::archives={place}/{ARCHIVES}",
                "-oDir::Cache::pkgcache=",
                "-oDir::Cache::srcpkgcache=",
                # The disk is read-only, and nobody else is here.
                "-oDebug::NoLocking=true",
            ]
        finally:
            target.remove(SOURCE)
            target.remove(LISTS)
