"""The story of one build, from a recipe to a published image that has been seen to boot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from particle_os.boot.machines.variants import variants
from particle_os.errors import (
    Interrupted,
    NotPublished,
    ParticleError,
    StageFailed,
)
from particle_os.jobs.boot_tests.series import BootSeries
from particle_os.jobs.boot_tests.wanted import BootTestJob, UpdateDisks
from particle_os.jobs.build_result import Observations, write_result
from particle_os.jobs.delivery import Delivery, output_vanished
from particle_os.jobs.execution.job import Job, open_job
from particle_os.jobs.execution.preparation import Prepared, prepare
from particle_os.jobs.execution.run import Execution
from particle_os.jobs.plan import Plan
from particle_os.report.progress import LogSink, Progress
from particle_os.report.results import Result


def build(plan: Plan, progress: Progress) -> Result:
    """Builds the image, boots it, publishes it, and returns the result.

    `delivery.already_there` says whether a build is needed. A disk with errors and a boot test that
    does not pass are in the result; such a build publishes nothing. Raises StageFailed or
    InfrastructureError; the files that the build wrote are then in NAME.failed beside the images,
    and the images of an earlier build are untouched.
    """
    with open_job(plan, progress, plan.options.output_directory) as job:
        delivery = Delivery(plan.name, job.staging, plan.options.output_directory)
        progress.add(LogSink(delivery.file("log")))
        with _evidence_kept(delivery, job):
            job.show_notes()
            check_firmware(plan)
            run = _Build(job, prepare(job), delivery)
            with _failure_reported(run):
                run.make_disk()
                if run.is_sound():
                    run.convert()
                    run.boot()
                    run.compress()
                result = run.publish()
    return result


def check_firmware(plan: Plan) -> None:
    """Raises an error when the boot test lacks a firmware or a TPM: now, not after the stages."""
    if plan.boots:
        loaded = plan.loaded
        variants(
            loaded.firmwares, loaded.recipe.boot_test.devices, architecture=loaded.architecture
        )


@contextmanager
def _evidence_kept(delivery: Delivery, job: Job) -> Iterator[None]:
    """Keeps the logs of a build that fails or is interrupted, and notes their place in the error.

    Finished images that cannot be published are kept, too.
    """
    try:
        yield
    except (ParticleError, OSError) as error:
        if not delivery.staging.exists() and not isinstance(error, NotPublished | StageFailed):
            raise output_vanished(error, delivery.output) from error
        images = [file.path for file in delivery.files]
        if job.plan.options.keep_on_failure:
            images.append("scratch.qcow2")
        elif not isinstance(error, NotPublished):
            images = []
        _keep_evidence(error, delivery, job, images)
        raise
    except Interrupted as interrupted:
        # The log is gone when the images are published, and kept already when they are bad.
        if delivery.file("log").exists():
            with suppress(OSError):
                interrupted.log = delivery.keep_evidence([])
        raise


def _keep_evidence(
    error: ParticleError | OSError, delivery: Delivery, job: Job, images: list[str]
) -> None:
    """Keeps the evidence if possible; a failure of that does not replace `error`."""
    if not delivery.staging.exists():
        if not isinstance(error, NotPublished):
            job.progress.note(f"the logs cannot be kept: {delivery.staging} was removed")
        return
    try:
        log = delivery.keep_evidence(images)
    except OSError as lost:
        job.progress.note(f"the logs of the failed build cannot be kept: {lost}")
        return
    if isinstance(error, NotPublished):
        error.hint = f"{error.hint or ''} The images are in {log.parent}.".strip()
    if isinstance(error, ParticleError):
        error.log = log


@contextmanager
def _failure_reported(run: _Build) -> Iterator[None]:
    """Adds the result and the report to the evidence of a build that fails."""
    try:
        yield
    except ParticleError as error:
        # The failure may be that an image cannot be read, and the result needs its checksum.
        with suppress(ParticleError, OSError, EOFError):
            run.write_result(error)
        raise


class _Build(Execution):
    """A build under way: the stages, and then the images of the disk that they write."""

    def __init__(self, job: Job, prepared: Prepared, delivery: Delivery) -> None:
        super().__init__(job, prepared)
        self.delivery = delivery
        self.disk = self.plan.loaded.disk
        self.seen = Observations()
        self.update_disks: UpdateDisks | None = None
        if self.plan.boots and self.plan.loaded.recipe.boot_test.upgrade:
            self.update_disks = UpdateDisks.inside(job.work.path)

    def check_room(self) -> None:
        """Raises NotEnoughSpace also when the images have no room."""
        super().check_room()
        if self.disk is not None:
            self.delivery.check_room(self.disk, self.unpacked_bytes)

    def make_disk(self) -> None:
        """Runs the stages in a VM, which verifies the disk; the disk becomes the first image.

        A recipe without a disk has other files only.
        """
        more = self.delivery.more_outputs(self.plan.loaded.publishes)
        tested = {} if self.update_disks is None else self.update_disks.outputs
        has_disk = self.disk is not None
        output = self.delivery.file("raw") if has_disk else self.job.work.path / "output"
        with self.sandbox("build", output, more | tested) as sandbox:
            heard = self.run_stages(sandbox, verify=has_disk)
            if has_disk:
                accepted = self.plan.loaded.recipe.accepted_errors
                self.seen.verification = heard.findings.result().accepting(accepted)
                system = sandbox.agent.found(self.deadline).system
                self.seen.packages = system.packages if system is not None else ()
            if self.plan.loaded.makes_commit or self.base.is_commit:
                self.seen.take_commit(sandbox.agent.commit_facts(self.deadline))
        with self.progress.phase("verify disk" if has_disk else "verify files"):
            if has_disk:
                written = heard.output()
                self.delivery.add("raw", written.size, sums=written.receive(self.deadline))
            for name in more:
                found = heard.output(name)
                self.delivery.add_other(name, found.size, found.receive(self.deadline))
            for name in tested:
                heard.output(name).receive(self.deadline)
            if (image := more.get("oci-archive")) is not None:
                self.seen.take_image(image, self)

    def is_sound(self) -> bool:
        """Whether the disk has no error that the recipe does not accept."""
        if count := len(self.seen.findings):
            self.progress.note(f"findings in the disk: {count}; the last lines show them")
        return self.seen.is_sound

    def convert(self) -> None:
        """Makes the images of the other formats."""
        if self.disk is not None:
            self.delivery.convert(self.disk, self.progress, self.deadline)

    def boot(self) -> None:
        """Boots the first image on every machine that the recipe names, and tests its updates."""
        if not self.plan.boots:
            return
        image = self.delivery.images[0]
        loaded, wanted = self.plan.loaded, self.plan.loaded.recipe.boot_test
        acceleration, made = self.prepared.vms.acceleration, self.seen.commit
        disks = self.update_disks
        test = BootTestJob(
            self.delivery.staging / image.path,
            image.driver,
            variants(
                loaded.firmwares,
                wanted.devices,
                loaded.address,
                wanted.user_data,
                loaded.architecture,
            ),
            wanted.checks_of_build(made.checksum if made else None),
            goss=loaded.goss,
            upgrade=replace(disks, commit=made.checksum) if disks and made else None,
            fallback=wanted.fallback,
        )
        series = BootSeries(
            test,
            self.progress,
            self.job.work.path,
            self.delivery.evidence,
            Path("../..") / image.path,
            plot=acceleration.name == "kvm",
            verdicts=self.seen.verdicts,
        )
        with self.progress.phase("boot test"):
            series.run(acceleration)

    def compress(self) -> None:
        """Compresses the raw image, which has booted."""
        if self.disk is not None:
            self.delivery.compress(self.disk, self.progress, self.deadline)

    def publish(self) -> Result:
        """Moves the images to the output directory, or those of a bad disk to NAME.failed."""
        with self.progress.phase("checksums"):
            self.delivery.artifacts(self.deadline)
        result = self.write_result()
        if result.is_good:
            self.delivery.publish(result)
            if result.status == "passed" and self.prepared.sharing is not None:
                self.prepared.sharing.give(self.prepared.keys)
        else:
            log = self.delivery.keep_evidence([file.path for file in self.delivery.files])
            if log.parent != (usual := self.delivery.failed_directory):
                self.progress.note(f"{usual} is no directory; the files are in {log.parent}")
        return result

    def write_result(self, failure: ParticleError | None = None) -> Result:
        """Writes the result and its page as far as the build has come."""
        return write_result(self, self.seen, self.delivery, failure)
