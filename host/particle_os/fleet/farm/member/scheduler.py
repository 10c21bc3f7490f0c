"""The scheduler of a farm: Dask's, with settings for builds that take minutes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from particle_os.errors import InfrastructureError, Interrupted
from particle_os.fleet.farm import engine
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.system.interrupt import ENDING

# A worker that says nothing for so long is given up, and its builds begin elsewhere.
SILENCE = "60s"
# The workers that may die under a build before the build is given up.
DEATHS = 3


@dataclass(frozen=True)
class SchedulerSettings:
    """The URL to listen at, with port 0 for a free one, and the directory with the keys.

    `dashboard` is the address of Dask's dashboard, without TLS; None for no dashboard.
    """

    url: str
    keys: str | None = None
    dashboard: str | None = None

    def encode(self) -> str:
        """The settings as JSON."""
        return json.dumps(asdict(self))


def run(settings: SchedulerSettings, show: Callable[[str], None]) -> None:
    """Runs a scheduler until a signal, and then raises Interrupted; `show` gets its address.

    Raises InfrastructureError when it cannot listen.
    """
    import dask

    chosen = {
        "distributed.scheduler.worker-ttl": SILENCE,
        "distributed.scheduler.allowed-failures": DEATHS,
    }
    # Without a dashboard there is no page at all: each page is open to all users of the machine.
    if settings.dashboard is None:
        chosen["distributed.scheduler.http.routes"] = []
    with dask.config.set({k: v for k, v in chosen.items() if k not in _of_user(dask)}):
        number = asyncio.run(_serve(settings, show))
    raise Interrupted(number)


def _of_user(dask: Any) -> set[str]:
    """The names of settings in the environment (DASK_DISTRIBUTED__...), which win."""
    found = dask.config.collect_env()
    return {".".join(path) for path in _paths(found)}


def _paths(tree: Any) -> list[tuple[str, ...]]:
    if not isinstance(tree, dict):
        return [()]
    return [(name.replace("_", "-"), *rest) for name in tree for rest in _paths(tree[name])]


async def _serve(settings: SchedulerSettings, show: Callable[[str], None]) -> int:
    """Serves until a signal, and returns its number."""
    from distributed import Scheduler

    keys = None if settings.keys is None else FarmKeys(Path(settings.keys))
    ended = ending()
    scheme, _, rest = settings.url.partition("://")
    host, _, port = rest.rpartition(":")
    try:
        server = await Scheduler(
            protocol=scheme, host=host.strip("[]"), port=int(port),
            security=engine.security(settings.url, keys),
            dashboard=settings.dashboard is not None,
            dashboard_address=settings.dashboard or "127.0.0.1:0",
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise InfrastructureError(
            f"the scheduler cannot listen at {settings.url}: {error}",
            hint="Name another address with --listen.",
        ) from error
    try:
        show(server.address)
        return await ended
    finally:
        await server.close()


def ending() -> asyncio.Future[int]:
    """The number of the first signal that asks this program to end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def note(number: int) -> None:
        if not ended.done():
            ended.set_result(number)

    for number in ENDING:
        loop.add_signal_handler(number, note, int(number))
    return ended


def _show(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


def main() -> int:
    """Runs the scheduler of a farm on this machine, whose settings are the only argument."""
    engine.quiet()
    settings = SchedulerSettings(**json.loads(sys.argv[1]))
    try:
        run(settings, _show)
    except Interrupted as ended:
        return 128 + ended.signal_number
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
