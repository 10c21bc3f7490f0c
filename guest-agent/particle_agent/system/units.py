"""The systemd units of the target: their files, names and aliases."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from particle_agent.contract.unit_names import (
    SCRIPTS,
    SYSTEM,
    TYPES,
    WITH_FILES,
    full_name,
    template,
)
from particle_agent.errors import StageError
from particle_agent.target.target import Target

SYSTEMCTL = "/bin/systemctl"
ALIAS = re.compile(r"^Alias=(.*)$", re.MULTILINE)
ALSO = re.compile(r"^Also=(.*)$", re.MULTILINE)
FILE_LIMIT = 1 << 20


@dataclass(frozen=True)
class Units:
    """The unit files of the target: name to path, and alias to name.

    `links` are the aliases that packages install, and that exist without `systemctl enable`.
    """

    files: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    links: frozenset[str] = frozenset()

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

    def to_mask(self, given: str) -> str:
        """The unit to mask for a name. A package's alias has uses of its own: ctrl-alt-del.target
        is a link to reboot.target, which must stay. Raises StageError if there is none.
        """
        unit = full_name(given)
        real = self.real(given)
        return unit if template(unit) in self.links else real

    def to_change(self, given: str) -> str:
        """The unit whose settings a name stands for. Raises StageError if there is none.

        Units of some types exist without a file, such as srv.mount and user-.slice.
        """
        unit = full_name(given)
        return self.real(given) if unit.rpartition(".")[2] in WITH_FILES else unit

    def __contains__(self, name: str) -> bool:
        return name in self.files or name in self.aliases

    def with_files(self, files: Mapping[str, str]) -> Units:
        """These units and others that the stage writes."""
        return replace(self, files={**self.files, **files})


def units_of(target: Target, directories: tuple[str, ...] = SYSTEM) -> Units:
    """The units of the system, or with USER those of the managers of users."""
    files, aliases, links = dict[str, str](), dict[str, str](), set[str]()
    for directory in directories:
        for name in target.list(directory):
            path = f"{directory}/{name}"
            if name.rpartition(".")[2] not in TYPES or name in files:
                continue
            if (real := _linked(target, path)) not in (None, name):
                aliases.setdefault(name, str(real))
                if directory != directories[0]:
                    links.add(name)
            else:
                files[name] = path
    if directories == SYSTEM:
        for script in target.list(SCRIPTS):
            files.setdefault(f"{script}.service", f"{SCRIPTS}/{script}")
    for name, path in files.items():
        for alias in _words(target, path, ALIAS):
            if alias not in files:
                aliases.setdefault(alias, name)
    return Units(files, aliases, frozenset(links))


def brings(target: Target, units: Units) -> dict[str, set[str]]:
    """The units that systemctl(1) enables together with each unit: `Also=`, also over several."""
    named = {name: set(_words(target, path, ALSO)) for name, path in units.files.items()}
    found = {}
    for name, direct in named.items():
        reached, left = set[str](), list(direct)
        while left:
            other = left.pop()
            other = units.aliases.get(other, other)
            if other not in reached:
                reached.add(other)
                left += named.get(other, ())
        if reached:
            found[name] = reached - {name}
    return found


def _linked(target: Target, path: str) -> str | None:
    """The name of the unit that a link leads to; None for a file, and for a masked unit."""
    if not target.is_link(path):
        return None
    name = target.path(path).name
    return name if name.rpartition(".")[2] in TYPES else None


def _words(target: Target, path: str, setting: re.Pattern[str]) -> Iterator[str]:
    """The words of a setting in a unit file."""
    place = target.path(path)
    if place.is_file() and place.stat().st_size < FILE_LIMIT:
        for words in setting.findall(target.read(path)):
            yield from words.split()
