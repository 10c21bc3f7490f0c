"""The story of one build, from a recipe to a published image that has been seen to boot."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from particle_os.jobs.execution import UNPACKED, Execution
from particle_os.jobs.plan import Plan
from particle_os.report import page
from particle_os.report.progress import LogSink, Progress
from particle_os.report.results import BuildStatus, Result
from particle_os.sandbox.running import Sandbox
from particle_os.system.workspace import (
    Workspace,
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
        staging = work.adopt_directory(plan.options.output)
        progress.add(LogSink(staging / f"{plan.name}.log"))
        delivery = Delivery(plan.name, staging, plan.options.output)
        run = _Build(plan, progress, work, kept, delivery)
        with _evidence_kept(run):
            run.tell_notes()
            run.find_apt_proxy()
            run.check_host()
            run.make_helper()
            run.choose_accelerator()
            run.make_base()
            run.find_checkpoints()
            run.fetch_base()
            run.check_room()
            with run.sandbox("build", run.delivery.file("raw"), run.layers()) as sandbox:
                run.push_base(sandbox)
                run.push_files(sandbox)
                run.run_stages(sandbox)
                run.list_packages(sandbox)
            run.take_disk(sandbox)
            if run.is_sound():
                run.convert()
                run.boot()
                run.compress()
            result = run.publish()
    cache.prune(cache_directory(), limit=cache.LIMIT_BYTES)
    return result


@contextmanager
def _evidence_kept(run: _Build) -> Iterator[None]:
    """Whatever fails leaves its logs where the user finds them, and says where."""
    try:
        yield
    except ParticleError as error:
        images = []
        if run.plan.options.keep_on_failure:
            images = ["scratch.qcow2", *(image.path for image in run.delivery.images)]
        result = None
        # The images may be what is wrong.
        with suppress(ParticleError, OSError, EOFError):
            result = run.result()
        report = run.report(result, error) if result is not None else ""
        error.log = run.delivery.keep_evidence(result, report, images)
        raise


class _Build(Execution):
    """One build under way: besides the stages, what becomes of the disk."""

    def __init__(
        self,
        plan: Plan,
        progress: Progress,
        work: Workspace,
        kept: Checkpoints,
        delivery: Delivery,
    ) -> None:
        super().__init__(
            plan,
            progress,
            work,
            kept,
            staging=delivery.staging,
            transcript=delivery.file("console.log"),
        )
        self.delivery = delivery
        self.verdicts: list[Verdict] = []
        self.packages: tuple[Package, ...] = ()

    def check_host(self) -> None:
        """What would fail after the stages fails now: firmware that is not installed."""
        if self.plan.options.boot_test:
            for firmware in self.plan.loaded.firmwares:
                firmwares.check(firmware)

    def check_room(self) -> None:
        super().check_room()
        assert self.base is not None
        images = 1 + len(set(self.plan.loaded.disk.formats) - {"raw"})
        need_room(self.delivery.staging, images * UNPACKED * self.base.size(), "the images")

    def list_packages(self, sandbox: Sandbox) -> None:
        """Notes what is installed, for the report."""
        system = sandbox.agent.found(self.deadline).system
        self.packages = system.packages if system is not None else ()

    def take_disk(self, sandbox: Sandbox) -> None:
        if sandbox.written is None or self.checksums is None or not self.stages.all_done:
            raise InfrastructureError("the agent said 'done' before every stage was")
        with self.progress.phase("verify disk"):
            sums = artifact.receive(sandbox.output, sandbox.written, self.checksums)
            self.delivery.add("raw", sandbox.written, sums=sums)

    def is_sound(self) -> bool:
        """Whether its verification has found no error that the recipe does not accept."""
        assert self.verification is not None
        if count := len(self.verification.findings):
            self.progress.note(f"findings in the disk: {count}, the last lines tell")
        return not self.verification.errors

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
        assert self.acceleration is not None
        if not self.plan.options.boot_test:
            return
        image = self.delivery.images[0]
        wanted = self.plan.loaded.recipe.boot_test
        with self.progress.phase("boot test"):
            for firmware in self.plan.loaded.firmwares:
                evidence = Evidence(
                    self.delivery.evidence / firmware,
                    Path("../..") / image.path,
                    plot=self.acceleration.name == "kvm",
                )
                try:
                    verdict = session.boot(
                        self.delivery.file(image.format),
                        self.acceleration,
                        format=artifact.DRIVERS[image.format],
                        firmware=firmware,
                        directory=self.work.path / f"boot-test-{firmware}",
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
        result = self.result()
        assert result is not None
        report = self.report(result)
        if result.status in ("not-booted", "defective"):
            self.delivery.keep_evidence(
                result, report, [image.path for image in self.delivery.images]
            )
        else:
            self.delivery.publish(result, report)
        return result

    def report(self, result: Result, failure: ParticleError | None = None) -> str:
        """What happened, as a page for people."""
        return page.document(
            result.recipe,
            result.boot,
            result=result,
            packages=self.packages,
            evidence=self.delivery.evidence,
            failure=failure,
        )

    def result(self) -> Result | None:
        """What is known now; None when the build has not come to its stages."""
        if self.helper is None or self.acceleration is None or self.base is None:
            return None
        loaded, artifacts = self.plan.loaded, self.delivery.artifacts()
        undecided = any(verdict.status == "infrastructure" for verdict in self.verdicts)
        if not self.stages.all_done or not artifacts or undecided:
            status: BuildStatus = "failed"
        elif self.verification is not None and self.verification.errors:
            status = "defective"
        elif not self.verdicts:
            status = "not-tested"
        else:
            status = "passed" if all(v.passed for v in self.verdicts) else "not-booted"
        return Result(
            particle_os=__version__,
            status=status,
            build_key=self.plan.build_key(self.base, self.helper),
            created=time.time(),
            recipe=self.plan.name,
            recipe_sha256=loaded.files[loaded.path],
            included_sha256=loaded.included,
            base=self.base.reference,
            base_digest=self.base.digest,
            architecture=self.plan.loaded.recipe.architecture,
            source_date=self.plan.options.source_date,
            helper=self.helper_result(),
            apt_proxy=self.apt_proxy.result(),
            stages=self.stages.results,
            artifacts=artifacts,
            verification=self.verification,
            boot=tuple(self.verdicts),
            phases=dict(self.progress.phases),
            controller_peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            notes=tuple(self.notes),
        )
