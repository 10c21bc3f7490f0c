"""The story of one build, from a recipe to a published image that has been seen to boot."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from particle_agent.contract.inspection import Package

from particle_os import __version__
from particle_os.boot import session
from particle_os.boot.evidence import Evidence
from particle_os.boot.verdict import Verdict
from particle_os.errors import InfrastructureError, ParticleError
from particle_os.jobs import artifact, cache
from particle_os.jobs.checkpoints import Checkpoints
from particle_os.jobs.delivery import Delivery
from particle_os.jobs.execution.conversation import Written
from particle_os.jobs.execution.job import Job
from particle_os.jobs.execution.preparation import Prepared, prepare
from particle_os.jobs.execution.run import UNPACKED, Execution
from particle_os.jobs.plan import BuildOptions, Plan
from particle_os.report import page
from particle_os.report.progress import LogSink, Progress
from particle_os.report.results import ArtifactResult, BuildStatus, Result
from particle_os.sandbox.running import Sandbox
from particle_os.sandbox.verification import Verification
from particle_os.system.workspace import (
    allocated_bytes,
    cache_directory,
    need_room,
    workspace,
)
from particle_os.vm import firmware as firmwares


def build(plan: Plan, progress: Progress) -> Result:
    """Builds the image, boots it, and publishes it; returns what happened.

    `delivery.already_there` tells whether that is needed. Errors in the disk, and a boot test that
    is not passed, are told by the result, and nothing is published then. Raises StageFailed or
    InfrastructureError; what the build wrote is then in NAME.failed beside the images, and the
    images of an earlier build are untouched.
    """
    with workspace() as work, Checkpoints(cache_directory() / "checkpoints") as kept:
        staging = work.adopt_directory(plan.options.output_directory)
        delivery = Delivery(plan.name, staging, plan.options.output_directory)
        progress.add(LogSink(delivery.file("log")))
        job = Job(plan, progress, work, kept, staging, transcript=delivery.file("console.log"))
        with _evidence_kept(delivery, plan.options):
            job.tell_notes()
            check_firmware(plan)
            run = _Build(job, prepare(job), delivery)
            with _failure_reported(run):
                with run.sandbox("build", delivery.file("raw")) as sandbox:
                    disk = run.make_disk(sandbox)
                    run.list_packages(sandbox)
                run.take(disk)
                if run.is_sound(disk):
                    run.convert()
                    run.boot()
                    run.compress()
                result = run.publish()
    cache.prune(cache_directory(), limit=cache.LIMIT_BYTES)
    return result


def check_firmware(plan: Plan) -> None:
    """Raises UsageError now, not after the stages, when the boot test lacks a firmware."""
    if plan.options.boot_test:
        for firmware in plan.loaded.firmwares:
            firmwares.check(firmware)


@contextmanager
def _evidence_kept(delivery: Delivery, options: BuildOptions) -> Iterator[None]:
    """Leaves the logs of a build that fails where the user finds them, and says where."""
    try:
        yield
    except ParticleError as error:
        images = []
        if options.keep_on_failure:
            images = ["scratch.qcow2", *(image.path for image in delivery.images)]
        error.log = delivery.keep_evidence(images)
        raise


@contextmanager
def _failure_reported(run: _Build) -> Iterator[None]:
    """Adds the result and the report to the evidence of a build that fails."""
    try:
        yield
    except ParticleError as error:
        # The images may be what is wrong.
        with suppress(ParticleError, OSError, EOFError):
            run.write_result(error)
        raise


@dataclass(frozen=True)
class _Disk:
    """The disk that the last stage has written, and what is wrong with it."""

    written: Written
    verification: Verification


class _Build(Execution):
    """One build under way: besides the stages, what becomes of the disk."""

    def __init__(self, job: Job, prepared: Prepared, delivery: Delivery) -> None:
        super().__init__(job, prepared)
        self.delivery = delivery
        self.packages: tuple[Package, ...] = ()
        # Empty as long as the disk is not verified, or has not booted.
        self.verification: Verification | None = None
        self.verdicts: list[Verdict] = []

    def check_room(self) -> None:
        super().check_room()
        images = 1 + len(set(self.plan.loaded.disk.formats) - {"raw"})
        need_room(self.delivery.staging, images * UNPACKED * self.base.size(), "the images")

    def make_disk(self, sandbox: Sandbox) -> _Disk:
        """Runs the recipe's stages, and has the disk verified that the last one writes."""
        heard = self.run_stages(sandbox, verify=True)
        found = heard.findings.result().accepting(self.plan.loaded.recipe.accepted_errors)
        self.verification = found
        if heard.written is None or not self.stages.all_done:
            raise InfrastructureError("the agent said 'done' before every stage was")
        return _Disk(heard.written, found)

    def list_packages(self, sandbox: Sandbox) -> None:
        """Notes what is installed, for the report."""
        system = sandbox.agent.found(self.deadline).system
        self.packages = system.packages if system is not None else ()

    def take(self, disk: _Disk) -> None:
        """Makes the disk the first image, now that the VM has ended."""
        with self.progress.phase("verify disk"):
            sums = disk.written.receive()
            self.delivery.add("raw", disk.written.size, sums=sums)

    def is_sound(self, disk: _Disk) -> bool:
        """Whether its verification has found no error that the recipe does not accept."""
        if count := len(disk.verification.findings):
            self.progress.note(f"findings in the disk: {count}, the last lines tell")
        return not disk.verification.errors

    def convert(self) -> None:
        """Makes the other images of the raw disk, which goes away when nobody asked for it."""
        disk = self.plan.loaded.disk
        raw = self.delivery.file("raw")
        for image_format in dict.fromkeys(disk.formats):
            if image_format == "raw":
                continue
            need_room(raw.parent, allocated_bytes(raw), f"the {image_format} image")
            with self.progress.phase(f"convert to {image_format}"):
                artifact.convert(
                    raw,
                    self.delivery.file(image_format),
                    image_format,
                    self.deadline,
                    compressed=image_format == "qcow2" and disk.compress == "zstd",
                )
                self.delivery.add(image_format, raw.stat().st_size)
        if "raw" not in disk.formats:
            self.delivery.drop("raw")

    def boot(self) -> None:
        """Boots the first image under every firmware that the recipe names."""
        if not self.plan.options.boot_test:
            return
        image = self.delivery.images[0]
        wanted = self.plan.loaded.recipe.boot_test
        acceleration = self.prepared.vms.acceleration
        with self.progress.phase("boot test"):
            for firmware in self.plan.loaded.firmwares:
                evidence = Evidence(
                    self.delivery.evidence / firmware,
                    Path("../..") / image.path,
                    plot=acceleration.name == "kvm",
                )
                try:
                    verdict = session.boot(
                        self.delivery.file(image.format),
                        acceleration,
                        format=artifact.DRIVERS[image.format],
                        firmware=firmware,
                        directory=self.job.work.path / f"boot-test-{firmware}",
                        evidence=evidence,
                        checks=wanted.checks,
                        on_phase=self.progress.boot_phase,
                    )
                except session.Undecided as error:
                    self.verdicts.append(error.verdict)
                    raise
                self.verdicts.append(verdict)

    def compress(self) -> None:
        """Compresses the raw disk that has booted."""
        disk = self.plan.loaded.disk
        if disk.compress == "none" or "raw" not in disk.formats:
            return
        raw = self.delivery.file("raw")
        need_room(raw.parent, allocated_bytes(raw), "the compressed image")
        with self.progress.phase("compress raw"):
            sha256 = self.delivery.images[0].result().sha256
            artifact.compress(raw, self.delivery.file("raw.zst"), sha256, self.deadline)
            self.delivery.add("raw", raw.stat().st_size, "zstd")
            self.delivery.drop("raw")

    def publish(self) -> Result:
        with self.progress.phase("checksums"):
            self.delivery.artifacts()
        result = self.write_result()
        if result.status in ("not-booted", "defective"):
            self.delivery.keep_evidence([image.path for image in self.delivery.images])
        else:
            self.delivery.publish(result)
        return result

    def write_result(self, failure: ParticleError | None = None) -> Result:
        """Writes what is known now, for programs and as a page for people."""
        result = self.result()
        report = page.document(
            result.recipe,
            result.boot,
            result=result,
            packages=self.packages,
            evidence=self.delivery.evidence,
            failure=failure,
        )
        self.delivery.write(result, report)
        return result

    def result(self) -> Result:
        artifacts = self.delivery.artifacts()
        loaded, prepared = self.plan.loaded, self.prepared
        return Result(
            particle_os=__version__,
            status=self.status(artifacts),
            build_key=self.plan.build_key(self.base, prepared.vms.helper),
            created=time.time(),
            recipe=self.plan.name,
            recipe_sha256=loaded.files[loaded.path],
            included_sha256=loaded.included,
            base=self.base.reference,
            base_digest=self.base.digest,
            architecture=loaded.recipe.architecture,
            source_date=self.plan.options.source_date,
            helper=prepared.vms.result(),
            apt_proxy=prepared.apt_proxy.result(),
            stages=self.stages.results,
            artifacts=artifacts,
            verification=self.verification,
            boot=tuple(self.verdicts),
            phases=dict(self.progress.phases),
            controller_peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            notes=tuple(self.job.notes),
        )

    def status(self, artifacts: Sequence[ArtifactResult]) -> BuildStatus:
        undecided = any(verdict.status == "infrastructure" for verdict in self.verdicts)
        if not self.stages.all_done or not artifacts or undecided:
            return "failed"
        if self.verification is not None and self.verification.errors:
            return "defective"
        if not self.verdicts:
            return "not-tested"
        return "passed" if all(verdict.passed for verdict in self.verdicts) else "not-booted"
