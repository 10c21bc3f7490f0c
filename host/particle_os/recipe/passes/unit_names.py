"""Finds misspelt units of the stage `services`, with the units of Debian's packages."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath

from particle_agent.contract.unit_names import (
    SCRIPTS,
    SYSTEM,
    USER,
    WITH_FILES,
    full_name,
    template,
)
from particle_agent.stages import RecipeStage
from particle_agent.stages.contents.files import Files
from particle_agent.stages.contents.run import Run
from particle_agent.stages.settings.services import Services
from particle_agent.stages.software.apt import Apt
from particle_agent.stages.software.sources import Sources

from particle_os.documents.document import Key
from particle_os.recipe import dependencies
from particle_os.recipe.passes.reading import Reading

# So many unknown names of a recipe are compared with the names of all units, which takes time.
COMPARED_LIMIT = 20
# A note names so many packages that have a unit.
PACKAGES = 3
OWN_UNIT = "a stage 'files' before this one writes a unit of your own"
# Packages of every image that boots, or of the base; Debian's packages recommend others of these.
EVERYWHERE = re.compile(
    r"(lib)?systemd.*|udev|dbus.*|util-linux.*|uuid-runtime|e2fsprogs|apt|dpkg|base-files|login|"
    r"mount|procps|kmod|initramfs-tools.*|cron|cron-daemon-common|logrotate|man-db|unattended-upgrades"
)
# These packages bring what no part of their names says.
COLLECTION = re.compile(
    r"task-.*|.*-desktop.*|desktop-.*|gnome.*|kde-.*|plasma-.*|xfce4.*|lxde.*|lxqt.*|mate-.*|"
    r"cinnamon.*|.*-all|.*-full|.*-meta.*"
)


@dataclass(frozen=True)
class KnownUnits:
    """The packages of each unit, and the unit of each alias."""

    packages: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str]


@functools.cache
def known_units(*, users: bool = False) -> KnownUnits:
    """The units of Debian's packages for the system, or for `users` (`make debian-facts`)."""
    name = "user_units.txt" if users else "units.txt"
    text = resources.files("particle_os.recipe").joinpath(name).read_text("utf-8")
    packages, aliases = dict[str, tuple[str, ...]](), dict[str, str]()
    for line in text.splitlines():
        name, *rest = line.split()
        if name == "#":
            continue
        if rest[0] == "=":
            aliases[name] = rest[1]
        else:
            packages[name] = tuple(rest)
    return KnownUnits(packages, aliases)


def check(reading: Reading) -> None:
    """Notes each unit that no package of Debian is known to have and no earlier stage writes.

    It is an error where only packages of Debian can bring units, and the name is near to that of a
    known unit: the list of the units lacks most aliases and links.
    """
    source, recipe = reading.source, reading.recipe
    assert recipe is not None
    base = recipe.base_image if reading.base is None else reading.base
    stages = [(i, s) for i, s in enumerate(recipe.stages) if s.applies(recipe.architecture)]
    compared = iter(range(COMPARED_LIMIT))
    for position, (index, stage) in enumerate(stages):
        if not isinstance(stage, Services):
            continue
        before = [other for _, other in stages[:position]]
        for key, given in _named(stage):
            users = str(key[0]).startswith("user-")
            certain = dependencies.is_released(base)
            certain = certain and not any(_may_bring_any(other, users) for other in before)
            own = {name for other in (*before, stage) for name in _written(other, users)}
            unit, known = template(full_name(given)), known_units(users=users)
            mark = source.mark(("stages", index, *key))
            if certain and unit not in own and (missing := _missing(unit, known, before)):
                source.note(mark, "missing-unit", _told(unit, missing, before))
            there = unit in known.packages or unit in known.aliases
            if there or unit in own or unit.rpartition(".")[2] not in WITH_FILES:
                continue
            near = None
            if next(compared, None) is not None:
                near = _meant(unit, known, before, own)
            whose = "unit of users" if users else "unit"
            message = f"no package of Debian is known to have the {whose} '{unit}'"
            if certain and near:
                source.problem(mark, "unknown-unit", message, f"did you mean '{near}'?")
            elif certain:
                source.note(mark, "unknown-unit", f"{message}; {OWN_UNIT}")
            elif near:
                message = f"is the {whose} '{unit}' meant to be '{near}'?"
                source.note(mark, "unknown-unit", message)


