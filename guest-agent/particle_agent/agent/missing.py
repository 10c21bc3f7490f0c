"""Finds the needs of stages that neither the system nor an earlier stage meets.

The host checks the needs for a base that particle-os makes, before anything starts. The content of
another base is known only in the VM. The agent checks the needs before the first stage, so that the
build fails before it spends time on installing packages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from particle_agent.agent.channel import Channel
from particle_agent.agent.failure import FailedStage
from particle_agent.contract import wire
from particle_agent.contract.needs import Need
from particle_agent.errors import StageError
from particle_agent.stages import Stage
from particle_agent.stages.software.apt import Apt
from particle_agent.system.accounts import entries
from particle_agent.target.target import Target

DATABASES = {"user": "passwd", "group": "group"}


def missing(stages: Sequence[Stage], target: Target) -> Iterator[tuple[int, Need]]:
    """The unmet needs, each with the index of its stage. Each stage has a need only once.

    The effect of packages on this base is unknown. So any stage that installs packages counts as
    meeting the needs of later stages, which report what is still missing.
    """
    for index, stage in enumerate(stages):
        for need in stage.later_needs():
            if not any(_may_bring(other, need) for other in stages) and not _is_met(need, target):
                yield index, need
        seen: set[str] = set()
        for need in (*stage.boot_needs(target.architecture), *stage.needs()):
            if need.what in seen or any(_may_bring(other, need) for other in stages[:index]):
                continue
            seen.add(need.what)
            if not _is_met(need, target):
                yield index, need


def _may_bring(stage: Stage, need: Need) -> bool:
    return (isinstance(stage, Apt) and stage.fetches) or stage.may_bring(need)


def _is_met(need: Need, target: Target) -> bool:
    kind, _, name = need.what.partition(" ")
    if kind in DATABASES:
        return name in entries(target, DATABASES[kind])
    return any(_has(target, pattern) for pattern in need.files)


def _has(target: Target, pattern: str) -> bool:
    directory, _, name = pattern.rpartition("/")
    names = (found for place in _directories(target, directory) for found in target.list(place))
    return any(fnmatchcase(found, name) for found in names)


def _directories(target: Target, pattern: str) -> list[str]:
    above, _, name = pattern.rpartition("/")
    if "*" not in name:
        return [pattern]
    return [f"{above}/{found}" for found in target.list(above) if fnmatchcase(found, name)]


def check_needs(stages: Sequence[Stage], target: Target, channel: Channel) -> None:
    """Raises FailedStage for the first stage with an unmet need; its tail names the other needs.

    The host receives the start of the stage first, as it does for every failed stage.
    """
    found = list(missing(stages, target))
    if not found:
        return
    index, need = found[0]
    others = [f"{stages[i].label}: {other.message}" for i, other in found[1:]]
    channel.send(wire.StageStart(index=index))
    raise FailedStage(index, StageError(need.message, hint=_sentence(need.hint), tail=others))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
