"""Builds on a farm: one on this machine, for this command, or one on other machines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from particle_os.fleet.build_end import BuildEnd
from particle_os.fleet.farm import engine
from particle_os.fleet.farm.address import FarmAddress
from particle_os.fleet.farm.client.here import FarmHere
from particle_os.fleet.farm.client.run import BuildPlace, FarmRun
from particle_os.fleet.farm.client.there import FarmElsewhere
from particle_os.fleet.farm.keys import FarmKeys, usual_directory
from particle_os.fleet.order import Order
from particle_os.fleet.running import View
from particle_os.fleet.several import Engine
from particle_os.system.workspace import workspace


def engine_of(on: str, keys: Path | None, *, lines: bool) -> Engine:
    """The engine that builds on the farm `on`, whose keys are in a directory. Raises UsageError."""
    address = FarmAddress.parse(on)
    engine.require()
    return partial(run, address, FarmKeys(keys or usual_directory()), lines=lines)


def run(
    address: FarmAddress,
    keys: FarmKeys,
    orders: Sequence[Order],
    view: View,
    ends: dict[str, BuildEnd],
    *,
    jobs: int | None,
    fail_fast: bool,
    lines: bool,
) -> None:
    """Builds the images of the orders on a farm, and adds the end of each build to `ends`.

    With `lines`, the view gets the lines of programs, too. Raises UsageError before anything
    starts when an image cannot be built there, and InfrastructureError when the farm is lost.
    """
    engine.quiet()
    with workspace() as work:
        place: BuildPlace
        if address.url is None:
            place = FarmHere(address.workers, work, lines=lines)
        else:
            place = FarmElsewhere(address.url, keys, work, lines=lines)
        FarmRun(place, orders, view, ends, jobs=jobs, fail_fast=fail_fast).run()
