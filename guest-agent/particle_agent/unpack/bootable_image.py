"""The layout of container images that machines boot, such as those of bootc, as Debian knows it.

Such an image has its kernel in /usr/lib/modules and an empty /boot; links to directories of /var
that only its machines make; and sometimes /usr/etc in place of /etc, or dpkg's database in /usr
(https://bootc-dev.github.io/bootc/filesystem.html).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from particle_agent.target.inside import resolve

MODULES, ETC = "/usr/lib/modules", "/usr/etc"
KERNEL_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]*")
# Names beside a kernel in /usr/lib/modules, and in /boot.
BESIDE = {"initramfs.img": "initrd.img", "config": "config", "System.map": "System.map"}
# The links to directories of the machine, and the modes of these directories.
OF_MACHINE = {
    "/home": 0o755,
    "/mnt": 0o755,
    "/opt": 0o755,
    "/root": 0o700,
    "/srv": 0o755,
    "/usr/local": 0o755,
}
# The directories and links of Debian's package base-files in /var, which Debian's programs expect.
OF_VAR = {
    "/var/backups": 0o755,
    "/var/cache": 0o755,
    "/var/lib/misc": 0o755,
    "/var/log": 0o755,
    "/var/opt": 0o755,
    "/var/spool": 0o755,
    "/var/tmp": 0o1777,
}
LINKS_OF_VAR = {"/var/lock": "/run/lock", "/var/run": "/run"}
DATABASE, MOVED_DATABASE = "/var/lib/dpkg", "/usr/share/dpkg/database"


def notes(root: Path) -> Iterator[str]:
    """Arranges the files of a base as Debian's tools expect them, and yields notes about that."""
    if _lacks(root, "/etc/passwd") and not _lacks(root, f"{ETC}/passwd"):
        _take_etc(root)
        yield f"{ETC} of the base becomes /etc: it is the tree of a commit"
    versions = _place_kernels(root)
    if versions and not resolve(root, "/var/tmp").is_dir():
        _fill_var(root)
        yield "/var of the base is empty; the directories that Debian's programs expect are made"
    if made := [path for path in OF_MACHINE if _make_directory(root, path)]:
        yield f"links of the base led nowhere; their directories are made: {', '.join(made)}"
    if versions:
        yield f"the kernel of the base is in {MODULES}; it is put into /boot: {', '.join(versions)}"
    if _lacks(root, f"{DATABASE}/status") and not _lacks(root, f"{MOVED_DATABASE}/status"):
        _take_database(root)
    if _lacks(root, f"{DATABASE}/status") and not _lacks(root, "/usr/bin/dpkg"):
        yield "the base has no database of dpkg, so no stage can install packages"


def _lacks(root: Path, path: str) -> bool:
    return not resolve(root, path).is_file()


def _take_etc(root: Path) -> None:
    """Moves /usr/etc to /etc, which has no more than a container runtime has left there."""
    old, new = root / "etc", resolve(root, ETC)
    if old.is_symlink() or old.is_file():
        old.unlink()
    elif old.exists():
        shutil.rmtree(old)
    new.rename(old)


def _fill_var(root: Path) -> None:
    for path, mode in OF_VAR.items():
        place = resolve(root, path)
        if not os.path.lexists(place):
            place.mkdir(parents=True)
            place.chmod(mode)
    for path, to in LINKS_OF_VAR.items():
        place = resolve(root, path, follow=False)
        if not os.path.lexists(place):
            place.symlink_to(to)


def _make_directory(root: Path, path: str) -> bool:
    """Makes the directory that a link leads to; returns whether it was missing."""
    if not resolve(root, path, follow=False).is_symlink():
        return False
    place = resolve(root, path)
    if os.path.lexists(place):
        return False
    place.mkdir(parents=True)
    place.chmod(OF_MACHINE[path])
    return True


def _place_kernels(root: Path) -> list[str]:
    """Puts kernels into an empty /boot, with what lies beside them; returns their versions.

    A kernel stays in /usr/lib/modules, too: it may belong to a package.
    """
    boot, modules = resolve(root, "/boot"), resolve(root, MODULES)
    if not modules.is_dir() or any(boot.glob("vmlinuz-*")):
        return []
    names = filter(KERNEL_VERSION.fullmatch, sorted(os.listdir(modules)))
    found = [name for name in names if not _lacks(root, f"{MODULES}/{name}/vmlinuz")]
    if found:
        boot.mkdir(parents=True, exist_ok=True)
    for version in found:
        os.link(resolve(root, f"{MODULES}/{version}/vmlinuz"), boot / f"vmlinuz-{version}")
        for name, there in BESIDE.items():
            place, new = resolve(root, f"{MODULES}/{version}/{name}"), boot / f"{there}-{version}"
            if place.is_file() and not os.path.lexists(new):
                os.link(place, new)
    return found


def _take_database(root: Path) -> None:
    """Lets /var/lib/dpkg lead to the database in /usr. An empty directory gives way."""
    place = resolve(root, DATABASE, follow=False)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif os.path.lexists(place):
        place.unlink()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(f"../..{MOVED_DATABASE}")
