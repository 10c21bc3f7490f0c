"""Stage services: which units start at boot, timers, and changes of units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import Place, idle, refuse, repeated
from particle_agent.contract.unit_names import SYSTEM, USER, full_name
from particle_agent.contract.values import KnownAccount, UnitOrService
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.stages.settings.unit_files import DropIn, Timer, drop_in_files
from particle_agent.stages.settings.unit_states import (
    UnitStates,
    contradictions,
    keeping_disabled,
)
from particle_agent.system.accounts import entries
from particle_agent.system.units import SYSTEMCTL, units_of
from particle_agent.target.target import Target

LINGER = "/var/lib/systemd/linger"


@dataclass(frozen=True, kw_only=True)
class Services(StageOptions):
    """Enables, disables and masks systemd units. A unit that does not exist is an error.

    A name without a type is a service: `nginx` is `nginx.service`. An alias stands for its unit.
    """

    only_configures: ClassVar[bool] = True
    type: Literal["services"] = "services"
    enable: tuple[UnitOrService, ...] = ()
    """Units that start at boot."""
    disable: tuple[UnitOrService, ...] = ()
    """Units that do not start at boot."""
    mask: tuple[UnitOrService, ...] = ()
    """Units that cannot be started at all."""
    preset: tuple[UnitOrService, ...] = ()
    """Units that start at boot if the image's presets say so (systemd.preset(5))."""
    user_enable: tuple[UnitOrService, ...] = ()
    """Units of users that start when any user logs in."""
    user_disable: tuple[UnitOrService, ...] = ()
    """Units of users that do not start at login."""
    user_mask: tuple[UnitOrService, ...] = ()
    """Units of users that cannot be started at all."""
    linger: tuple[KnownAccount, ...] = ()
    """Users whose units start at boot and stay without a login (loginctl(1))."""
    drop_ins: tuple[DropIn, ...] = ()
    """Changes of settings of units."""
    timers: tuple[Timer, ...] = ()
    """Commands that run at certain times."""

    def __post_init__(self) -> None:
        work = (
            "enable", "disable", "mask", "preset", "user-enable", "user-disable", "user-mask",
            "linger", "drop-ins", "timers",
        )  # fmt: skip
        given = any(getattr(self, name.replace("-", "_")) for name in work)
        names = ((("timers", i, "name"), timer.name) for i, timer in enumerate(self.timers))
        files = (
            (("drop-ins", i, "name"), d.path(full_name(d.unit)))
            for i, d in enumerate(self.drop_ins)
        )
        user_wanted = ((("user-enable", i), unit) for i, unit in enumerate(self.user_enable))
        refuse(
            () if given else idle("services", *work),
            contradictions(self._wanted(), (*self.disable, *self.mask)),
            contradictions(user_wanted, (*self.user_disable, *self.user_mask)),
            repeated("timer", names),
            repeated("the drop-in", files),
        )

    def _wanted(self) -> Iterator[tuple[Place, str]]:
        """The places and names of the units that start at boot."""
        for option, units in (("enable", self.enable), ("preset", self.preset)):
            yield from (((option, i), unit) for i, unit in enumerate(units))
        for i, timer in enumerate(self.timers):
            yield ("timers", i, "name"), f"{timer.name}.timer"

    def needs(self) -> Iterator[Need]:
        yield needs.package("systemd-sysv", SYSTEMCTL, "services", others=True)
        for index, user in enumerate(self.linger):
            yield needs.user(user, "linger", "linger", index)
        for index, timer in enumerate(self.timers):
            why = f"timer {timer.name}"
            yield needs.user(timer.user, why, "timers", index, "user")

    def rewrites(self) -> Iterator[tuple[str, str]]:
        for timer in self.timers:
            for name, _ in timer.units():
                yield f"{SYSTEM[0]}/{name}", "give the timer another name"
        for drop_in in self.drop_ins:
            yield drop_in.path(full_name(drop_in.unit)), "give the drop-in another name"

    def run(self, target: Target) -> None:
        if not target.exists(SYSTEMCTL):
            raise StageError(
                "the image has no systemctl",
                hint="Add 'systemd-sysv' to the packages of an apt stage before this one.",
            )
        self._check_users(target)
        units, of_users = units_of(target), units_of(target, USER)
        for timer in self.timers:
            timer.check(target, units)
        made = {f"{SYSTEM[0]}/{n}": text for timer in self.timers for n, text in timer.units()}
        units = units.with_files({path.rpartition("/")[2]: path for path in made})
        timers = tuple(f"{timer.name}.timer" for timer in self.timers)
        states = (
            UnitStates((*self.enable, *timers), self.disable, self.mask, self.preset),
            UnitStates(self.user_enable, self.user_disable, self.user_mask, users=True),
        )
        resolved = [each.resolved(of_users if each.users else units) for each in states]
        made |= drop_in_files(target, units, self.drop_ins)
        for path, text in made.items():
            target.write(path, text)
        for each in resolved:
            wanted = (*each.enable, *each.preset)
            with keeping_disabled(target, wanted, each.disable, users=each.users):
                each.apply(target)
        for user in self.linger:
            target.write(f"{LINGER}/{user}", "")

    def _check_users(self, target: Target) -> None:
        known = {"root", *entries(target, "passwd")}
        named = [("linger", user) for user in self.linger]
        named += [(f"timer {timer.name}", timer.user) for timer in self.timers]
        for why, user in named:
            if user not in known:
                raise StageError(
                    f"{why}: there is no user {user} in the image",
                    hint="Make it in a users stage, or install its package, before this stage.",
                )
