"""The story of one build, from a recipe to a published image that has been seen to boot."""

from __future__ import annotations

import hashlib
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from particle_agent import wire

from particle_os import __version__, artifact, base, boot_test, helper, process, recipe
from particle_os.artifact import sparse_sha256
from particle_os.base import Base
from particle_os.boot_test import Verdict
from particle_os.deadline import Deadline
from particle_os.errors import (
    InfrastructureError,
    NotEnoughSpace,
    ParticleError,
    StageFailed,
    printable,
)
from particle_os.helper import Helper, Template
from particle_os.packages import Depot
from particle_os.progress import LogSink, Progress, StageFinished, StageStarted
from particle_os.recipe import LoadedRecipe
from particle_os.report import ArtifactResult, HelperResult, Result, StageResult
from particle_os.sandbox import Resources, Sandbox, running_sandbox
from particle_os.vm import accel
from particle_os.vm.accel import Acceleration
from particle_os.workspace import (
    Workspace,
    allocated_bytes,
    cache_directory,
    free_bytes,
    need_room,
    workspace,
)

BUILD_SECONDS = 3600.0
NOTES_LIMIT = 100
SCRATCH_BYTES = 32 << 30
# What the scratch disk of a small system takes, besides its base.
SCRATCH_ESTIMATE = 1 << 30


