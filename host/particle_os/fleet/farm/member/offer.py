"""The offer of a worker: what this machine has, and what it can build."""

from __future__ import annotations

from collections.abc import Callable

from particle_os.errors import InfrastructureError
from particle_os.fleet.farm import slots
from particle_os.fleet.farm.member.settings import WorkerSettings
from particle_os.fleet.farm.member.worker import FarmMember
from particle_os.fleet.farm.slots import WorkerMachine
from particle_os.jobs.host import doctor
from particle_os.jobs.plan import BuildOptions
from particle_os.system.workspace import cache_directory

UNTRIED = (
    "no build has tried KVM on this machine yet, so the worker counts as one without KVM; build an "
    "image here once, then start the worker again"
)


def member(
    url: str,
    keys: str | None,
    options: BuildOptions,
    count: int | None,
    name: str | None,
    note: Callable[[str], None],
) -> FarmMember:
    """The settings of a worker with so many slots, or with as many as there is room for.

    `options` has the shared caches. `note` receives what the user should read. Raises UsageError
    for wrong options, and InfrastructureError when this machine cannot build.
    """
    settings = WorkerSettings(
        options.cache_from,
        tuple(str(path.absolute()) for path in options.cache_keys),
        options.cache_to,
        None if options.cache_sign is None else str(options.cache_sign.absolute()),
    )
    # Its errors are better now than in each build.
    settings.cache()
    _check_host()
    machine = WorkerMachine.here(cache_directory())
    if slots.has_kvm(cache_directory()) is None:
        note(UNTRIED)
    count = count or machine.slots()
    offered = slots.resources(count, kvm=machine.kvm, foreign=machine.foreign(count))
    return FarmMember(
        url, keys, slots=count, name=name, resources=offered,
        builds=settings.encode(), room=slots.BUILD_ROOM // 2,
    )  # fmt: skip


def _check_host() -> None:
    """Raises InfrastructureError when this host lacks something that each build needs."""
    missing = [found for found in doctor.examine() if found.status == "missing"]
    if missing:
        raise InfrastructureError(
            "this machine lacks what builds need",
            hint="'particle-os doctor' shows what to do.",
            tail=[f"{found.what}: {found.detail}" for found in missing],
        )
