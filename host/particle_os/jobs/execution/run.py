"""What building an image and running a stage alone share: all up to the end of the stages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

from particle_agent.contract import wire
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.software.apt import Apt

from particle_os.apt import proxy as apt_proxy
from particle_os.apt.depot import Depot
from particle_os.apt.proxy import NO_PROXY
from particle_os.base import base
from particle_os.base.base import Base
from particle_os.errors import (
    InfrastructureError,
    NotEnoughSpace,
    ParticleError,
    StageFailed,
    UsageError,
    VmError,
    printable,
)
from particle_os.jobs import artifact
from particle_os.jobs.checkpoints import Checkpoint, Checkpoints, failed
from particle_os.jobs.plan import REFRESH_BASE, Plan
from particle_os.jobs.stage_results import Stages
from particle_os.recipe.attachments import Attachment, NotAttachable
from particle_os.report.progress import Progress
from particle_os.report.results import HelperResult
from particle_os.sandbox import helper, verification
from particle_os.sandbox.helper import Helper
from particle_os.sandbox.running import Resources, Sandbox, running_sandbox
from particle_os.sandbox.verification import Verification
from particle_os.system import process
from particle_os.system.checksum import Checksums
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import Workspace, cache_directory, free_bytes, need_room
from particle_os.vm import accel
from particle_os.vm.accel import Acceleration

BUILD_SECONDS = 3600.0
NOTES_LIMIT = 100
# What the scratch disk of a small system takes, besides its base.
SCRATCH_ESTIMATE = 1 << 30
# To how many times its size a base unpacks, about; stages rarely take away.
UNPACKED = 3


class Execution:
    """The stages of a plan under way: what has been found out so far, one method a step.

    What the VM writes goes into the directory `staging`, its console into the file `transcript`.
    """

    def __init__(
        self,
        plan: Plan,
        progress: Progress,
        work: Workspace,
        kept: Checkpoints,
        *,
        staging: Path,
        transcript: Path,
    ) -> None:
        self.plan = plan
        self.progress = progress
        self.work = work
        self.checkpoints = kept
        self.staging = staging
        self.transcript = transcript
        self.deadline = Deadline.after(BUILD_SECONDS, "the build")
        self.notes: list[str] = []
        self.stages = Stages(plan, progress)
        self.apt_proxy = NO_PROXY
        self.helper: Helper | None = None
        self.acceleration: Acceleration | None = None
        self.base: Base | None = None
        self.keys: list[str] = []
        self.chain: list[Checkpoint] = []
        # Of the disk, when one has been written.
        self.verification: Verification | None = None
        self.checksums: Future[Checksums] | None = None

    def note(self, text: str) -> None:
        if len(self.notes) < NOTES_LIMIT:
            self.notes.append(printable(text))
        self.progress.note(text)

    def tell_notes(self) -> None:
        for note in self.plan.loaded.notes:
            self.note(str(note))
        if self.plan.lacks_security:
            self.note(
                "with --mirror the image has no updates and security suites: a sources stage sets "
                "them"
            )

    def find_apt_proxy(self) -> None:
        self.apt_proxy = apt_proxy.find(self.plan.apt_proxy, os.environ, self.note)

    def make_helper(self) -> None:
        with self.progress.phase("helper VM"):
            self.helper = helper.ensure(
                self.plan.template,
                cache=cache_directory(),
                work=self.work,
                log=self.progress.line,
                note=self.progress.note,
                proxy=self.apt_proxy,
            )
            os.utime(self.helper.root.parent)

    def choose_accelerator(self) -> None:
        assert self.helper is not None
        with self.progress.phase("accelerator"):
            self.acceleration = accel.choose(
                self.plan.options.accel,
                kernel=self.helper.kernel,
                initrd=self.helper.initrd,
                memory_file=cache_directory() / accel.KVM_MEMORY,
                directory=self.work.path / "kvm-probe",
                note=self.note,
            )
        # Everything is slower under emulation, the whole build too.
        seconds = BUILD_SECONDS * self.acceleration.factor
        # What the recipe grants a stage is granted to the build, too.
        granted = sum(stage.timeout or 0 for stage in self.plan.stages)
        self.deadline = Deadline.after(seconds + granted, "the build")

    def make_base(self) -> None:
        with self.progress.phase("base image"):
            if self.plan.base is None:
                self.progress.note(f"making the base image {self.plan.base_reference} (once)")
            self.base = self.plan.base or base.ensure_suite(
                self.plan.base_reference.removeprefix("mmdebstrap:"),
                mirror=self.plan.options.mirror,
                architecture=self.plan.loaded.recipe.architecture,
                anew=self.plan.options.refresh == REFRESH_BASE,
                cache=cache_directory(),
                work=self.work,
                open_sandbox=self.sandbox,
                finished=self._keep_base,
                listen=self._listen_to_output,
                log=self.progress.line,
                proxy=self.apt_proxy,
            )

    def _keep_base(self, sandbox: Sandbox, made: Base) -> None:
        """The VM that made the base has it on its scratch disk: no need to unpack it again."""
        if not self.plan.options.cache:
            return
        assert self.helper is not None
        sandbox.agent.quiesce(self.deadline)
        self.checkpoints.keep(
            self.plan.keys(made, self.helper)[0],
            sandbox.freeze_scratch(self.plan.options.scratch, self.deadline),
            below=None,
            label="base",
            network=False,
            work=self.work.path,
        )
        self.checkpoints.settle()

    def find_checkpoints(self) -> None:
        """Looks how much of the work has been done by earlier builds."""
        assert self.base is not None and self.helper is not None
        self.keys = self.plan.keys(self.base, self.helper)
        if not self.plan.options.cache:
            return
        # The last stage writes the disk; that is always done anew.
        usable = min(self.plan.refresh_from, len(self.plan.stages) - 1)
        self.chain = self.checkpoints.longest(
            self.keys[: usable + 1], max_age=self.plan.options.max_age
        )
        # The first is the unpacked base.
        self.stages.cached([checkpoint.meta.created for checkpoint in self.chain[1:]])

    def fetch_base(self) -> None:
        """Downloads what is missing of a container image, unless a checkpoint stands for it."""
        assert self.base is not None
        if self.chain or self.base.is_here():
            return
        with self.progress.phase("fetch base image"):
            self.base.fetch(self.work, self.deadline, self.progress.line)

    def check_room(self) -> None:
        """Raises NotEnoughSpace when what the stages write has no room; before the VM starts."""
        assert self.base is not None
        unpacked = 0 if self.chain else UNPACKED * self.base.size()
        # The last stage writes to another disk.
        if self.stages.done < len(self.plan.stages) - 1:
            unpacked += SCRATCH_ESTIMATE
        need_room(self.work.path, unpacked, "the scratch disk")

    def layers(self) -> list[Path]:
        """The frozen disks that the build continues on."""
        return [checkpoint.disk for checkpoint in self.chain]

    @contextmanager
    def sandbox(self, purpose: str, output: Path, layers: Sequence[Path] = ()) -> Iterator[Sandbox]:
        """A helper VM whose output disk is the file `output`."""
        assert self.helper is not None and self.acceleration is not None
        options, template = self.plan.options, self.plan.template
        resources = Resources(
            memory=options.memory or helper.memory_bytes(template),
            cpus=options.cpus or template.cpus,
            scratch=options.scratch,
        )
        with ExitStack() as stack:
            with self.progress.phase(f"start VM for the {purpose}"):
                sandbox = stack.enter_context(
                    running_sandbox(
                        self.helper,
                        self.acceleration,
                        resources,
                        directory=self.work.path / purpose,
                        output=output,
                        transcript=self.transcript,
                        deadline=self.deadline,
                        layers=layers,
                    )
                )
            yield sandbox

    def push_base(self, sandbox: Sandbox) -> None:
        assert self.base is not None
        if self.chain:
            return
        with self.progress.phase("push base"):
            try:
                self.base.push(sandbox.agent, self.deadline, self._listen_to_output)
            except StageFailed as error:
                where = f"base image {self.base.reference}"
                raise UsageError(
                    error.brief, hint=error.hint, where=where, tail=error.tail
                ) from error
        self._keep_checkpoint(sandbox, "base", network=False)

    def _attachments(self) -> Iterator[Attachment]:
        """The files of the host that the stages to come name."""
        return chain.from_iterable(self.plan.loaded.attachments[self.stages.done :])

    def push_files(self, sandbox: Sandbox) -> None:
        """Hands in the files of the host, and the secrets, that the stages to come name."""
        sandbox.agent.hold(self.plan.secrets_of(self.stages.done), self.deadline)
        for attachment in dict.fromkeys(self._attachments()):
            name = attachment.reference.partition(":")[2]
            try:
                with attachment.open(self.work.path) as data:
                    arrived = sandbox.agent.attach(name, data, self.deadline)
            except (OSError, NotAttachable) as error:
                raise InfrastructureError(f"{attachment.path} cannot be read: {error}") from error
            if arrived != name:
                raise InfrastructureError(
                    f"{attachment.path} has changed since the recipe was read",
                    hint="Do not write the recipe's files during a build.",
                )

    def _keep_checkpoint(self, sandbox: Sandbox, label: str, *, network: bool) -> None:
        """Freezes the scratch disk and keeps it for later builds."""
        if not self.plan.options.cache:
            return
        frozen = sandbox.freeze_scratch(self.plan.options.scratch, self.deadline)
        below = self.chain[-1] if self.chain else None
        key = self.keys[len(self.chain)]
        kept = self.checkpoints.keep(
            key, frozen, below=below, label=label, network=network, work=self.work.path
        )
        self.chain.append(kept)

    def _keep_stage(self, sandbox: Sandbox, index: int) -> None:
        """Keeps the state after a stage; the guest says which, and is believed only in order."""
        if index != len(self.chain) - 1 or not self.stages.may_be_kept(index):
            raise VmError("the agent says that a stage is complete which is not due")
        stage = self.plan.stages[index]
        network = stage.asks_network or self.chain[-1].meta.network
        self._keep_checkpoint(sandbox, stage.type, network=network)

    def _keep_failed(self, sandbox: Sandbox) -> None:
        """Keeps the target as it is where a stage failed, for `particle-os shell --failed`."""
        index = len(self.chain) - 1
        if not self.plan.options.cache or index < 0:
            return
        try:
            sandbox.agent.quiesce(self.deadline.sooner(60, "writing out the failed stage"))
            frozen = sandbox.freeze_scratch(self.plan.options.scratch, self.deadline)
        except InfrastructureError as error:
            self.note(f"the state of the failed stage could not be kept: {error.brief}")
            return
        self.checkpoints.keep(
            failed(self.keys[index + 1]),
            frozen,
            below=self.chain[-1],
            label=f"{self.plan.stages[index].type}, failed",
            network=True,
            work=self.work.path,
        )

    def run_stages(self, sandbox: Sandbox) -> None:
        """Runs the recipe's stages; a failure is told with its place in the recipe."""
        depot = Depot(
            cache=cache_directory(),
            work=self.work.path,
            disk=sandbox.packages,
            log=self.progress.line,
            attachments={a.reference: a.path for a in self._attachments()},
            proxy=self.apt_proxy,
        )
        first = self.stages.done
        writes_disk = isinstance(self.plan.stages[-1], Qemu)
        findings = verification.FindingCollector()

        def listen(event: wire.AgentEvent) -> wire.HostAnswer | None:
            match event:
                case wire.Finding() | wire.Verified():
                    findings.hear(event)
                case wire.PackagesNeeded():
                    stage = self.stages.running(Apt)
                    with self.stages.limited(stage, self.deadline) as deadline:
                        request = sandbox.agent.packages_request(deadline)
                        return depot.answer(stage, request, deadline)
                case wire.Frozen(index=index):
                    self._keep_stage(sandbox, index + first)
                    return wire.Continue()
                case wire.DiskNeeded() | wire.DiskWritten():
                    sandbox.take_disk_event(event, self.deadline)
                    if sandbox.written is not None:
                        # A SHA-256 is one serial chain; a processor is free while the guest
                        # verifies.
                        self.checksums = artifact.checksums(sandbox.output, sandbox.written)
                case wire.StageStart():
                    self.stages.start(event.index + first)
                case wire.StageEnd():
                    self.stages.finish(event.index + first, event)
                case wire.Notice(text=text):
                    self.note(text)
                case _:
                    self._listen_to_output(event)
            return None

        try:
            with self.progress.phase("stages"):
                sandbox.agent.run(
                    self.plan.stages[first:],
                    hostname=self.plan.name,
                    source_date=self.plan.options.source_date,
                    apt_proxy=self.apt_proxy.for_guest(),
                    deadline=self.deadline,
                    listen=listen,
                    checkpoints=self.plan.options.cache,
                    verify=writes_disk,
                )
            if writes_disk:
                accepted = self.plan.loaded.recipe.accepted_errors
                self.verification = findings.result().accepting(accepted)
        except ParticleError as error:
            self.stages.place(error)
            if isinstance(error, NotEnoughSpace):
                raise
            if free_bytes(self.work.path) < (64 << 20) or free_bytes(self.staging) < (64 << 20):
                assert self.base is not None
                needed = SCRATCH_ESTIMATE + self.base.size()
                raise InfrastructureError(
                    f"the disk of the host is full; the build needs about {needed} bytes",
                    where=error.where,
                    tail=error.tail,
                ) from error
            if isinstance(error, StageFailed):
                self._keep_failed(sandbox)
            if self.plan.options.keep_on_failure and isinstance(error, StageFailed):
                sandbox.keep_scratch(self.staging / "scratch.qcow2", self.deadline)
            raise

    def _listen_to_output(self, event: wire.AgentEvent) -> None:
        if isinstance(event, wire.OutputLine):
            self.progress.line(event.text)

    def helper_result(self) -> HelperResult:
        """The VM that the stages ran in."""
        assert self.helper is not None and self.acceleration is not None
        return HelperResult(
            template=self.plan.template.name,
            key=self.helper.key,
            qemu=process.version(accel.QEMU),
            accelerator=self.acceleration.name,
            acceleration_reason=self.acceleration.reason,
            security_note=self.acceleration.security_note,
        )