@dataclass(frozen=True)
class Options:
    """What the command line says about one build; sizes in bytes."""

    output: Path
    base: str | None = None
    accel: accel.Wish = "auto"
    memory: int | None = None
    cpus: int | None = None
    scratch: int = SCRATCH_BYTES
    boot_test: bool = True
    keep_on_failure: bool = False
    template: str = "debian-trixie"
    mirror: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a build will do; made before anything starts."""

    loaded: LoadedRecipe
    options: Options
    template: Template
    base_reference: str
    # Known before the start for a file, and for a suite that was bootstrapped before.
    base: Base | None
    helper: Helper | None

    @property
    def name(self) -> str:
        return self.loaded.recipe.name


def make_plan(recipe_path: Path, options: Options) -> Plan:
    """Validates the recipe and looks up what is there already; starts nothing.

    Raises InvalidDocument or UsageError with all that is wrong.
    """
    loaded = recipe.load(recipe_path)
    template = helper.load_template(options.template)
    if options.mirror:
        template = helper.with_mirror(template, options.mirror)
    reference = options.base or loaded.recipe.base_image
    recipe.check_base_reference(reference)
    relative_to = Path() if options.base else recipe_path.parent
    architecture = loaded.recipe.architecture
    found = base.resolve_file(reference, relative_to, architecture)
    if found is None:
        suite = reference.removeprefix("mmdebstrap:")
        found = base.find_suite(suite, options.mirror, architecture, cache_directory())
    return Plan(
        loaded, options, template, reference, found, helper.find(template, cache_directory())
    )


def build(plan: Plan, progress: Progress) -> Result:
    """Builds the image, boots it, and publishes it; returns what happened.

    A boot test that is not passed is told by the result, and nothing is published then. Raises
    StageFailed or InfrastructureError; what the build wrote is then in NAME.failed beside the
    images, and the images of an earlier build are untouched.
    """
    with workspace() as work:
        staging = work.adopt_directory(plan.options.output)
        progress.add(LogSink(staging / f"{plan.name}.log"))
        run = _Run(plan, progress, work, staging)
        with _evidence_kept(run):
            run.make_helper()
            run.choose_accelerator()
            run.make_base()
            with run.sandbox("build", staging / f"{plan.name}.raw") as sandbox:
                run.push_base(sandbox)
                run.run_stages(sandbox)
            run.take_disk(sandbox)
            run.convert()
            run.boot()
            return run.publish()


@contextmanager
def _evidence_kept(run: _Run) -> Iterator[None]:
    """Whatever fails leaves its logs where the user finds them, and says where."""
    try:
        yield
    except ParticleError as error:
        images = []
        if run.plan.options.keep_on_failure:
            images = ["scratch.qcow2", *(a.path for a in run.artifacts)]
        error.log = run.keep_evidence(images)
        raise


class _Run:
    """One build under way: what has been found out so far, one method a step."""

    def __init__(self, plan: Plan, progress: Progress, work: Workspace, staging: Path) -> None:
        self.plan = plan
        self.progress = progress
        self.work = work
        self.staging = staging
        self.deadline = Deadline.after(BUILD_SECONDS, "the build")
        self.notes: list[str] = []
        self.stages = [
            StageResult(index=i, type=stage.type, status="not-run")
            for i, stage in enumerate(plan.loaded.recipe.stages)
        ]
        self.artifacts: list[ArtifactResult] = []
        self.verdicts: list[Verdict] = []
        self.helper: Helper
        self.acceleration: Acceleration
        self.base: Base

    def note(self, text: str) -> None:
        if len(self.notes) < NOTES_LIMIT:
            self.notes.append(printable(text))
        self.progress.note(text)

    def make_helper(self) -> None:
        with self.progress.phase("helper VM"):
            self.helper = helper.ensure(
                self.plan.template,
                cache=cache_directory(),
                work=self.work,
                log=self.progress.line,
                note=self.progress.note,
            )

    def choose_accelerator(self) -> None:
        with self.progress.phase("accelerator"):
            self.acceleration = accel.choose(
                self.plan.options.accel,
                kernel=self.helper.kernel,
                initrd=self.helper.initrd,
                memory_file=cache_directory() / "kvm.json",
                directory=self.work.path / "kvm-probe",
                note=self.note,
            )
        # Everything is slower under emulation, the whole build too.
        seconds = BUILD_SECONDS * self.acceleration.factor
        self.deadline = Deadline.after(seconds, "the build")

    def make_base(self) -> None:
        with self.progress.phase("base image"):
            if self.plan.base is None:
                self.progress.note(f"making the base image {self.plan.base_reference} (once)")
            self.base = self.plan.base or base.ensure_suite(
                self.plan.base_reference.removeprefix("mmdebstrap:"),
                mirror=self.plan.options.mirror,
                architecture=self.plan.loaded.recipe.architecture,
                cache=cache_directory(),
                work=self.work,
                open_sandbox=self.sandbox,
                listen=self._listen_to_output,
                log=self.progress.line,
            )

    @contextmanager
    def sandbox(self, purpose: str, output: Path) -> Iterator[Sandbox]:
        """A helper VM whose output disk is the file `output`."""
        options, template = self.plan.options, self.plan.template
        resources = Resources(
            memory=options.memory or helper.memory_bytes(template),
            cpus=options.cpus or template.cpus,
            scratch=options.scratch,
        )
        console_log = self.staging / f"{self.plan.name}.console.log"
        with ExitStack() as stack:
            with self.progress.phase(f"start VM for the {purpose}"):
                sandbox = stack.enter_context(
                    running_sandbox(
                        self.helper,
                        self.acceleration,
                        resources,
                        directory=self.work.path / purpose,
                        output=output,
                        transcript=console_log,
                        deadline=self.deadline,
                    )
                )
            yield sandbox

    def push_base(self, sandbox: Sandbox) -> None:
        size = self.base.tarball.stat().st_size
        need_room(self.work.path, SCRATCH_ESTIMATE + 3 * size, "the scratch disk")
        with self.progress.phase("push base"), self.base.tarball.open("rb") as stream:
            sent = sandbox.agent.unpack(stream, self.deadline, self._listen_to_output)
        if f"sha256:{sent}" != self.base.digest:
            raise InfrastructureError(
                f"{self.base.tarball} has changed: it is not {self.base.digest} any more",
                hint="Remove the file from the cache, or do not write it during a build.",
            )

    def run_stages(self, sandbox: Sandbox) -> None:
        """Runs the recipe's stages; a failure is told with its place in the recipe."""

        depot = Depot(
            cache=cache_directory(),
            work=self.work.path,
            disk=sandbox.packages,
            log=self.progress.line,
        )

        def listen(event: wire.Event) -> None:
            if not sandbox.take_disk_event(event, self.deadline):
                self._listen(event)

        try:
            with self.progress.phase("stages"):
                sandbox.agent.run(
                    self.plan.loaded.recipe.stages,
                    hostname=self.plan.name,
                    deadline=self.deadline,
                    listen=listen,
                    packages=depot.answer,
                )
        except ParticleError as error:
            self._place(error)
            if isinstance(error, NotEnoughSpace):
                raise
            if free_bytes(self.work.path) < (64 << 20) or free_bytes(self.staging) < (64 << 20):
                needed = SCRATCH_ESTIMATE + self.base.tarball.stat().st_size
                raise InfrastructureError(
                    f"the disk of the host is full; the build needs about {needed} bytes",
                    where=error.where,
                    tail=error.tail,
                ) from error
            if self.plan.options.keep_on_failure and isinstance(error, StageFailed):
                sandbox.keep_scratch(self.staging / "scratch.qcow2", self.deadline)
            raise

    def _place(self, error: ParticleError) -> None:
        running = next((s for s in self.stages if s.status == "failed"), None)
        if running is not None:
            line = self.plan.loaded.stage_lines[running.index]
            error.where = (
                f"stage {running.index + 1} ({running.type}), {self.plan.loaded.path}:{line}"
            )

    def _listen_to_output(self, event: wire.Event) -> None:
        if isinstance(event, wire.Output):
            self.progress.line(event.text)

    def _listen(self, event: wire.Event) -> None:
        total = len(self.stages)
        self._listen_to_output(event)
        match event:
            case wire.Note(text=text):
                self.note(text)
            case wire.StageStarted(index=index) if 0 <= index < total:
                # Failed until the guest says otherwise.
                self._set_stage(index, "failed", None)
                self.progress.emit(StageStarted(index, total, self.stages[index].type))
            case wire.StageFinished(index=index, seconds=seconds) if 0 <= index < total:
                self._set_stage(index, "done", seconds)
                label = self.stages[index].type
                self.progress.emit(StageFinished(index, total, label, seconds))

    def _set_stage(
        self, index: int, status: Literal["done", "failed"], seconds: float | None
    ) -> None:
        kind = self.stages[index].type
        self.stages[index] = StageResult(index=index, type=kind, status=status, seconds=seconds)

    def take_disk(self, sandbox: Sandbox) -> None:
        if sandbox.written is None or any(stage.status != "done" for stage in self.stages):
            raise InfrastructureError("the agent said 'done' before every stage was")
        with self.progress.phase("verify disk"):
            sha256 = artifact.receive(sandbox.output, sandbox.written)
        self._add_artifact("raw", sandbox.output, sandbox.written.size, sha256)

    def _add_artifact(
        self, image_format: Literal["raw", "qcow2"], path: Path, virtual: int, sha256: str
    ) -> None:
        self.artifacts.append(
            ArtifactResult(
                path=path.name,
                format=image_format,
                bytes=path.stat().st_size,
                virtual_bytes=virtual,
                allocated_bytes=allocated_bytes(path),
                sha256=sha256,
            )
        )

    def convert(self) -> None:
        formats = self.plan.loaded.disk.formats
        raw = self.staging / f"{self.plan.name}.raw"
        if "qcow2" in formats:
            need_room(self.staging, allocated_bytes(raw), "the qcow2 image")
            with self.progress.phase("convert to qcow2"):
                qcow2 = raw.with_suffix(".qcow2")
                artifact.convert(raw, qcow2, self.deadline)
                self._add_artifact("qcow2", qcow2, raw.stat().st_size, sparse_sha256(qcow2))
        if "raw" not in formats:
            raw.unlink()
            self.artifacts = [a for a in self.artifacts if a.format != "raw"]

    def boot(self) -> None:
        """Boots the first image under every firmware that the recipe names."""
        if not self.plan.options.boot_test:
            return
        image = self.artifacts[0]
        wanted = self.plan.loaded.recipe.boot_test
        with self.progress.phase("boot test"):
            self.verdicts.append(
                boot_test.boot(
                    self.staging / image.path,
                    self.acceleration,
                    format=image.format,
                    directory=self.work.path / "boot-test",
                    transcript=self.staging / f"{self.plan.name}.console.log",
                    units=[check.unit for check in wanted.checks],
                )
            )

    def publish(self) -> Result:
        result = self.result()
        self.write_result(result)
        if result.status == "not-booted":
            self.keep_evidence([a.path for a in self.artifacts])
            return result
        output = self.plan.options.output
        files = [self.staging / a.path for a in self.artifacts]
        files += [self.staging / f"{self.plan.name}.{end}" for end in ("log", "console.log")]
        files.append(self.staging / f"{self.plan.name}.result.json")
        artifact.publish(files, output, {a.path: a.sha256 for a in self.artifacts})
        shutil.rmtree(self.failed_directory, ignore_errors=True)
        return result

    @property
    def failed_directory(self) -> Path:
        return self.plan.options.output / f"{self.plan.name}.failed"

    def keep_evidence(self, images: Sequence[str]) -> Path:
        """Moves logs, result and `images` to NAME.failed, which replaces that of the last time."""
        kept = [f"{self.plan.name}.{end}" for end in ("log", "console.log", "result.json")]
        shutil.rmtree(self.failed_directory, ignore_errors=True)
        self.failed_directory.mkdir()
        for name in (*kept, *images):
            if (self.staging / name).exists():
                (self.staging / name).rename(self.failed_directory / name)
        return self.failed_directory / f"{self.plan.name}.log"

    def write_result(self, result: Result) -> None:
        path = self.staging / f"{self.plan.name}.result.json"
        path.write_text(result.model_dump_json(indent=2) + "\n")

    def result(self) -> Result:
        """What is known now."""
        if any(stage.status != "done" for stage in self.stages) or not self.artifacts:
            status: Literal["passed", "not-tested", "not-booted", "failed"] = "failed"
        elif not self.verdicts:
            status = "not-tested"
        else:
            status = "passed" if all(v.passed for v in self.verdicts) else "not-booted"
        recipe_text = self.plan.loaded.path.read_bytes()
        return Result(
            particle_os=__version__,
            status=status,
            recipe=self.plan.name,
            recipe_sha256=hashlib.sha256(recipe_text).hexdigest(),
            base=self.base.reference,
            base_digest=self.base.digest,
            architecture=self.plan.loaded.recipe.architecture,
            helper=HelperResult(
                template=self.plan.template.name,
                key=self.helper.key,
                qemu=process.version(accel.QEMU),
                accelerator=self.acceleration.name,
                acceleration_reason=self.acceleration.reason,
                security_note=self.acceleration.security_note,
            ),
            stages=tuple(self.stages),
            artifacts=tuple(self.artifacts),
            boot=tuple(self.verdicts),
            phases=dict(self.progress.phases),
            controller_peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            notes=tuple(self.notes),
        )
