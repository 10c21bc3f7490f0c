"""What the stages need and neither the system has nor a stage before may bring.

Of a base that particle-os makes the host knows what it holds and tells it before anything starts.
Another base is looked at here, before its first stage: one that fails does so at once, and not
after the packages of those before it have been installed.
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
from particle_agent.system.accounts import entries
from particle_agent.target.target import Target

DATABASES = {"user": "passwd", "group": "group"}


def missing(stages: Sequence[Stage], target: Target) -> Iterator[tuple[int, Need]]:
    """Each need that will not be met, with the position of its stage; once for each stage."""
    for index, stage in enumerate(stages):
        told: set[str] = set()
        for need in stage.needs():
            if need.what in told or any(other.may_bring(need) for other in stages[:index]):
                continue
            told.add(need.what)
            if not _is_there(need, target):
                yield index, need


def _is_there(need: Need, target: Target) -> bool:
    kind, _, name = need.what.partition(" ")
    if kind in DATABASES:
        return name in entries(target, DATABASES[kind])
    return any(_has(target, pattern) for pattern in need.files)


def _has(target: Target, pattern: str) -> bool:
    directory, _, name = pattern.rpartition("/")
    return any(fnmatchcase(found, name) for found in target.list(directory))


def check_needs(stages: Sequence[Stage], target: Target, channel: Channel) -> None:
    """Raises FailedStage, of the first stage that lacks something; the host hears of its start."""
    found = list(missing(stages, target))
    if not found:
        return
    index, need = found[0]
    others = [f"{stages[i].label}: {other.message}" for i, other in found[1:]]
    channel.send(wire.StageStart(index=index))
    raise FailedStage(index, StageError(need.message, hint=_sentence(need.hint), tail=others))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
