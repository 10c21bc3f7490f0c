"""The changes of units by systemctl(1), so that all units end as the recipe says."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from particle_agent.contract.options import Place
from particle_agent.contract.unit_names import SYSTEM, USER, full_name
from particle_agent.errors import CommandFailed, StageError
from particle_agent.system.chosen import Kind, choose, chosen, forget
from particle_agent.system.units import Units
from particle_agent.target.target import Target

# systemd.unit(5): the directories of links in which `systemctl enable` works.
LINKS = (".wants", ".requires", ".upholds")
WRONG = {"enable": ("disabled", "masked"), "disable": ("enabled",)}


@dataclass(frozen=True)
class UnitStates:
    """The units of each verb of systemctl(1), for the system or for the managers of `users`."""

    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    preset: tuple[str, ...] = ()
    users: bool = False

    def resolved(self, units: Units) -> UnitStates:
        """The units that the names stand for. Raises StageError for names that contradict."""
        enable, disable, preset = (
            tuple(map(units.real, names)) for names in (self.enable, self.disable, self.preset)
        )
        found = UnitStates(
            enable, disable, tuple(map(units.to_mask, self.mask)), preset, self.users
        )
        own = (USER if self.users else SYSTEM)[0]
        for unit in found.mask:
            if units.files.get(unit) == f"{own}/{unit}":
                raise StageError(
                    f"{unit} cannot be masked: the image has the file {own}/{unit} in the place of "
                    "the mask",
                    hint="Disable it, or do not write the file.",
                )
        against = {*found.disable, *found.mask}
        given = (*self.enable, *self.preset)
        for name, unit in zip(given, (*enable, *preset), strict=True):
            if unit in against:
                raise StageError(
                    f"{full_name(name)}: the stage enables the unit, and also disables or masks it",
                    hint=f"Other names for {unit} stand for it, too; leave one of them out.",
                )
        return found

    def apply(self, target: Target) -> None:
        """Changes the units. Raises StageError if a unit is then not what the recipe says."""
        wanted = (*self.enable, *self.preset)
        for verb, names in (
            # An alias that a disabled unit has can then belong to an enabled one.
            ("disable", self.disable),
            ("mask", self.mask),
            ("unmask", wanted),
            ("preset", self.preset),
            ("enable", self.enable),
        ):
            if names:
                target.chroot(["systemctl", "--quiet", *self._scope, verb, "--", *names])
        if self.disable and wanted:
            # `Also=` of an enabled unit enables others, too. `systemctl disable` would follow it,
            # too, and disable units that the recipe enables.
            for path in list(links_of(target, self.disable, self.enable, users=self.users)):
                target.remove(path)
            self._check(target)

    @property
    def _scope(self) -> tuple[str, ...]:
        return ("--global",) if self.users else ()

    def _check(self, target: Target) -> None:
        # Instances of a template that is disabled may be enabled.
        asked = {"enable": self.enable, "disable": [u for u in self.disable if "@." not in u]}
        names = [(verb, unit) for verb, units in asked.items() for unit in units]
        argv = ["systemctl", *self._scope, "is-enabled", "--", *(unit for _, unit in names)]
        try:
            states = target.capture(argv).split()
        except CommandFailed:
            # None of the units is enabled, as a preset may wish.
            return
        if len(states) != len(names):
            return
        for (verb, unit), state in zip(names, states, strict=True):
            if state in WRONG[verb]:
                raise StageError(
                    f"{unit} is {state}, though the stage names it in '{verb}'",
                    hint="Another unit of the stage changes it, too, by 'Also=' or 'Alias='. Put "
                    "one of the two into a services stage of its own.",
                )


def links_of(
    target: Target, units: Collection[str], but: Collection[str], *, users: bool
) -> Iterator[str]:
    """The links that enable some units, except links with the names `but`."""
    own = (USER if users else SYSTEM)[0]
    names = [name for name in target.list(own) if name.endswith(LINKS)]
    for directory in (own, *(f"{own}/{name}" for name in names)):
        for name in target.list(directory):
            path = f"{directory}/{name}"
            if name in but or not target.is_link(path):
                continue
            # The link of an instance leads to the file of its template.
            leads_to = os.readlink(target.path(path, follow=False)).rpartition("/")[2]
            is_unit = name in units and directory == own
            if not is_unit and not {name, leads_to}.isdisjoint(units):
                yield path


@contextmanager
def keeping_disabled(
    target: Target, enable: Collection[str], disable: Collection[str] = (), *, users: bool = False
) -> Iterator[None]:
    """Keeps units disabled that earlier stages have disabled, while the context enables others.

    Only the links that the context makes for them, by `Also=`, are removed. `enable` are the units
    that it enables by name, `disable` those that later stages keep disabled.
    """
    kind: Kind = "disabled-for-users" if users else "disabled"
    forget(target, kind, enable)
    kept = chosen(target, kind)
    before = set(links_of(target, kept, enable, users=users))
    yield
    for path in set(links_of(target, kept, enable, users=users)) - before:
        target.remove(path)
    choose(target, kind, disable)


def contradictions(
    wanted: Iterable[tuple[Place, str]], against: Iterable[str]
) -> Iterator[tuple[Place, str]]:
    """The faults of units that a stage enables, and also disables or masks."""
    others = set(map(full_name, against))
    for place, name in wanted:
        if (unit := full_name(name)) in others:
            yield place, f"{unit}: a unit cannot be enabled and also disabled or masked"
