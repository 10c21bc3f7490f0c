"""Checks before a build that each stage finds what it needs in the base or in earlier stages.

The host knows only the content of bases that particle-os makes itself. The agent checks other
bases in the VM, between unpacking and the first stage: particle_agent/agent/missing.py.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Iterator

from particle_agent.contract import debian
from particle_agent.contract.needs import Need
from particle_agent.stages.base import StageOptions
from particle_agent.stages.contents.files import Files
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.timezone import ABBREVIATION, NAMED, Timezone
from particle_agent.stages.software.apt import Apt
from particle_agent.stages.software.sources import Sources

from particle_os.architecture import ARCHITECTURES, Architecture
from particle_os.documents.document import Key, Source
from particle_os.documents.words import nearest
from particle_os.recipe.base_reference import OTHER_SUITES, SUITES

PREFIX = "mmdebstrap:"
# From base-passwd and apt of Debian 12 and 13; the base of mmdebstrap has no others.
GROUPS = frozenset(
    "root daemon bin sys adm tty disk lp mail news uucp man proxy kmem dialout fax voice cdrom "
    "floppy tape sudo audio dip www-data backup operator list irc src shadow utmp video sasl "
    "plugdev staff games users nogroup".split()
)
USERS = frozenset(
    "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc _apt "
    "nobody".split()
)
BASE = frozenset({f"group {name}" for name in GROUPS} | {f"user {name}" for name in USERS})
# `systemd` of bookworm contains what later suites put into separate packages.
WITHIN = {"bookworm": frozenset({"package systemd-repart"})}
# The suites without a systemd-boot that is signed.
UNSIGNED_SYSTEMD_BOOT = ("bookworm",)
# The released suites by their other names. `debian.RELEASED` has their own names.
ALIASES = {"oldstable": "bookworm", "stable": "trixie"}
# Suites of other archives whose names resemble suites of Debian.
ELSEWHERE = ("noble", "questing", "squid")
# Debian's additional suites: SUITE-POCKET.
POCKETS = (
    "security", "updates", "backports", "backports-sloppy", "proposed-updates", "debug",
    "backports-debug",
)  # fmt: skip


class _Before:
    """The stages before one stage, which may bring its needs in a suite."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self.stages: list[StageOptions] = []
        # What brings a need brings it to all later stages, until one of them removes packages.
        self._brought: set[tuple[str, tuple[str, ...]]] = set()

    def add(self, stage: StageOptions) -> None:
        self.stages.append(stage)
        if stage.removes():
            self._brought.clear()

    def may_bring(self, need: Need) -> bool:
        if (need.what, need.packages) not in self._brought and not self._bring(
            need.within(self._suite)
        ):
            return False
        self._brought.add((need.what, need.packages))
        return True

    def _bring(self, need: Need) -> bool:
        gone: set[str] = set()
        for stage in reversed(self.stages):
            if stage.may_bring(need.without(gone) if gone else need):
                return True
            gone.update(stage.removes())
        return False


def check(
    source: Source,
    stages: tuple[StageOptions, ...],
    *,
    architecture: str,
    base: str,
    secure_boot: bool,
) -> None:
    """Notes in `source` each need of a stage that neither the base nor an earlier stage can meet.

    `stages` are in the order of the document; stages for other architectures are skipped.
    `secure_boot` means that the image must boot under Secure Boot.
    """
    suite = base.removeprefix(PREFIX)
    if suite == base:
        return
    if suite not in SUITES:
        if near := _meant_suite(suite):
            named = source.node(("base-image",))
            here = named is not None and named.value == base
            message = f"is the suite '{suite}' meant to be '{near}'?"
            mark = source.mark(("base-image",) if here else ())
            source.note(mark, "unknown-suite", message if here else f"--base: {message}")
        return
    suite = ALIASES.get(suite, suite)
    known = ARCHITECTURES[architecture]
    there = BASE | WITHIN.get(suite, frozenset())
    applying = [(i, stage) for i, stage in enumerate(stages) if stage.applies(architecture)]
    before = _Before(suite)
    for position, (index, stage) in enumerate(applying):
        later = [i for i, other in applying[position + 1 :]]
        reported: set[str] = set()
        signed = _signed_needs(source, index, stage, suite, known) if secure_boot else ()
        needed = (*stage.boot_needs(known), *stage.needs(), *signed)
        for need in needed:
            if need.what in there or need.what in reported or before.may_bring(need):
                continue
            reported.add(need.what)
            hint = need.hint
            if found := next((i for i in later if stages[i].names(need.within(suite))), None):
                line = source.line(("stages", found))
                hint = f"put this stage after the '{stages[found].type}' at line {line}"
            mark = source.mark(("stages", index, *need.key))
            if _is_certain(before.stages, suite):
                source.problem(mark, "missing-need", need.message, hint)
            else:
                source.note(mark, "missing-need", f"{need.message}, it seems: {hint}")
        before.add(stage)


