"""Runs the stages of a prepared job, for the build of an image and for a stage that runs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from particle_agent.contract.values import Download

from particle_os.apt.depot import Depot
from particle_os.errors import (
    InfrastructureError,
    NotEnoughSpace,
    ParticleError,
    StageFailed,
    UsageError,
    VmError,
)
from particle_os.jobs.execution import downloads
from particle_os.jobs.execution.checkpoint_chain import CheckpointChain
from particle_os.jobs.execution.conversation import Conversation
from particle_os.jobs.execution.job import Job
from particle_os.jobs.execution.preparation import Prepared
from particle_os.jobs.execution.stage_results import Stages
from particle_os.recipe.files.attachments import Attachment, NotAttachable
from particle_os.sandbox.running import Sandbox
from particle_os.system.workspace import RESERVE_BYTES, cache_directory, free_bytes, need_room

# An estimate of what the stages of a small system write to the scratch disk, in bytes.
SCRATCH_ESTIMATE = 1 << 30
# The size of an unpacked base, as an approximate multiple of its archive; stages rarely shrink it.
UNPACKED = 3


class Execution:
    """The stages of a job, with one method for each step."""

    def __init__(self, job: Job, prepared: Prepared) -> None:
        self.job = job
        self.plan = job.plan
        self.progress = job.progress
        self.prepared = prepared
        self.base = prepared.base
        self.deadline = prepared.vms.deadline
        found = prepared.checkpoints
        self.chain = CheckpointChain(job, self.deadline, prepared.keys, found)
        self.stages = Stages(job.plan, job.progress)
        # The first checkpoint is the unpacked base.
        self.stages.cached([checkpoint.meta.created for checkpoint in found[1:]])

    @contextmanager
    def sandbox(
        self,
        purpose: str,
        output: Path,
        more_outputs: Mapping[str, Path] = MappingProxyType({}),
    ) -> Iterator[Sandbox]:
        """Starts a helper VM that can run the next stage; its output disks are these files."""
        self.fetch_base()
        downloads.fetch_all(self._downloads(), self.job, self.deadline)
        self.check_room()
        layers, first = self.chain.layers, self.stages.done
        with self.prepared.vms.start(purpose, output, layers, more_outputs, first) as sandbox:
            if not self.chain.drop_damaged():
                self.push_base(sandbox)
                self.push_files(sandbox)
                yield sandbox
                return
        self.job.note("a checkpoint was damaged and is now removed; its stage runs again")
        self.stages.forget(max(0, self.chain.stages))
        with self.sandbox(f"{purpose}, again", output, more_outputs) as sandbox:
            yield sandbox

    def fetch_base(self) -> None:
        """Downloads missing parts of a container image, unless a checkpoint replaces the base."""
        if self.chain.layers:
            return
        if self.base.drop_damaged():
            self.job.note(
                "layers of the base image were damaged in the cache; they are fetched again"
            )
        if self.base.is_here():
            return
        with self.progress.phase("fetch base image"):
            self.base.fetch(self.job.work, self.deadline, self.progress.line)

    def check_room(self) -> None:
        """Raises NotEnoughSpace when the host has no room for the scratch disk."""
        unpacked = 0 if self.chain.layers else self.unpacked_bytes
        # The last stage writes to the output disk.
        if self.stages.done < len(self.plan.stages) - 1:
            unpacked += SCRATCH_ESTIMATE
        need_room(self.job.work.path, unpacked, "the scratch disk")

    @property
    def unpacked_bytes(self) -> int:
        """An estimate of the unpacked base's size."""
        return UNPACKED * self.base.size()

    def push_base(self, sandbox: Sandbox) -> None:
        """Unpacks the base in the VM, unless a checkpoint replaces it."""
        if self.chain.layers:
            return
        with self.progress.phase("push base"):
            try:
                self.base.push(sandbox.agent, self.deadline, self.job.show_output)
            except StageFailed as error:
                where = f"base image {self.base.reference}"
                raise UsageError(
                    error.brief, hint=error.hint, where=where, tail=error.tail
                ) from error
        self.chain.keep(sandbox, "base", network=False)

    def push_files(self, sandbox: Sandbox) -> None:
        """Copies the host files of the remaining stages into the VM."""
        small = [d for d in self._downloads() if d.reference not in self.plan.input_disks]
        downloads.push(small, sandbox, self.deadline)
        for attachment in dict.fromkeys(self._attachments()):
            if attachment.reference in self.plan.input_disks:
                continue
            name = attachment.reference.partition(":")[2]
            try:
                with attachment.open(self.job.work.path) as data:
                    arrived = sandbox.agent.attach(name, data, self.deadline)
            except (OSError, NotAttachable) as error:
                raise InfrastructureError(f"{attachment.path} cannot be read: {error}") from error
            if arrived != name:
                raise InfrastructureError(
                    f"{attachment.path} has changed since the recipe was read",
                    hint="Do not write the recipe's files during a build.",
                )

    def _attachments(self) -> Iterator[Attachment]:
        """The host files that the remaining stages name."""
        return chain.from_iterable(self.plan.loaded.attachments[self.stages.done :])

    def _downloads(self) -> Sequence[Download]:
        """The files that the remaining stages name by URL."""
        return downloads.of(self.plan.stages[self.stages.done :])

    def run_stages(self, sandbox: Sandbox, *, verify: bool = False) -> Conversation:
        """Runs the remaining stages and returns the conversation with the agent.

        With `verify`, the agent verifies the disk that the last stage writes. An error names the
        failed stage and its place in the recipe.
        """
        conversation = self._conversation(sandbox)
        with self._failures_placed(sandbox, conversation), self.progress.phase("stages"):
            sandbox.agent.run(
                self.plan.stages[conversation.first :],
                hostname=self.plan.name,
                source_date=self.plan.options.source_date,
                plain=self.plan.options.plain,
                apt_proxy=self.prepared.apt_proxy.for_guest(),
                deadline=self.deadline,
                listen=conversation.listen,
                checkpoints=self.plan.options.cache,
                verify=verify,
                architecture=self.plan.loaded.recipe.architecture,
            )
        if not self.stages.all_done:
            raise VmError("the agent said 'done' before every stage was")
        return conversation

    def _conversation(self, sandbox: Sandbox) -> Conversation:
        depot = Depot(
            cache=cache_directory(),
            work=self.job.work.path,
            disk=sandbox.packages,
            log=self.progress.line,
            note=self.job.note,
            attachments={
                **{a.reference: a.path for a in self._attachments()},
                **downloads.paths(self._downloads()),
            },
            sizes={a.reference: a.size for a in self._attachments()},
            proxy=self.prepared.apt_proxy,
            architecture=self.plan.loaded.recipe.architecture,
            shared=self.prepared.shared_packages(lambda: self.stages.done),
        )
        return Conversation(self.job, self.stages, self.chain, sandbox, depot, self.deadline)

    @contextmanager
    def _failures_placed(self, sandbox: Sandbox, conversation: Conversation) -> Iterator[None]:
        """Adds the place in the recipe to errors, and keeps the scratch disk of a failed stage."""
        try:
            yield
        except ParticleError as error:
            with suppress(ParticleError):
                conversation.cut_off()
            self.stages.place(error)
            if not isinstance(error, NotEnoughSpace):
                self._blame_full_disk(error)
            if isinstance(error, StageFailed):
                self.chain.keep_failed(sandbox, error)
                if self.plan.options.keep_on_failure:
                    sandbox.keep_scratch(self.job.staging / "scratch.qcow2", self.deadline)
            raise

    def _blame_full_disk(self, error: ParticleError) -> None:
        """Raises NotEnoughSpace from `error` when the disk of the host is full."""
        # A directory that has vanished is not full.
        places = [p for p in (self.job.work.path, self.job.staging) if p.exists()]
        free = {place: free_bytes(place) for place in places}
        place = min(free, key=lambda place: free[place], default=None)
        if place is None or free[place] >= RESERVE_BYTES:
            return
        needed = SCRATCH_ESTIMATE + self.base.size()
        raise NotEnoughSpace(
            f"no space left in {place}: {free[place]} bytes are free",
            hint=f"The build needs about {needed} bytes: free more, or use another file system.",
            where=error.where,
            # The log has what the guest printed, such as a traceback.
            tail=(error.brief,),
        ) from error
