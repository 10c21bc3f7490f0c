"""Prepares the stages: helper VM, accelerator, base image, earlier checkpoints."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from particle_os.apt import proxy as apt_proxy
from particle_os.apt.proxy import ChosenProxy
from particle_os.base.model import Base
from particle_os.base.suite import ensure_suite, is_damaged
from particle_os.jobs.checkpoints import Checkpoint
from particle_os.jobs.execution import helper_vms
from particle_os.jobs.execution.checkpoint_chain import CheckpointChain
from particle_os.jobs.execution.helper_vms import HelperVms
from particle_os.jobs.execution.job import Job
from particle_os.jobs.execution.sharing import SharedPackages, Sharing
from particle_os.sandbox import helper
from particle_os.sandbox.helper import Helper
from particle_os.sandbox.running import Sandbox
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import cache_directory

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Prepared:
    """The helper VMs that the stages run in, and the base and checkpoints that they start from."""

    apt_proxy: ChosenProxy
    vms: HelperVms
    base: Base
    # The checkpoint keys: of the unpacked base, and after each stage.
    keys: Sequence[str]
    # The job continues after the last checkpoint; without checkpoints it unpacks the base.
    checkpoints: Sequence[Checkpoint]
    # None without shared caches.
    sharing: Sharing | None = None

    def shared_packages(self, running: Callable[[], int]) -> SharedPackages | None:
        """The packages in shared caches; `running` is the index of the running stage."""
        return None if self.sharing is None else SharedPackages(self.sharing, running)


def prepare(job: Job) -> Prepared:
    """Makes the helper and the base unless the cache has them. Raises InfrastructureError."""
    proxy = apt_proxy.find(job.plan.apt_proxy, os.environ, job.note)
    sharing = Sharing.of(job)
    if sharing is not None:
        sharing.take_helper()
        sharing.take_base()
    made = _make_helper(job, proxy)
    vms = helper_vms.chosen(job, made)
    found = _make_base(job, vms, proxy)
    keys = job.plan.keys(found, made)
    if sharing is not None:
        sharing.take_checkpoints(job.plan.reusable(keys))
    return Prepared(proxy, vms, found, keys, _find_checkpoints(job, keys, vms.deadline), sharing)


def _make_helper(job: Job, proxy: ChosenProxy) -> Helper:
    with job.progress.phase("helper VM"):
        made = helper.ensure(
            job.plan.template,
            cache=cache_directory(),
            work=job.work,
            log=job.progress.line,
            note=job.progress.note,
            proxy=proxy,
        )
        os.utime(made.root.parent)
    return made


def _make_base(job: Job, vms: HelperVms, proxy: ChosenProxy) -> Base:
    def keep(sandbox: Sandbox, made: Base) -> None:
        """Stores the scratch disk of the VM that made the base: it holds the unpacked base."""
        if job.plan.options.cache:
            sandbox.agent.quiesce(vms.deadline)
            chain = CheckpointChain(job, vms.deadline, job.plan.keys(made, vms.helper))
            chain.keep(sandbox, "base", network=False)
            job.checkpoints.settle()

    plan = job.plan
    with job.progress.phase("base image"):
        damaged = plan.base is not None and is_damaged(plan.base)
        if plan.base is not None and not damaged:
            return plan.base
        if damaged:
            job.note(f"the base image {plan.base_reference} in the cache is damaged")
        return ensure_suite(
            plan.base_reference.removeprefix("mmdebstrap:"),
            mirror=plan.options.mirror,
            architecture=plan.loaded.recipe.architecture,
            rebuild=plan.options.rebuilds_base or damaged,
            cache=cache_directory(),
            work=job.work,
            open_sandbox=vms.start,
            finished=keep,
            listen=job.show_output,
            log=job.progress.line,
            note=job.progress.note,
            proxy=proxy,
            plain=plan.options.plain,
        )


def _find_checkpoints(job: Job, keys: Sequence[str], deadline: Deadline) -> Sequence[Checkpoint]:
    """The checkpoints of other builds that the job can continue from.

    Waits while another build makes the next one.
    """
    wanted = job.plan.reusable(keys)
    found = job.checkpoints.longest(wanted, max_age=job.plan.options.max_age)
    while len(found) < len(wanted):
        missing = wanted[len(found)]
        if not job.checkpoints.claim(missing):
            _wait_for_other_build(job, missing, deadline)
        # The other build may have stored it just before the claim.
        before = len(found)
        found = job.checkpoints.longest(wanted, max_age=job.plan.options.max_age)
        if len(found) == before:
            break
        job.checkpoints.drop_claim(missing)
    return found


def _wait_for_other_build(job: Job, key: str, deadline: Deadline) -> None:
    with job.progress.phase("wait for the same stage of another build"):
        while not job.checkpoints.claim(key):
            time.sleep(min(POLL_SECONDS, deadline.remaining()))
