"""What the host answers and does while the agent runs the stages."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from particle_agent.contract import wire
from particle_agent.stages.software.apt import Apt

from particle_os.apt.depot import Depot
from particle_os.errors import VmError
from particle_os.jobs import artifact
from particle_os.jobs.execution.checkpoint_chain import CheckpointChain
from particle_os.jobs.execution.job import Job
from particle_os.jobs.execution.stage_results import Stages
from particle_os.sandbox import verification
from particle_os.sandbox.running import Sandbox
from particle_os.system.checksum import Checksums
from particle_os.system.deadline import Deadline


@dataclass(frozen=True)
class Written:
    """What the guest says that it wrote: the first `size` bytes of a file.

    The checksums are those from the moment when it said so; `artifact.receive` verifies them.
    """

    path: Path
    size: int
    checksums: Future[Checksums]

    def receive(self) -> Future[Checksums]:
        """Cuts the file to its size once the VM has ended; as `artifact.receive`."""
        return artifact.receive(self.path, self.size, self.checksums)


class Conversation:
    """Listens to the agent, and answers it.

    The agent counts the stages that this job runs, which begin at stage `first` of the plan.
    """

    def __init__(
        self,
        job: Job,
        stages: Stages,
        chain: CheckpointChain,
        sandbox: Sandbox,
        depot: Depot,
        deadline: Deadline,
    ) -> None:
        self._job = job
        self._stages = stages
        self._chain = chain
        self._sandbox = sandbox
        self._depot = depot
        self._deadline = deadline
        self.first = stages.done
        self.findings = verification.FindingCollector()
        self.written: Written | None = None

    def output(self) -> Written:
        """What the last stage wrote. Raises VmError when it has written nothing."""
        if self.written is None:
            raise VmError("the last stage wrote nothing to the output disk")
        return self.written

    def listen(self, event: wire.AgentEvent) -> wire.HostAnswer | None:
        match event:
            case wire.PackagesNeeded():
                return self._answer_packages()
            case wire.Frozen(index=index):
                self._keep_stage(index + self.first)
                return wire.Continue()
            case wire.DiskNeeded() | wire.DiskWritten():
                self._take_disk_event(event)
            case wire.Finding() | wire.Verified():
                self.findings.hear(event)
            case wire.StageStart():
                self._stages.start(event.index + self.first)
            case wire.StageEnd():
                self._stages.finish(event.index + self.first, event)
            case wire.Notice(text=text):
                self._job.note(text)
            case _:
                self._job.show_output(event)
        return None

    def _answer_packages(self) -> wire.HostAnswer:
        """Fetches packages for the stage that runs, whose time this takes."""
        stage = self._stages.running(Apt)
        with self._stages.limited(stage, self._deadline) as deadline:
            request = self._sandbox.agent.packages_request(deadline)
            return self._depot.answer(stage, request, deadline)

    def _keep_stage(self, index: int) -> None:
        """Keeps the state after a stage; the guest says which, and is believed only in order."""
        if index != self._chain.stages or not self._stages.may_be_kept(index):
            raise VmError("the agent says that a stage is complete which is not due")
        stage = self._job.plan.stages[index]
        network = stage.asks_network or self._chain.asked_network
        self._chain.keep(self._sandbox, stage.type, network=network)

    def _take_disk_event(self, event: wire.DiskNeeded | wire.DiskWritten) -> None:
        sandbox = self._sandbox
        sandbox.take_disk_event(event, self._deadline)
        if sandbox.written is not None:
            # A SHA-256 is one serial chain; a processor is free while the guest verifies.
            sums = artifact.checksums(sandbox.output, sandbox.written)
            self.written = Written(sandbox.output, sandbox.written, sums)