def check_later(
    source: Source,
    stages: tuple[StageOptions, ...],
    of_test: Iterable[tuple[Key, Need, bool]],
    *,
    architecture: str,
    base: str,
) -> None:
    """Notes in `source` each need that neither the base nor any stage can meet.

    `of_test` are those of the boot test: the place, the need, and whether a test certainly fails
    without it.
    """
    suite = base.removeprefix(PREFIX)
    if suite == base or suite not in SUITES:
        return
    suite = ALIASES.get(suite, suite)
    there = BASE | WITHIN.get(suite, frozenset())
    every = _Before(suite)
    needed: list[tuple[Key, Need, bool]] = []
    for index, stage in enumerate(stages):
        if stage.applies(architecture):
            every.add(stage)
            needed += [(("stages", index, *n.key), n, True) for n in stage.later_needs()]
    for key, need, is_certain in (*needed, *of_test):
        if need.what in there or every.may_bring(need):
            continue
        if is_certain and _is_certain(every.stages, suite):
            source.problem(source.mark(key), "missing-need", need.message, need.hint)
        else:
            source.note(source.mark(key), "missing-need", f"{need.message}, it seems: {need.hint}")


def _signed_needs(
    source: Source, index: int, stage: StageOptions, suite: str, architecture: Architecture
) -> Iterator[Need]:
    """The needs of a disk that Secure Boot starts. Notes a boot loader that it never starts."""
    if not isinstance(stage, Qemu):
        return
    if stage.boot_loader == "systemd-boot" and suite in UNSIGNED_SYSTEMD_BOOT:
        mark = source.mark(("stages", index, "boot-loader"))
        message = f"boot-loader: {suite} has no systemd-boot that is signed for Secure Boot"
        source.problem(mark, "bad-value", message, "write 'grub', or use trixie or later")
        return
    yield from stage.signed_needs(architecture)


def boot_needs(architecture: str, secure_boot: bool, disk: Qemu) -> Iterator[Need]:
    """The needs of what starts a disk on machines of an architecture."""
    known = ARCHITECTURES[architecture]
    yield from disk.boot_needs(known)
    if secure_boot:
        yield from disk.signed_needs(known)


def _is_certain(stages: list[StageOptions], suite: str) -> bool:
    """Whether the host knows for certain which packages these stages do not bring.

    The dependencies of a released suite are final. The dependencies in other suites change, and
    other package sources may have other packages under the same names.
    """
    installing = [stage for stage in stages if isinstance(stage, Apt) and stage.fetches]
    if not installing:
        return True
    elsewhere = any(
        isinstance(stage, Sources)
        or (isinstance(stage, Files) and stage.may_write_below("/etc/apt"))
        for stage in stages
    )
    known = all(stage.only_common for stage in installing)
    return known and not elsewhere and suite in debian.RELEASED


def is_released(base: str) -> bool:
    """Whether a base is a released suite of Debian, whose packages do not change."""
    suite = base.removeprefix(PREFIX)
    return suite != base and ALIASES.get(suite, suite) in debian.RELEASED


def check_suites(source: Source, stages: tuple[StageOptions, ...]) -> None:
    """Notes in `source` the suites of package sources that look misspelt."""
    for index, stage in enumerate(stages):
        for number, one in enumerate(stage.repositories if isinstance(stage, Sources) else ()):
            for place, suite in enumerate(one.suites):
                if meant := _meant_suite(suite):
                    mark = source.mark(("stages", index, "repositories", number, "suites", place))
                    message = f"is the suite '{suite}' meant to be '{meant}'?"
                    source.note(mark, "unknown-suite", message)


def _meant_suite(suite: str) -> str | None:
    """The suite that a name probably misspells; None for a known suite or another archive's."""
    name, dash, pocket = suite.partition("-")
    if "/" in suite or name in ELSEWHERE:
        return None
    known = (*SUITES, *OTHER_SUITES)
    near = name if name in known else nearest(name, known)
    if near is None:
        return None
    if pocket and pocket not in POCKETS:
        pocket = nearest(pocket, POCKETS) or pocket
    meant = f"{near}{dash}{pocket}"
    return meant if meant != suite else None


def check_zones(source: Source, stages: tuple[StageOptions, ...]) -> None:
    """Notes in `source` each time zone that this host does not know.

    These are notes and not errors, because the image may know other zones.
    """
    for index, stage in enumerate(stages):
        if not isinstance(stage, Timezone) or _knows(stage.zone):
            continue
        if known := {name.lower(): name for name in zoneinfo.available_timezones()}:
            message = f"this host knows no time zone '{stage.zone}'"
            if stage.zone.lower() not in known and ABBREVIATION.fullmatch(stage.zone):
                message += f". {NAMED}"
            elif near := nearest(stage.zone, known):
                message += f": is '{known[near]}' meant?"
            source.note(source.mark(("stages", index, "zone")), "unknown-zone", message)


def _knows(zone: str) -> bool:
    try:
        return zoneinfo.ZoneInfo(zone) is not None
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        return False
