"""The commands of `farm`."""

from __future__ import annotations

from pathlib import Path

import click

from particle_os.cli import options as option
from particle_os.cli.command import OutputStyle, say, with_output
from particle_os.cli.options import PathType
from particle_os.cli.usage.commands import CommandGroup
from particle_os.fleet.farm import address, engine, key_making, keys
from particle_os.fleet.farm.keys import FarmKeys
from particle_os.fleet.farm.member import offer, scheduler, worker
from particle_os.fleet.farm.member.scheduler import SchedulerSettings
from particle_os.jobs.plan import BuildOptions


@click.group("farm", cls=CommandGroup)
def farm_group() -> None:
    """Build on several machines: make keys, and run the scheduler and the workers."""


@farm_group.command("keys")
@click.argument("directory", type=PathType(file_okay=False), required=False)
@with_output
def farm_keys_command(output: OutputStyle, directory: Path | None) -> None:
    """Make the keys of a new farm in DIRECTORY, by default where other commands look for them.

    Copy the directory to the machines of the scheduler, the workers and the clients. Who has the
    keys can run programs on each worker.
    """
    made = key_making.make(directory or keys.usual_directory())
    files = [str(path) for path in made.files]
    output.show({"files": files}, files)


@farm_group.command("scheduler")
@click.option("--listen", metavar="URL", default=f"tls://0.0.0.0:{address.PORT}",
              show_default=True, help="Listen here; tcp:// is for loopback only.")  # fmt: skip
@option.FARM_KEYS
@click.option("--dashboard", metavar="HOST:PORT",
              help="Show Dask's dashboard there, on loopback: it has no TLS.")  # fmt: skip
@with_output
def farm_scheduler_command(
    output: OutputStyle, listen: str, farm_keys: Path | None, dashboard: str | None
) -> None:
    """Run the scheduler of a farm, until Ctrl-C. It needs one processor, and no disk."""
    engine.require()
    url = address.scheduler_url(listen)
    if dashboard is not None:
        dashboard = address.dashboard_address(dashboard)
    settings = SchedulerSettings(url, _keys(url, farm_keys), dashboard)
    scheduler.run(settings, lambda at: output.show({"address": at}, [f"{at} (Ctrl-C ends it)"]))


@farm_group.command("worker")
@click.argument("url", metavar="SCHEDULER")
@click.option(
    "--slots",
    "count",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Run so many builds at a time; by default as many as there is room for.",
)
@click.option("--name", help="The name of the worker in Dask's dashboard.")
@option.FARM_KEYS
@option.shared_caches
@with_output
@option.build_options
def farm_worker_command(
    output: OutputStyle,
    url: str,
    options: BuildOptions,
    count: int | None,
    name: str | None,
    farm_keys: Path | None,
) -> None:
    """Build for the farm of SCHEDULER (tls://HOST:8786) on this machine, until Ctrl-C.

    The worker first checks what 'doctor' checks. It waits for a scheduler that is not there yet.
    Results go to the shared cache of --cache-to, and each client needs the public key of
    --cache-sign.
    """
    engine.require()
    url = address.scheduler_url(url)

    def note(text: str) -> None:
        if not output.quiet:
            say(text, error=True)

    member = offer.member(url, _keys(url, farm_keys), options, count, name, note)
    worker.run(member, note)


def _keys(url: str, directory: Path | None) -> str | None:
    """The directory with the keys for a URL; None for one without TLS. Raises UsageError."""
    if not url.startswith("tls://"):
        return None
    found = FarmKeys((directory or keys.usual_directory()).absolute())
    found.check()
    return str(found.directory)
