"""The checkpoints that one job starts from, and the checkpoints that it adds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from particle_os.errors import InfrastructureError, StageFailed
from particle_os.jobs.checkpoints import Checkpoint, failed, intact_prefix
from particle_os.jobs.execution.job import Job
from particle_os.sandbox.running import Sandbox
from particle_os.system.deadline import Deadline


class CheckpointChain:
    """The frozen scratch disks of a job: with the unpacked base, and then after each stage.

    `keys` are the keys of all checkpoints, including future ones. A job without the cache keeps no
    checkpoint.
    """

    def __init__(
        self, job: Job, deadline: Deadline, keys: Sequence[str], found: Sequence[Checkpoint] = ()
    ) -> None:
        self._job = job
        self._deadline = deadline
        self._keys = keys
        self._chain = list(found)
        self._found = len(found)
        # The hashing goes on while a VM starts over the checkpoints.
        reader = ThreadPoolExecutor(1, "checkpoints-in-use")
        self._intact = reader.submit(intact_prefix, found)
        reader.shutdown(wait=False)

    def drop_damaged(self) -> bool:
        """Leaves out the checkpoints from the first damaged one on; returns whether there was one.

        Waits until the checkpoints of earlier builds are hashed.
        """
        intact = self._intact.result()
        damaged = intact < self._found
        if damaged:
            self._chain, self._found = self._chain[:intact], intact
        return damaged

    @property
    def layers(self) -> list[Path]:
        """The disks below the VM's scratch disk, the lowest first."""
        return [checkpoint.disk for checkpoint in self._chain]

    @property
    def stages(self) -> int:
        """The number of stages before the last checkpoint; -1 without any checkpoint."""
        return len(self._chain) - 1

    @property
    def asked_network(self) -> bool:
        """Whether the last checkpoint contains data from the network."""
        return bool(self._chain) and self._chain[-1].meta.network

    def keep(self, sandbox: Sandbox, label: str, *, network: bool) -> None:
        """Freezes the scratch disk and stores it for later builds."""
        if self._job.plan.options.cache:
            number = len(self._chain)
            # The last stage leaves no checkpoint. A claim in time keeps others from the next stage.
            for key in self._keys[number + 1 : -1][:1]:
                self._job.checkpoints.claim(key)
            self._chain.append(self._freeze(sandbox, self._keys[number], label, network=network))

    def keep_failed(self, sandbox: Sandbox, error: StageFailed) -> None:
        """Stores the target of the failed stage; `error` then names the command to look at it."""
        if not self._job.plan.options.cache or not self._chain:
            return
        stage = self._job.plan.stages[self.stages]
        key = failed(self._keys[len(self._chain)])
        try:
            sandbox.agent.quiesce(self._deadline.sooner(60, "writing out the failed stage"))
            self._freeze(sandbox, key, f"{stage.type}, failed", network=True)
            path = str(self._job.plan.loaded.path)
            error.command = shlex.join(["particle-os", "shell", path, "--failed"])
        except InfrastructureError as error:
            self._job.note(f"the state of the failed stage cannot be kept: {error.brief}")

    def _freeze(self, sandbox: Sandbox, key: str, label: str, *, network: bool) -> Checkpoint:
        return self._job.checkpoints.keep(
            key,
            sandbox.freeze_scratch(self._job.plan.options.scratch, self._deadline),
            below=self._chain[-1] if self._chain else None,
            label=label,
            network=network,
            work=self._job.work.path,
            recipe=self._job.plan.name,
        )
