"""Checks of the running system: units, mounts, kernel, time zone, locale, boot and memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from particle_agent.contract.options import Between
from particle_agent.contract.values import (
    LocaleName,
    UnitName,
    ZoneName,
    bytes_of,
)

from particle_os.recipe.checks.base import (
    CONTENT_BYTES,
    BaseCheck,
    ImagePath,
    Judgement,
    MemorySize,
    Reply,
    Word,
)


@dataclass(frozen=True, kw_only=True)
class UnitCheck(BaseCheck):
    """A systemd unit is active."""

    kind = "unit"
    unit: UnitName
    """The unit's name."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("systemctl", "is-active", "--", self.unit),)

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        state = replies[0].text or "unknown"
        return Judgement(state == "active", f"{self.unit} is {state}")


@dataclass(frozen=True, kw_only=True)
class MountCheck(BaseCheck):
    """A file system is mounted."""

    kind = "mount"
    mount: ImagePath
    """The mount point."""
    type: Word | None = None
    """The file system's type."""
    options: tuple[Word, ...] = ()
    """Mount options that must be in effect."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("head", f"--bytes={CONTENT_BYTES}", "/proc/self/mounts"),)

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        lines = replies[0].output.split("\n")
        mounts = [list(map(_unescaped, line.split(" "))) for line in lines]
        here = [fields for fields in mounts if len(fields) >= 4 and fields[1] == self.mount]
        if not here:
            return Judgement(False, "nothing is mounted there")
        # The last mount hides the mounts below it.
        kind, options = here[-1][2], here[-1][3].split(",")
        found = f"{kind} with {','.join(options)}"
        if self.type not in (None, kind):
            return Judgement(False, f"it is {found}, not {self.type}")
        if missing := [option for option in self.options if option not in options]:
            return Judgement(False, f"it is {found}, without {','.join(missing)}")
        return Judgement(True, found)


def _unescaped(field: str) -> str:
    """Decodes a field of /proc/self/mounts, which writes a space as \\040, a backslash as \\134."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


@dataclass(frozen=True, kw_only=True)
class KernelArgumentCheck(BaseCheck):
    """The kernel command line has an argument."""

    kind = "kernel-argument"
    kernel_argument: Word
    """The complete argument, such as 'quiet' or 'console=ttyS0'."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("head", f"--bytes={CONTENT_BYTES}", "/proc/cmdline"),)

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        holds = self.kernel_argument in replies[0].text.split()
        return Judgement(holds, replies[0].text if holds else f"not among: {replies[0].text}")


@dataclass(frozen=True, kw_only=True)
class TimezoneCheck(BaseCheck):
    """The system's time zone."""

    kind = "timezone"
    timezone: ZoneName
    """Its name in the tz database."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (
            # Prints the type of the link's target and the link, or nothing without the file.
            ("find", "/etc", "-maxdepth", "1", "-name", "localtime", "-printf", "%Y %l"),
            ("cmp", "--", "/etc/localtime", f"/usr/share/zoneinfo/{self.timezone}"),
        )

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        found, compared = replies
        if found.status != 0:
            return Judgement(False, f"it cannot be examined: {found.text[-200:]}")
        kind, _, link = found.text.partition(" ")
        _, is_zone, zone = link.partition("zoneinfo/")
        # localtime(5): without the file, the zone is UTC.
        if is_zone or not kind:
            zone = zone or "UTC"
            if {zone, self.timezone} <= {"UTC", "Etc/UTC"}:
                return Judgement(True, zone)
            if zone == self.timezone and kind != "f":
                return Judgement(False, f"{zone}, but {link} is not there")
            return Judgement(zone == self.timezone, zone)
        # Some image builders copy the zone file instead of linking to it.
        if compared.status == 0:
            return Judgement(True, f"{self.timezone}, by the content of /etc/localtime")
        why = f"does not have the content of {self.timezone}"
        if compared.status != 1:
            why = f"cannot be compared with {self.timezone}: {compared.text[-200:]}"
        return Judgement(False, f"/etc/localtime is no link to a zone, and {why}")


@dataclass(frozen=True, kw_only=True)
class LocaleCheck(BaseCheck):
    """The system's locale, which must also be generated."""

    kind = "locale"
    locale: LocaleName
    """Its name, in the form of LANG."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (
            ("grep", "-hs", "^LANG=", "/etc/locale.conf", "/etc/default/locale"),
            ("locale", "-a"),
        )

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        lines = replies[0].text.splitlines() or ["LANG=C"]
        found = lines[-1].partition("=")[2].strip("'\"")
        if found != self.locale:
            return Judgement(False, f"it is {found}")
        known = {_plain_locale(name) for name in replies[1].text.split()}
        there = _plain_locale(self.locale) in known
        return Judgement(there, found if there else f"{found} has not been generated")


def _plain_locale(name: str) -> str:
    """A locale name in the spelling of locale(1), such as de_DE.utf8."""
    language, dot, codeset = name.partition(".")
    return language + dot + codeset.lower().replace("-", "")


@dataclass(frozen=True, kw_only=True)
class BootTimeCheck(BaseCheck):
    """The time limit of the boot, by the clock of the booted system (systemd-analyze(1))."""

    kind = "systemd-analyze"
    systemd_analyze: Annotated[int, Between(1, 86400)]
    """The limit in seconds, from the start of the kernel until systemd has finished the boot."""

    def asks(self) -> tuple[tuple[str, ...], ...]:
        return (("systemctl", "show", "--value", "--property=FinishTimestampMonotonic"),)

    def judge(self, replies: Sequence[Reply]) -> Judgement:
        text = replies[0].text
        if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
            return Judgement(False, "systemd does not know: it has not settled")
        seconds = int(text) / 1e6
        if seconds > self.systemd_analyze:
            return Judgement(False, f"{seconds:.1f} s, more than {self.systemd_analyze} s")
        return Judgement(True, f"{seconds:.1f} s")


@dataclass(frozen=True, kw_only=True)
class RebootCheck(BaseCheck):
    """The system shuts down and boots a second time.

    All other checks run again. The machine ID and the SSH host keys must not change.
    """

    kind = "reboot"
    reboot: Literal[True]
    """true"""

    @property
    def name(self) -> str:
        return "reboot"


@dataclass(frozen=True, kw_only=True)
class MemoryCheck(BaseCheck):
    """The image boots with this amount of memory; the test machine has no more."""

    kind = "memory"
    memory: MemorySize
    """The memory of the test machine, such as '512M'."""

    @property
    def bytes(self) -> int:
        return bytes_of(self.memory)


def is_unit_name(text: str) -> bool:
    return bool(get_args(UnitName)[1].accepts(text))
