"""Compares the packages of dpkg's database with the names in a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from particle_agent.apt.dpkg import STATUS
from particle_agent.errors import StageError
from particle_agent.target.target import Target

FIELD = re.compile(r"^(Package|Status|Provides|Architecture): (.*)$", re.MULTILINE)
# The architectures of a name that stand for any, or that depend on the image.
OPEN = ("", "any", "native")


@dataclass(frozen=True)
class _Entry:
    """A package that is installed, or whose configuration is left."""

    name: str
    architecture: str
    is_installed: bool
    provides: frozenset[str]

    def is_meant(self, name: str) -> bool:
        """Whether a name, optionally with :ARCH, may stand for the package."""
        plain, _, architecture = name.partition(":")
        fits = architecture in OPEN or self.architecture in ("", "all", architecture)
        return plain == self.name and fits


def _packages(target: Target) -> list[_Entry]:
    text = target.read(STATUS) if target.exists(STATUS) else ""
    stanzas = (dict(FIELD.findall(paragraph)) for paragraph in text.split("\n\n"))
    return [
        _Entry(
            fields["Package"],
            fields.get("Architecture", ""),
            fields.get("Status", "").endswith(" installed"),
            frozenset(one.split(" ")[0] for one in fields.get("Provides", "").split(", ")),
        )
        for fields in stanzas
        if "Package" in fields
    ]


def present(target: Target, names: Iterable[str]) -> list[str]:
    """The names of packages that are installed, or whose configuration is left."""
    found = _packages(target)
    return [name for name in names if any(package.is_meant(name) for package in found)]


def check_installed(target: Target, names: Iterable[str]) -> None:
    """Raises StageError for the first package that is not installed.

    apt-get(8) interprets an unknown name as a regular expression, or "x+" as a request for "x".
    """
    if not target.exists(STATUS):
        return
    here = [package for package in _packages(target) if package.is_installed]
    provided = frozenset[str]().union(*(package.provides for package in here))
    for name in names:
        wanted = re.split("[=/]", name)[0]
        plain = wanted.partition(":")[0]
        if plain not in provided and not any(package.is_meant(wanted) for package in here):
            raise StageError(
                f"apt-get: there is no package '{wanted}'; it took the name for something else",
                hint="Check the name against the suite of the base image.",
            )


def check_removed(target: Target, names: Iterable[str]) -> None:
    """Raises StageError for the first package that is still installed, as by a dependency.

    A name without architecture stands for the package of dpkg's own one.
    """
    here = [package for package in _packages(target) if package.is_installed]
    native = next((p.architecture for p in here if p.name == "dpkg"), "any")
    for name in names:
        wanted = name if ":" in name else f"{name}:{native}"
        if any(package.is_meant(wanted) for package in here):
            raise StageError(
                f"apt-get: '{name}' was not removed",
                hint="Find the package that needs it in the log, or do not remove it.",
            )
