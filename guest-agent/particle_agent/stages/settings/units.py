"""The systemd units of the target: their files, names and aliases."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from particle_agent.errors import StageError
from particle_agent.target.target import Target

# systemd.unit(5), for the system and for the managers of users.
SYSTEM = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
USER = ("/etc/systemd/user", "/usr/lib/systemd/user")
# systemd-sysv-generator(8) makes units of these scripts.
SCRIPTS = "/etc/init.d"
TYPES = (
    "service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice",
    "scope",
)  # fmt: skip
ALIAS = re.compile(r"^Alias=(.*)$", re.MULTILINE)


def full_name(name: str) -> str:
    """The name with its type; as for systemctl(1), a name without one is a service."""
    return name if name.rpartition(".")[2] in TYPES and "." in name else f"{name}.service"


def template(unit: str) -> str:
    """The name of the unit file: an instance has the file of its template."""
    name, at, rest = unit.partition("@")
    return f"{name}@.{rest.rpartition('.')[2]}" if at else unit


@dataclass(frozen=True)
class Units:
    """The unit files of the target: name to path, and alias to name."""

    files: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def real(self, given: str) -> str:
        """The unit that a name in a recipe stands for. Raises StageError if there is none."""
        unit = full_name(given)
        wanted = self.aliases.get(template(unit), template(unit))
        if wanted not in self.files:
            known = (*self.files, *self.aliases)
            near = difflib.get_close_matches(wanted, sorted(known), n=3)
            raise StageError(
                f"there is no unit {unit} in the image",
                hint=f"Did you mean {' or '.join(near)}?"
                if near
                else "Install its package in an apt stage before this one.",
            )
        if wanted == template(unit):
            return unit
        instance = unit.partition("@")[2].rpartition(".")[0]
        return wanted.replace("@.", f"@{instance}.", 1)


def units_of(target: Target, directories: tuple[str, ...] = SYSTEM) -> Units:
    """The units of the system, or with USER those of the managers of users."""
    files, aliases = dict[str, str](), dict[str, str]()
    for directory in directories:
        for name in target.list(directory):
            path = f"{directory}/{name}"
            if name.rpartition(".")[2] not in TYPES or name in files:
                continue
            if (real := _linked(target, path)) not in (None, name):
                aliases.setdefault(name, str(real))
            else:
                files[name] = path
    if directories == SYSTEM:
        for script in target.list(SCRIPTS):
            files.setdefault(f"{script}.service", f"{SCRIPTS}/{script}")
    for name, path in files.items():
        for alias in _aliases(target, path):
            if alias not in files:
                aliases.setdefault(alias, name)
    return Units(files, aliases)


def _linked(target: Target, path: str) -> str | None:
    """The name of the unit that a link leads to; None for a file, and for a masked unit."""
    if not target.is_link(path):
        return None
    name = target.path(path).name
    return name if name.rpartition(".")[2] in TYPES else None


def _aliases(target: Target, path: str) -> Iterator[str]:
    place = target.path(path)
    if place.is_file() and place.stat().st_size < 1 << 20:
        for words in ALIAS.findall(target.read(path)):
            yield from words.split()
