"""Runs the host's apt, as the ordinary user and with private directories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_agent.apt.failure import apt_failure
from particle_agent.errors import EnvironmentFailed

from particle_os.errors import InfrastructureError, NotEnoughSpace, StageFailed
from particle_os.system import process
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline


@dataclass(frozen=True)
class Own:
    """The files of one use of apt: `config` (apt.conf(5)) with its directory, and the indexes.

    `proxies` are the proxy variables of the environment.
    """

    config: Path
    lists: Path
    proxies: Mapping[str, str]


def apt_get(
    own: Own, arguments: Sequence[str], deadline: Deadline, log: Callable[[str], None]
) -> list[str]:
    """Runs apt-get and returns its lines; `log` receives each line as it comes.

    Raises StageFailed with apt's message when apt cannot do what the stage asks for, and
    InfrastructureError when a mirror cannot be reached or apt-get cannot run.
    """
    lines: list[str] = []

    def take(line: str) -> None:
        lines.append(line)
        log(line)

    directory = own.config.parent
    try:
        process.run(
            ["apt-get", "--yes", "--quiet", *arguments],
            within=Confinement(writes=(directory, own.lists), tcp="any"),
            env={**own.proxies, "APT_CONFIG": str(own.config), "TMPDIR": str(directory)},
            deadline=deadline,
            what="apt-get on the host",
            log=take,
        )
    except NotEnoughSpace:
        raise
    except InfrastructureError as error:
        failure = apt_failure(error.tail)
        if failure is None:
            raise
        kind = InfrastructureError if isinstance(failure, EnvironmentFailed) else StageFailed
        raise kind(failure.message, hint=failure.hint, tail=error.tail) from error
    return lines
