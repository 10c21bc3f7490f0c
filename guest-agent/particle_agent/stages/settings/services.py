"""Stage services: which units start at boot, timers, and changes of units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import AtLeastOne, Options, Place, idle, refuse, repeated
from particle_agent.contract.values import (
    Argument,
    Calendar,
    FileStem,
    Script,
    UnitOrService,
    UserName,
)
from particle_agent.errors import CommandFailed, StageError
from particle_agent.stages.base import StageOptions
from particle_agent.stages.settings.units import SYSTEM, USER, full_name, units_of
from particle_agent.target.target import Target

SYSTEMCTL = "/bin/systemctl"
LINGER = "/var/lib/systemd/linger"
# systemd.service(5): prefixes of a program with a meaning.
PREFIXES = "@-:+!|"


@dataclass(frozen=True, kw_only=True)
class DropIn(Options):
    """A file that changes settings of a unit: /etc/systemd/system/UNIT.d/NAME.conf."""

    unit: UnitOrService
    """The unit."""
    content: Script
    """The text, with its sections, such as `[Service]`."""
    name: FileStem = "recipe"
    """The name of the file, without `.conf`."""


@dataclass(frozen=True, kw_only=True)
class Timer(Options):
    """A command that runs at certain times: the units NAME.timer and NAME.service."""

    name: FileStem
    """The name of the units."""
    command: Annotated[tuple[Argument, ...], AtLeastOne()]
    """The program and its arguments. No shell reads them."""
    on_calendar: Calendar
    """When it runs, in the notation of systemd.time(7): `daily`, `Mon *-*-* 03:00`."""
    persistent: bool = True
    """Whether it runs at the next boot if the machine was off at the time."""
    user: UserName = "root"
    """The user that runs the command."""

    def __post_init__(self) -> None:
        if self.command[0][:1] in PREFIXES:
            raise ValueError(f"timer {self.name}: the program begins with '{self.command[0][:1]}'")

    def units(self) -> Iterator[tuple[str, str]]:
        """The names and texts of the two units."""
        line = " ".join(map(quoted, self.command))
        about = f"[Unit]\nDescription=Timer {self.name}\n\n"
        yield (
            f"{self.name}.service",
            f"{about}[Service]\nType=oneshot\nUser={self.user}\nExecStart={line}\n",
        )
        persistent = "yes" if self.persistent else "no"
        yield (
            f"{self.name}.timer",
            f"{about}[Timer]\nOnCalendar={self.on_calendar}\nPersistent={persistent}\n\n"
            "[Install]\nWantedBy=timers.target\n",
        )


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
    linger: tuple[UserName, ...] = ()
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
        refuse(
            () if given else idle("services", *work),
            _contradictions("", self.enable, (*self.disable, *self.mask)),
            _contradictions("user-", self.user_enable, (*self.user_disable, *self.user_mask)),
            repeated("timer", names),
        )

    def needs(self) -> Iterator[Need]:
        yield needs.package("systemd-sysv", SYSTEMCTL, "services", others=True)
        for index, user in enumerate(self.linger):
            yield needs.user(user, "linger", "linger", index)
        for index, timer in enumerate(self.timers):
            why = f"timer {timer.name}"
            yield needs.user(timer.user, why, "timers", index, "user")

    def run(self, target: Target) -> None:
        if not target.exists(SYSTEMCTL):
            raise StageError(
                "the image has no systemctl",
                hint="Add 'systemd-sysv' to the packages of an apt stage before this one.",
            )
        for timer in self.timers:
            _check_calendar(target, timer)
            for name, text in timer.units():
                target.write(f"{SYSTEM[0]}/{name}", text)
        units, of_users = units_of(target), units_of(target, USER)
        known = {
            "": [list(map(units.real, names)) for names in self._changes()],
            "--global": [list(map(of_users.real, names)) for names in self._user_changes()],
        }
        for drop_in in self.drop_ins:
            # A setting of an instance changes that instance alone.
            directory = f"{SYSTEM[0]}/{units.real(drop_in.unit)}.d"
            target.write(f"{directory}/{drop_in.name}.conf", drop_in.content)
        for scope, (enable, disable, mask, preset) in known.items():
            # An alias that a disabled unit has can then belong to an enabled one.
            for verb, names in (
                ("disable", disable),
                ("mask", mask),
                ("unmask", enable),
                ("preset", preset),
                ("enable", enable),
            ):
                if names:
                    options = [scope] if scope else []
                    target.chroot(["systemctl", "--quiet", *options, verb, "--", *names])
        for user in self.linger:
            target.write(f"{LINGER}/{user}", "")

    def _changes(self) -> tuple[tuple[str, ...], ...]:
        timers = tuple(f"{timer.name}.timer" for timer in self.timers)
        return (*self.enable, *timers), self.disable, self.mask, self.preset

    def _user_changes(self) -> tuple[tuple[str, ...], ...]:
        return self.user_enable, self.user_disable, self.user_mask, ()


def _contradictions(
    prefix: str, enable: tuple[str, ...], others: tuple[str, ...]
) -> Iterator[tuple[Place, str]]:
    against = set(map(full_name, others))
    for index, unit in enumerate(map(full_name, enable)):
        if unit in against:
            message = f"{unit}: a unit cannot be enabled and also disabled or masked"
            yield (f"{prefix}enable", index), message


def _check_calendar(target: Target, timer: Timer) -> None:
    try:
        target.capture(["systemd-analyze", "calendar", "--", timer.on_calendar])
    except CommandFailed as error:
        raise StageError(
            f"timer {timer.name}: systemd understands no time '{timer.on_calendar}'",
            hint="See systemd.time(7), such as 'daily' or 'Mon *-*-* 03:00'.",
        ) from error


def quoted(text: str) -> str:
    """An argument in the notation of ExecStart= (systemd.service(5), systemd.syntax(7))."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "%": "%%", "$": "$$"}
    escaped = "".join(
        escapes.get(each) or (each if each >= " " else f"\\x{ord(each):02x}") for each in text
    )
    return f'"{escaped}"'
