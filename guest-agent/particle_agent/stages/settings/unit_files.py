"""The unit files that a recipe describes: changes of units, and timers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from particle_agent.contract import commands
from particle_agent.contract.options import AtLeastOne, Options, Place, refuse
from particle_agent.contract.unit_names import SYSTEM, full_name
from particle_agent.contract.values import (
    Argument,
    Calendar,
    FileStem,
    KnownAccount,
    Script,
    UnitOrService,
)
from particle_agent.errors import CommandFailed, StageError
from particle_agent.stages.settings import calendar_event
from particle_agent.system.units import Units
from particle_agent.target.target import Target

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

    def __post_init__(self) -> None:
        lines = (line.strip() for line in self.content.splitlines())
        first = next((line for line in lines if line and line[0] not in "#;"), "")
        if not re.fullmatch(r"\[[^\]]+\]", first):
            kind = full_name(self.unit).rpartition(".")[2].capitalize()
            message = (
                f"content: write a section such as '[{kind}]' or '[Unit]' before '{first[:80]}'"
            )
            refuse([(("content",), message)])

    def path(self, unit: str) -> str:
        """The path of the file for a unit. A setting of an instance changes that instance alone."""
        return f"{SYSTEM[0]}/{unit}.d/{self.name}.conf"


@dataclass(frozen=True, kw_only=True)
class Timer(Options):
    """A command that runs at certain times: the units NAME.timer and NAME.service."""

    name: FileStem
    """The name of the units, which no unit of the image may have."""
    command: Annotated[tuple[Argument, ...], AtLeastOne()]
    """The program and its arguments. No shell reads them."""
    on_calendar: Calendar
    """When it runs, in the notation of systemd.time(7): `daily`, `Mon *-*-* 03:00`."""
    persistent: bool = True
    """Whether it runs at the next boot if the machine was off at the time."""
    user: KnownAccount = "root"
    """The user that runs the command."""

    def __post_init__(self) -> None:
        refuse((place, f"timer {self.name}: {message}") for place, message in self._faults())

    def _faults(self) -> Iterator[tuple[Place, str]]:
        if fault := calendar_event.fault(self.on_calendar):
            yield ("on-calendar",), fault
        program = self.command[0]
        if program[:1] in PREFIXES:
            yield ("command", 0), f"the program begins with '{program[:1]}'"
        elif "/" in program and not program.startswith("/"):
            yield ("command", 0), f"'{program[:80]}' is no absolute path, which systemd needs"
        elif commands.ASSIGNMENT.match(program):
            message = f"systemd would take '{program[:80]}' for the program: begin with 'env'"
            yield ("command", 0), message
        for index, fault in commands.faults(self.command[:1]):
            yield ("command", index), fault

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

    def check(self, target: Target, units: Units) -> None:
        """Raises StageError for a time that systemd does not know, and for a unit that is there."""
        try:
            target.capture(["systemd-analyze", "calendar", "--", self.on_calendar])
        except CommandFailed as error:
            raise StageError(
                f"timer {self.name}: systemd understands no time '{self.on_calendar}'",
                hint="See systemd.time(7), such as 'daily' or 'Mon *-*-* 03:00'.",
            ) from error
        for name, text in self.units():
            path = units.files.get(name)
            if name in units and (path is None or target.read(path) != text):
                raise StageError(
                    f"timer {self.name}: the image has a unit {name}, which it would replace",
                    hint="Give the timer another 'name'.",
                )


def drop_in_files(target: Target, units: Units, drop_ins: Sequence[DropIn]) -> dict[str, str]:
    """The path and text of each drop-in.

    Raises StageError for a unit that does not exist, and for a file that is there.
    """
    found = dict[str, str]()
    for drop_in in drop_ins:
        unit = units.to_change(drop_in.unit)
        path = drop_in.path(unit)
        if path in found or (target.exists(path) and target.read(path) != drop_in.content):
            raise StageError(
                f"{unit}: there is a drop-in {drop_in.name}.conf, which this one would replace",
                hint="Give the drop-in another 'name'.",
            )
        found[path] = drop_in.content
    return found


def quoted(text: str) -> str:
    """An argument in the notation of ExecStart= (systemd.service(5), systemd.syntax(7))."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "%": "%%", "$": "$$"}
    escaped = "".join(
        escapes.get(each) or (each if each >= " " else f"\\x{ord(each):02x}") for each in text
    )
    return f'"{escaped}"'
