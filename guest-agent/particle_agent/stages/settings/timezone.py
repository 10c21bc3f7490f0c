"""Stage timezone: the time zone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.values import ZoneName
from particle_agent.errors import StageError
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

ZONES = "/usr/share/zoneinfo"
# Abbreviations such as CEST: the name with the most similar spelling would be a wrong place.
ABBREVIATION = re.compile("[A-Z]{2,5}|[a-z]{3,4}")
NAMED = "Time zones are named after places, such as Europe/Berlin."


@dataclass(frozen=True, kw_only=True)
class Timezone(StageOptions):
    """Sets the time zone. Every zone except UTC needs the package `tzdata` in the image."""

    only_configures: ClassVar[bool] = True
    type: Literal["timezone"] = "timezone"
    zone: ZoneName
    """A name from the tz database, such as `Europe/Berlin`."""

    def needs(self) -> Iterator[Need]:
        if self.zone not in ("UTC", "Etc/UTC"):
            yield needs.package(
                "tzdata", f"{ZONES}/*", f"the time zone {self.zone}", "zone", others=True
            )

    def rewrites(self) -> Iterator[tuple[str, str]]:
        for path in ("/etc/localtime", "/etc/timezone"):
            yield path, "set the zone in the option 'zone' of the stage"

    def run(self, target: Target) -> None:
        if not target.exists(f"{ZONES}/{self.zone}") and self.zone not in ("UTC", "Etc/UTC"):
            raise _unknown(target, self.zone)
        target.symlink("/etc/localtime", f"{ZONES}/{self.zone}")
        target.write("/etc/timezone", f"{self.zone}\n")


def _unknown(target: Target, zone: str) -> StageError:
    table = f"{ZONES}/tzdata.zi"
    if not target.exists(table):
        return StageError(
            f"time zone {zone} cannot be set: the package 'tzdata' is not installed",
            hint="Add 'tzdata' to the packages of an apt stage before this one.",
        )
    names = [line.split()[1] for line in target.read(table).splitlines() if line.startswith("Z ")]
    abbreviated = ABBREVIATION.fullmatch(zone) is not None
    near = [] if abbreviated else difflib.get_close_matches(zone, names, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "See 'timedatectl list-timezones'."
    if abbreviated:
        hint = NAMED
    return StageError(
        f"there is no time zone {zone}", hint=f"{hint} Old names need the package 'tzdata-legacy'."
    )