def _named(stage: Services) -> Iterator[tuple[Key, str]]:
    lists: dict[str, Sequence[str]] = {
        "enable": stage.enable, "disable": stage.disable, "mask": stage.mask,
        "preset": stage.preset, "user-enable": stage.user_enable,
        "user-disable": stage.user_disable, "user-mask": stage.user_mask,
    }  # fmt: skip
    for option, names in lists.items():
        for number, name in enumerate(names):
            yield (option, number), name
    for number, drop_in in enumerate(stage.drop_ins):
        yield ("drop-ins", number, "unit"), drop_in.unit


def _missing(unit: str, known: KnownUnits, before: Sequence[RecipeStage]) -> tuple[str, ...]:
    """The packages that have the unit, if the packages of the recipe hardly bring one of them.

    The dependencies of most packages are unknown here. A package is taken to bring those with
    which it shares the beginning of its name, as nginx brings nginx-common.
    """
    having = known.packages.get(known.aliases.get(unit, unit), ())
    installed = [
        re.split("[:=/]", name)[0]
        for stage in before
        if isinstance(stage, Apt)
        for name in stage.packages
    ]
    near = {_stem(name) for name in having} & {_stem(name) for name in installed}
    if near or any(map(EVERYWHERE.fullmatch, having)) or any(map(COLLECTION.fullmatch, installed)):
        return ()
    return having


def _told(unit: str, packages: Sequence[str], before: Sequence[RecipeStage]) -> str:
    named = " or ".join(f"'{name}'" for name in packages[:PACKAGES])
    message = f"no stage before installs {named}, which has the unit '{unit}'"
    if all(stage.only_common for stage in before if isinstance(stage, Apt)):
        return message
    return f"{message}, unless another package brings it"


def _stem(package: str) -> str:
    return re.split("[-.0-9]", package.removeprefix("lib"), maxsplit=1)[0]


def _may_bring_any(stage: RecipeStage, users: bool) -> bool:
    """Whether a stage may bring units, of the system or of `users`, that no Debian package has."""
    if isinstance(stage, Apt):
        return bool(stage.package_files)
    if isinstance(stage, Files):
        return any(stage.may_copy_below(place) for place in (USER if users else (*SYSTEM, SCRIPTS)))
    # A wrong stage stands for any.
    return isinstance(stage, Run | Sources) or not stage.only_configures


def _written(stage: RecipeStage, users: bool) -> Iterator[str]:
    """The units, of the system or of `users`, that a stage writes."""
    if isinstance(stage, Services) and not users:
        for timer in stage.timers:
            yield from (name for name, _ in timer.units())
    if isinstance(stage, Files):
        for written in (*(f.path for f in stage.files), *(link.path for link in stage.links)):
            path = PurePosixPath(written)
            if str(path.parent) in (USER if users else SYSTEM):
                yield path.name
            if str(path.parent) == SCRIPTS and not users:
                yield f"{path.name}.service"


def _meant(
    unit: str, known: KnownUnits, before: Sequence[RecipeStage], own: set[str]
) -> str | None:
    """The unit that a name probably misspells, at first among those of the recipe."""
    installed = {name for stage in before if isinstance(stage, Apt) for name in stage.packages}
    likely = {name for name, of in known.packages.items() if not installed.isdisjoint(of)} | own
    every = {*known.packages, *known.aliases}
    return _nearest(unit, likely, 0.6) or _nearest(unit, every, 0.75)


def _nearest(unit: str, units: Collection[str], similarity: float) -> str | None:
    """The most similar unit of the same type; the types themselves would make all similar."""
    stem, _, kind = unit.rpartition(".")
    stems = {name.removesuffix(f".{kind}"): name for name in units if name.endswith(f".{kind}")}
    found = difflib.get_close_matches(stem, sorted(stems), n=1, cutoff=similarity)
    return stems[found[0]] if found else None
