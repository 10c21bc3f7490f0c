"""Boots an overlay of an image once and observes the system until it answers or fails."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from particle_os.boot import probe, questioning
from particle_os.boot.disk_use import DiskUse
from particle_os.boot.frameworks.image_shell import ImageShell
from particle_os.boot.observation.time_limit import TimeLimit, check_host, waited
from particle_os.boot.observation.verdict import (
    BootProgress,
    CheckResult,
    Observation,
    Outcome,
    Verdict,
)
from particle_os.boot.observation.watch import Watch
from particle_os.boot.request import FIRMWARE_SOCKET, PROBE_SOCKET, BootRequest, Errand
from particle_os.errors import InfrastructureError, NotEnoughSpace, printable
from particle_os.vm.chardev import Chardev, connected
from particle_os.vm.console import TAIL_LINES, LastLine, QemuEnded
from particle_os.vm.machine import Machine, running


class Undecided(InfrastructureError):
    """QEMU or the host failed while an image booted; `verdict` holds the observations so far."""

    def __init__(self, error: InfrastructureError, verdict: Verdict) -> None:
        super().__init__(
            error.brief, hint=error.hint, where=error.where, tail=error.tail, log=error.log
        )
        self.verdict = verdict

    @property
    def qemu_aborted(self) -> bool:
        cause = self.__cause__
        return isinstance(cause, QemuEnded) and cause.status == -signal.SIGABRT


def boot_once(
    request: BootRequest, overlay: Path, directory: Path, *, shut_down: bool
) -> Observation:
    """Boots `overlay`, keeps the evidence, and returns the observation.

    With `shut_down`, a system that passes is shut down. The function makes `directory`. Raises
    Undecided when QEMU or the host fails after the start of a machine.
    """
    directory.mkdir(mode=0o700)
    nonce = secrets.token_hex(16)
    deadline = TimeLimit.after(request.seconds, "the boot test")
    spec = request.machine(overlay, directory, nonce)
    request.evidence.begin(spec, request.format, request.variant.firmware)
    started = time.monotonic()
    with _undecided(request, started) as watches, ExitStack() as stack:
        machine = stack.enter_context(
            running(
                spec,
                directory=directory,
                transcript=request.evidence.console_log,
                deadline=deadline,
            )
        )
        answer, firmware = (
            stack.enter_context(connected(directory, name, deadline, machine.console.is_alive))
            for name in (PROBE_SOCKET, FIRMWARE_SOCKET)
        )
        disk_use = DiskUse(machine, request.on_phase)
        watch = Watch(
            machine,
            answer,
            firmware,
            begin=probe.begin_marker(nonce),
            end=probe.end_marker(nonce),
            emergency=probe.emergency_marker(nonce),
            started=started,
            deadline=deadline.of(machine),
            on_phase=disk_use.phase,
            on_output=LastLine(machine.console.transcript, request.on_line).look,
            memory=spec.memory,
            vm=spec.architecture.vm,
            uefi=spec.uefi is not None,
            console_only=request.console_only,
            most_restarts=request.most_restarts,
        )
        watches.append(watch)
        machine.monitor.run(deadline)
        attempt = _Attempt(request, machine, answer, watch, disk_use, nonce, started)
        return attempt.observe(shut_down=shut_down)


@contextmanager
def _undecided(request: BootRequest, started: float) -> Iterator[list[Watch]]:
    """Turns an error of QEMU or the host into Undecided, with the progress of the yielded watch."""
    watches: list[Watch] = []
    try:
        yield watches
    except InfrastructureError as error:
        observation = Observation(
            status="infrastructure",
            message=printable(error.brief),
            seconds=round(time.monotonic() - started, 3),
            progress=watches[0].progress if watches else BootProgress(),
            console_tail=tuple(request.evidence.console_tail()[-TAIL_LINES:]),
        )
        raise Undecided(error, request.verdict(observation)) from error


@dataclass(frozen=True)
class _Attempt:
    """A booting machine; `started` is a time of the monotonic clock, in seconds."""

    request: BootRequest
    machine: Machine
    answer: Chardev
    watch: Watch
    disk_use: DiskUse
    nonce: str
    started: float

    def observe(self, *, shut_down: bool) -> Observation:
        """Waits until the system answers or fails, and takes the evidence."""
        failure = self.watch.until_answer()
        self.request.evidence.take_screen(self.machine)
        if failure is not None:
            return self._observed(self.disk_use.explain(failure, self.request))
        asked = self.request, self.machine, self.answer, self.nonce
        # Before a second boot, the tests have to wait.
        begin_tests = None if shut_down and self.request.reboots else self._begin_tests
        found = self._observed(*questioning.results(*asked, begin_tests))
        if found.passed and self.request.errand is not None:
            found = self._errand_done(found, self.request.errand)
        if found.passed and shut_down:
            return self._shut_down(found)
        questioning.fetch_files(*asked)
        return found

    def _errand_done(self, found: Observation, errand: Errand) -> Observation:
        """Returns what was found, or the failure of the work in the system."""
        factor = self.request.acceleration.factor
        failure = errand(ImageShell(self.machine, self.answer, factor))
        if failure is None:
            return found
        return self._observed(failure, found.facts, found.checks)

    def _begin_tests(self) -> None:
        """Announces the tests of other frameworks, which can take minutes."""
        self.request.on_phase("tests", self._seconds())

    def _shut_down(self, found: Observation) -> Observation:
        self.answer.send(b"poweroff\n")
        failure = self.watch.until_off()
        if failure is None:
            return replace(found, seconds=self._seconds())
        status, message = failure
        outcome = status, f"during shutdown: {message}"
        return self._observed(outcome, found.facts, found.checks)

    def _observed(
        self,
        outcome: Outcome,
        facts: Mapping[str, str] | None = None,
        checks: tuple[CheckResult, ...] = (),
    ) -> Observation:
        status, message = outcome
        passed = status == "passed"
        if not passed:
            self._blame_disk()
            check_host(outcome, waited(self.machine), self._seconds())
        return Observation(
            status=status,
            message=message,
            seconds=self._seconds(),
            progress=self.watch.progress,
            checks=checks,
            facts=facts or {},
            console_tail=() if passed else tuple(self.machine.console.transcript.tail()),
            screen=() if passed else self._screen_lines(),
        )

    def _screen_lines(self) -> tuple[str, ...]:
        vm = self.request.acceleration.architecture.vm
        return tuple(self.request.evidence.screen_lines(self.machine, vm))

    def _blame_disk(self) -> None:
        """Raises the error of a disk of the host, which the guest saw as its own.

        Only a full disk is the host's for sure if the image has a format whose damage looks alike.
        """
        error = self.machine.monitor.disk_error()
        if error and (self.request.format == "raw" or isinstance(error, NotEnoughSpace)):
            raise error

    def _seconds(self) -> float:
        return round(time.monotonic() - self.started, 3)
