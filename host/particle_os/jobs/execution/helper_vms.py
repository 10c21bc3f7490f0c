"""The helper VMs of one job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from particle_os.jobs.execution import input_disk
from particle_os.jobs.execution.job import Job
from particle_os.jobs.plan import Plan
from particle_os.report.results import HelperResult
from particle_os.sandbox.helper import Helper
from particle_os.sandbox.running import Resources, Sandbox, running_sandbox
from particle_os.sandbox.template import memory_bytes
from particle_os.system import process
from particle_os.system.confinement import landlock_abi
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import cache_directory
from particle_os.vm import accel
from particle_os.vm.accel import Acceleration

BUILD_SECONDS = 3600.0


def resources(plan: Plan) -> Resources:
    """The resources of a VM of this plan; the user's options override the template."""
    return Resources(
        memory=plan.options.memory or memory_bytes(plan.template),
        cpus=plan.options.cpus or plan.template.cpus,
        scratch=plan.options.scratch,
    )


@dataclass(frozen=True)
class HelperVms:
    """Starts helper VMs; each of them ends before the job's `deadline`."""

    job: Job
    helper: Helper
    acceleration: Acceleration
    deadline: Deadline

    @contextmanager
    def start(
        self,
        purpose: str,
        output: Path,
        layers: Sequence[Path] = (),
        more_outputs: Mapping[str, Path] = MappingProxyType({}),
        stages_from: int | None = None,
    ) -> Iterator[Sandbox]:
        """Starts a VM with the output disks, and a scratch disk over `layers`.

        It has the disk that the stages from `stages_from` on, or the base, are read from; with None
        there is no such disk.
        """
        base = None if layers else self.job.plan.base
        inputs = {} if stages_from is None else input_disk.make(self.job, stages_from, base)
        with ExitStack() as stack:
            with self.job.progress.phase(f"start VM for the {purpose}"):
                sandbox = stack.enter_context(
                    running_sandbox(
                        self.helper,
                        self.acceleration,
                        resources(self.job.plan),
                        directory=self.job.work.path / purpose,
                        output=output,
                        transcript=self.job.transcript,
                        deadline=self.deadline,
                        note=self.job.note,
                        layers=layers,
                        more_outputs=more_outputs,
                        inputs=inputs,
                        plain=self.job.plan.options.plain,
                        save_memory=self.job.plan.options.save_memory,
                    )
                )
            yield sandbox

    def result(self) -> HelperResult:
        """The helper and the acceleration, as result.json publishes them."""
        return HelperResult(
            template=self.job.plan.template.name,
            key=self.helper.key,
            qemu=process.version(self.acceleration.architecture.vm.qemu),
            accelerator=self.acceleration.name,
            acceleration_reason=self.acceleration.reason,
            security_note=self.acceleration.security_note,
            landlock=landlock_abi(),
        )


def chosen(job: Job, made: Helper) -> HelperVms:
    """The VMs of a job, with the accelerator that works; their deadline begins."""
    with job.progress.phase("accelerator"):
        acceleration = accel.choose(
            job.plan.options.accel,
            kernel=made.kernel,
            initrd=made.initrd,
            memory_file=cache_directory() / accel.KVM_MEMORY,
            directory=job.work.path / "kvm-probe",
            note=job.note,
            architecture=job.plan.loaded.architecture,
        )
    # Emulation slows the whole build down.
    seconds = BUILD_SECONDS * acceleration.factor
    # The build may last as much longer as the recipe allows its stages.
    granted = sum(stage.timeout or 0 for stage in job.plan.stages)
    return HelperVms(job, made, acceleration, Deadline.after(seconds + granted, "the build"))
