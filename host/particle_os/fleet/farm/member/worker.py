"""The workers of a farm: Dask's, each with a nanny that starts it again when it dies."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from particle_os.errors import Interrupted
from particle_os.fleet.farm import address, engine
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.fleet.farm.member.scheduler import ending
from particle_os.fleet.farm.names import SETTINGS
from particle_os.system.workspace import workspace

# A worker that finds no scheduler tries again after so long.
AGAIN_SECONDS = 2.0
# A worker that loses its scheduler for so long ends, and its nanny starts to look for one.
LOST = "60s"


@dataclass(frozen=True)
class FarmMember:
    """The settings of workers: the URL of the scheduler, the keys, and what each worker has.

    `builds` are the settings of the builds, encoded. `room` is the number of bytes that must be
    free on the disk of the cache; 0 checks nothing. The worker looks each `room_seconds`.
    """

    url: str
    keys: str | None = None
    slots: int = 1
    count: int = 1
    name: str | None = None
    resources: dict[str, float] = field(default_factory=dict)
    builds: str = "{}"
    room: int = 0
    room_seconds: float = 30.0

    def encode(self) -> str:
        """The settings as JSON."""
        return json.dumps(asdict(self))


def run(member: FarmMember, note: Callable[[str], None]) -> None:
    """Runs workers until a signal, and then raises Interrupted.

    `note` learns when the scheduler is found and lost. The workers wait for a scheduler that is
    not there, or that is started again.
    """
    import dask

    with workspace() as work:
        chosen = {"distributed.worker.http.routes": [], "temporary-directory": str(work.path)}
        with dask.config.set(chosen):
            number = asyncio.run(_serve(member, note))
    raise Interrupted(number)


async def _serve(member: FarmMember, note: Callable[[str], None]) -> int:
    ended = ending()
    while not ended.done():
        try:
            async with AsyncExitStack() as stack:
                nannies = [
                    await stack.enter_async_context(_nanny(member, n)) for n in range(member.count)
                ]
                note(f"{member.count} with {member.slots} slots at {member.url}")
                gone = [asyncio.ensure_future(nanny.finished()) for nanny in nannies]
                await asyncio.wait([ended, *gone], return_when=asyncio.FIRST_COMPLETED)
        except (OSError, TimeoutError, RuntimeError) as error:
            note(f"the scheduler {member.url} does not answer: {error}")
        if not ended.done():
            note("looking for the scheduler")
            await asyncio.wait([ended], timeout=AGAIN_SECONDS)
    return ended.result()


def _nanny(member: FarmMember, number: int) -> Any:
    from distributed import Nanny

    from particle_os.fleet.farm.member.room import RoomCheck

    keys = None if member.keys is None else FarmKeys(Path(member.keys))
    name = member.name and (member.name if member.count == 1 else f"{member.name}-{number}")
    return Nanny(
        member.url, nthreads=member.slots, name=name, security=engine.security(member.url, keys),
        host=address.loopback_host(member.url), resources=member.resources, memory_limit=None,
        dashboard=False, dashboard_address="127.0.0.1:0", death_timeout=LOST,
        env={SETTINGS: member.builds},
        plugins=(RoomCheck(member.room, member.slots, member.room_seconds),) if member.room else (),
    )  # fmt: skip


def main() -> int:
    """Runs the workers of a farm on this machine, whose settings are the only argument."""
    engine.quiet()
    try:
        run(FarmMember(**json.loads(sys.argv[1])), lambda text: None)
    except Interrupted as ended:
        return 128 + ended.signal_number
    return 0


if __name__ == "__main__":
    sys.exit(main())
