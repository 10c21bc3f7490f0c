"""Inspects disk images and base images in a helper VM; the host never parses an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from particle_agent.contract import wire
from particle_agent.contract.inspection import SERIAL, Inspection

from particle_os.base.model import Base
from particle_os.report.progress import Progress
from particle_os.sandbox import helper
from particle_os.sandbox.helper import Helper
from particle_os.sandbox.running import Resources, Sandbox, running_sandbox
from particle_os.sandbox.template import Template, memory_bytes
from particle_os.sandbox.verification import FindingCollector, Verification
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import Workspace, cache_directory
from particle_os.vm.accel import Acceleration
from particle_os.vm.argv import REFERRING, Disk, ImageFormat

SECONDS = 600.0
SCRATCH_BYTES = 32 << 30


class Inspector:
    """Inspects images and bases, each in a helper VM of its own."""

    def __init__(
        self,
        template: Template,
        made: Helper,
        acceleration: Acceleration,
        work: Workspace,
        progress: Progress,
    ) -> None:
        self._template = template
        self._helper = made
        self._acceleration = acceleration
        self._work = work
        self._progress = progress
        self._deadline = Deadline.after(SECONDS * acceleration.factor, "the inspection")

    def image(self, path: Path, driver: ImageFormat) -> Inspection:
        """The contents of a disk image, which is opened read-only with the QEMU driver `driver`."""
        with self._sandbox(_inspected(path, driver)) as sandbox, self._progress.phase("inspect"):
            return sandbox.agent.inspect("disk", self._deadline, self._listen)

    def verify(self, path: Path, driver: ImageFormat) -> tuple[Inspection, Verification]:
        """The contents of a disk image, and the findings of its verification."""
        findings = FindingCollector()

        def listen(event: wire.AgentEvent) -> None:
            if not findings.hear(event):
                self._listen(event)

        with self._sandbox(_inspected(path, driver)) as sandbox:
            with self._progress.phase("inspect"):
                found = sandbox.agent.inspect("disk", self._deadline, self._listen)
            with self._progress.phase("verify"):
                sandbox.agent.verify(self._deadline, listen)
        return found, findings.result()

    def base(self, base: Base) -> Inspection:
        """The contents of a base image."""
        if not base.is_here():
            with self._progress.phase("fetch base image"):
                base.fetch(self._work, self._deadline, self._progress.line)
        inputs = {}
        if base.is_commit:
            inputs = {wire.INPUT_DISK: self._work.path / "input.raw"}
            base.write_disk(inputs[wire.INPUT_DISK])
        with self._sandbox(None, inputs) as sandbox:
            with self._progress.phase("push base"):
                base.push(sandbox.agent, self._deadline, self._listen)
            with self._progress.phase("inspect"):
                return sandbox.agent.inspect("target", self._deadline, self._listen)

    @contextmanager
    def _sandbox(
        self, inspected: Disk | None, inputs: Mapping[str, Path] = MappingProxyType({})
    ) -> Iterator[Sandbox]:
        resources = Resources(
            memory=memory_bytes(self._template),
            cpus=self._template.cpus,
            scratch=SCRATCH_BYTES,
        )
        directory = self._work.path / "inspect"
        with running_sandbox(
            self._helper,
            self._acceleration,
            resources,
            directory=directory,
            output=self._work.path / "output",
            transcript=self._progress.console_log(self._work.path),
            deadline=self._deadline,
            note=self._progress.note,
            inspected=inspected,
            inputs=inputs,
        ) as sandbox:
            yield sandbox

    def _listen(self, event: wire.AgentEvent) -> None:
        if isinstance(event, wire.OutputLine | wire.Notice):
            self._progress.line(event.text)


def open_inspector(
    template: Template, acceleration: Acceleration, work: Workspace, progress: Progress
) -> Inspector:
    """An inspector; builds its helper unless the cache has it."""
    made = helper.ensure(
        template,
        cache=cache_directory(),
        work=work,
        log=progress.line,
        note=progress.note,
    )
    return Inspector(template, made, acceleration, work, progress)


def _inspected(path: Path, driver: ImageFormat) -> Disk:
    backing = () if driver in REFERRING else None
    return Disk(path.resolve(), driver, SERIAL, read_only=True, backing=backing)
