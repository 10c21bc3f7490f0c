"""The distribution of the host, and its packages that have what a build needs."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import resources
from typing import Literal, get_args

Family = Literal["debian", "fedora", "arch", "opensuse"]
FAMILIES: tuple[Family, ...] = get_args(Family)
# The families that os-release(5) names otherwise.
NAMES: dict[str, Family] = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora"}
NAMES |= {"suse": "opensuse", "opensuse-leap": "opensuse", "opensuse-tumbleweed": "opensuse"}
INSTALL: dict[Family, str] = {
    "debian": "sudo apt install",
    "fedora": "sudo dnf install",
    "arch": "sudo pacman -S",
    "opensuse": "sudo zypper install",
}
NO_PACKAGE = "-"
AUR = "aur:"


def release() -> dict[str, str]:
    """The fields of os-release(5); none on a host without that file."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def family() -> Family | None:
    """The family of the host's distribution; None for one that particle-os does not know."""
    fields = release()
    for name in (fields.get("ID", ""), *fields.get("ID_LIKE", "").split()):
        known = NAMES.get(name, name)
        if known in FAMILIES:
            return known
    return None


def packages(requirement: str) -> dict[Family, str]:
    """The package of each family for a program, a file, "uefi" or "venv".

    Raises KeyError for anything that host_packages.txt does not name.
    """
    text = resources.files("particle_os.system").joinpath("host_packages.txt").read_text("utf-8")
    for line in text.splitlines():
        name, *named = line.split()
        if name == requirement:
            return dict(zip(FAMILIES, named[1:], strict=True))
    raise KeyError(requirement)


def advice(requirement: str) -> str:
    """Returns the command that installs a requirement on this host, or what to do instead."""
    named = packages(requirement)
    here = family()
    if here is None:
        return f"install your distribution's equivalent of Debian's package {named['debian']}"
    package = named[here]
    if package == NO_PACKAGE:
        return (
            f"your distribution has no package of Debian's {named['debian']}; "
            "run particle-os in a container or a VM with Debian 13, which needs no privilege"
        )
    if package.startswith(AUR):
        return f"install {package.removeprefix(AUR)} from the AUR"
    return f"{INSTALL[here]} {package}"


def at_once(advice: Sequence[str]) -> str | None:
    """The one command for several pieces of advice; None if fewer than two are commands."""
    here = family()
    if here is None:
        return None
    command = f"{INSTALL[here]} "
    named = dict.fromkeys(a.removeprefix(command) for a in advice if a.startswith(command))
    return f"{command}{' '.join(named)}" if len(named) > 1 else None
