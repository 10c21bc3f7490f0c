"""Stage services: which units start at boot."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import idle, refuse
from particle_agent.contract.values import UnitName
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

# systemd.unit(5); systemd-sysv-generator(8) makes units from the scripts in SCRIPTS.
UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
SCRIPTS = "/etc/init.d"
SYSTEMCTL = "/bin/systemctl"


@dataclass(frozen=True, kw_only=True)
class Services(StageOptions):
    """Enables, disables and masks systemd units. A unit that does not exist is an error."""

    only_configures: ClassVar[bool] = True
    type: Literal["services"] = "services"
    enable: tuple[UnitName, ...] = ()
    """Units that start at boot."""
    disable: tuple[UnitName, ...] = ()
    """Units that do not start at boot."""
    mask: tuple[UnitName, ...] = ()
    """Units that cannot be started at all."""

    def __post_init__(self) -> None:
        nothing = not (self.enable or self.disable or self.mask)
        refuse(
            idle("services", "enable", "disable", "mask") if nothing else (),
            (
                (("enable", i), f"{unit}: a unit cannot be enabled and also disabled or masked")
                for i, unit in enumerate(self.enable)
                if unit in (*self.disable, *self.mask)
            ),
        )

    def needs(self) -> Iterator[Need]:
        yield needs.package("systemd-sysv", SYSTEMCTL, "services", others=True)

    def run(self, target: Target) -> None:
        if not target.exists(SYSTEMCTL):
            raise StageError(
                "the image has no systemctl",
                hint="Add 'systemd-sysv' to the packages of an apt stage before this one.",
            )
        for unit in (*self.enable, *self.disable, *self.mask):
            _check(target, unit)
        for verb, units in (
            ("unmask", self.enable),
            ("enable", self.enable),
            ("disable", self.disable),
            ("mask", self.mask),
        ):
            if units:
                target.chroot(["systemctl", "--quiet", verb, "--", *units])


def _check(target: Target, unit: str) -> None:
    """Raises StageError when the image has no such unit."""
    name, at, rest = unit.partition("@")
    # The unit file of an instance is its template.
    wanted = f"{name}@.{rest.rpartition('.')[2]}" if at else unit
    known = set(_units(target))
    if wanted not in known:
        near = difflib.get_close_matches(wanted, sorted(known), n=3)
        raise StageError(
            f"there is no unit {unit} in the image",
            hint=f"Did you mean {' or '.join(near)}?"
            if near
            else "Install its package in an apt stage before this one.",
        )


def _units(target: Target) -> Iterator[str]:
    for directory in UNIT_DIRECTORIES:
        yield from target.list(directory)
    for script in target.list(SCRIPTS):
        yield f"{script}.service"
