"""Handles the events of the agent while it runs the stages."""

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

# The most reports of a right agent, for each stage: its start, its end, and a need that is not met.
REPORTS_LIMIT = 4


@dataclass(frozen=True)
class Written:
    """The output disk that the guest reports as written: the first `size` bytes of a file.

    The computation of the checksums begins with the report; `artifact.receive` verifies them.
    """

    path: Path
    size: int
    checksums: Future[Checksums]

    def receive(self, deadline: Deadline) -> Future[Checksums]:
        """Truncates the file to `size` once the VM has ended; see `artifact.receive`."""
        return artifact.receive(self.path, self.size, self.checksums, deadline)


class Conversation:
    """Listens to the agent and answers it.

    The agent counts from 0 at the first stage that this job runs, which is stage `first` of the
    plan.
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
        self._written: dict[str, Written] = {}
        self._reports = 0

    def output(self, disk: str = "output") -> Written:
        """The content of an output disk. Raises VmError when the last stage wrote nothing to it."""
        if disk not in self._written:
            raise VmError(f"the last stage wrote nothing to the {disk} disk")
        return self._written[disk]

    def listen(self, event: wire.AgentEvent) -> wire.HostAnswer | None:
        """Handles one event; returns the answer when the agent waits for one."""
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
            case wire.StageStart(index=index):
                self._count_report()
                self._start_stage(index + self.first)
                return wire.Continue()
            case wire.StageEnd(index=index):
                self._count_report()
                self.cut_off()
                self._stages.finish(index + self.first, event)
            case _:
                self._job.show_output(event)
        return None

    def _count_report(self) -> None:
        """Raises VmError for a guest that reports starts and ends of stages without an end."""
        self._reports += 1
        if self._reports > REPORTS_LIMIT * len(self._job.plan.stages):
            raise VmError("the agent reports more starts and ends of stages than there can be")

    def _start_stage(self, index: int) -> None:
        """Gives the VM the network and the secrets of the stage that begins.

        Only the plan decides about them. A stage that is not due gets none.
        """
        stage = self._job.plan.stages[index] if index == self._stages.done else None
        allowed = stage is not None and stage.reaches_network
        self._sandbox.connect_outside(allowed, self._deadline)
        self._stages.start(index)
        if stage is not None and stage.hosts:
            self._sandbox.agent.allow_hosts(stage.hosts, self._deadline)
        if stage is not None and stage.secrets:
            self._sandbox.agent.hold(self._job.plan.secrets_of(stage), self._deadline)

    def cut_off(self) -> None:
        """Takes the network from the VM; the running stage's result gets what the VM reached."""
        try:
            self._sandbox.connect_outside(False, self._deadline)
        finally:
            traffic, hosts = self._sandbox.take_traffic(), self._sandbox.agent.forbid_hosts()
            self._stages.reached(traffic, hosts)

    def _answer_packages(self) -> wire.HostAnswer:
        """Fetches packages for the running stage; the time counts as the stage's own."""
        stage = self._stages.running(Apt)
        with self._stages.limited(stage, self._deadline) as deadline:
            request = self._sandbox.agent.packages_request(deadline)
            return self._depot.answer(stage, request, deadline)

    def _keep_stage(self, index: int) -> None:
        """Stores the state after a stage; the guest must report the stages in order."""
        if index != self._chain.stages or not self._stages.may_be_kept(index):
            raise VmError("the agent reports the end of a stage that is not due")
        stage = self._job.plan.stages[index]
        network = stage.asks_network or self._chain.asked_network
        self._chain.keep(self._sandbox, stage.type, network=network)

    def _take_disk_event(self, event: wire.DiskNeeded | wire.DiskWritten) -> None:
        """Passes the event on; only the last stage, which makes the output, may cause it."""
        self._stages.check_last_runs()
        disk = self._sandbox.take_disk_event(event, self._deadline)
        if isinstance(event, wire.DiskWritten):
            # SHA-256 uses a single processor, so begin while the guest verifies the disk.
            sums = artifact.checksums(disk.path, event.size, self._deadline)
            self._written[event.disk] = Written(disk.path, event.size, sums)
