"""Boots an image through a throwaway overlay and asks the running system itself.

Only the nonce of this run, answered on a channel of its own from inside the settled system, is a
pass; what the console says can only explain a failure. The image file is never written.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from particle_os.boot import files, outside, probe
from particle_os.boot.channel import Channel
from particle_os.boot.evidence import Evidence, console_tail
from particle_os.boot.image import check_readable
from particle_os.boot.verdict import CheckResult, Status, Verdict
from particle_os.boot.watch import Watch
from particle_os.errors import InfrastructureError, UsageError, printable
from particle_os.recipe.checks.base import NO_REPLY, QUESTION_SECONDS, Judgement
from particle_os.recipe.checks.contents import CommandCheck
from particle_os.recipe.checks.kinds import Check
from particle_os.recipe.checks.system import MemoryCheck, RebootCheck
from particle_os.system.deadline import Deadline
from particle_os.vm import accel
from particle_os.vm import firmware as firmwares
from particle_os.vm.accel import Acceleration, Processors
from particle_os.vm.argv import MIB, Disk, ImageFormat, MachineSpec
from particle_os.vm.console import TAIL_LINES, QemuEnded
from particle_os.vm.firmware import Firmware
from particle_os.vm.machine import Machine, running
from particle_os.vm.monitor import connect_unix
from particle_os.vm.overlay import make_overlay

__all__ = ["CheckResult", "ImageFormat", "Verdict", "boot"]

MEMORY = 1024 * MIB
# Longer than systemd waits for a missing disk (90 s), and twice that under emulation.
TIMEOUT_SECONDS = {"kvm": 120.0, "tcg": 240.0}
# For what does not count: a journal that takes longer is left out.
FILES_SECONDS = 10.0
PLOT_SECONDS = 45.0
ATTEMPTS = 3
# A Linux that remaps interrupts panics when a busy host lets it miss ticks early in its start.
LOST_TIMER = "timer doesn't work through Interrupt-remapped IO-APIC"
NOT_REBOOTED = CheckResult(name="reboot", passed=False, detail="the first boot did not pass")
UNASKED = Judgement(False, "the system has not answered that")
# These facts stay when a system boots again.
LASTING = ("machine-id", "ssh-host-keys")


class Undecided(InfrastructureError):
    """QEMU or the host failed while an image booted; `verdict` is what was seen until then."""

    def __init__(self, error: InfrastructureError, verdict: Verdict) -> None:
        super().__init__(
            error.brief, hint=error.hint, where=error.where, tail=error.tail, log=error.log
        )
        self.verdict = verdict


@dataclass(frozen=True)
class _Wanted:
    """What is booted and how."""

    image: Path
    format: ImageFormat
    firmware: Firmware
    acceleration: Acceleration
    processors: Processors
    evidence: Evidence
    checks: Sequence[Check]
    memory: int
    seconds: float
    on_phase: Callable[[str, float], None]
    console_only: bool


def _unheard(phase: str, seconds: float) -> None:
    """Nobody wants to know of the phases as they pass."""


def boot(
    image: Path,
    acceleration: Acceleration,
    *,
    format: ImageFormat,  # noqa: A002 - the field's own word
    directory: Path,
    evidence: Evidence,
    firmware: Firmware = "bios",
    checks: Sequence[Check] = (),
    memory: int | None = None,
    timeout: float | None = None,
    on_phase: Callable[[str, float], None] = _unheard,
    console_only: bool = False,
) -> Verdict:
    """Boots `image` under a firmware and returns the verdict; the image is never written.

    `checks` must hold for a pass. `evidence` is kept whatever comes. `memory` is in bytes,
    `timeout` in seconds for each boot. `on_phase` hears of each phase and the seconds until it was
    seen. With `console_only` the system is not asked, and a login prompt is all that is waited for.
    Raises InfrastructureError when QEMU or the host fails: Undecided once a machine is started;
    UsageError for an image whose headers are damaged.
    """
    check_readable(image, format)
    directory.mkdir(mode=0o700)
    evidence.clear()
    limit = min((check.bytes for check in checks if isinstance(check, MemoryCheck)), default=None)
    if memory is not None and limit is not None and memory > limit:
        raise UsageError(
            f"the image is to boot in {limit // MIB} MiB, says a check: --memory is more than that"
        )
    wanted = _Wanted(
        image=image,
        format=format,
        firmware=firmware,
        acceleration=acceleration,
        processors=accel.processors(acceleration),
        evidence=evidence,
        checks=checks,
        memory=memory or limit or MEMORY,
        seconds=timeout or TIMEOUT_SECONDS[acceleration.name] + _granted(checks),
        on_phase=on_phase,
        console_only=console_only,
    )
    # What several emulated processors suffer from says nothing of the image.
    for number in range(1, ATTEMPTS + 1):
        try:
            verdict = _boot_and_reboot(wanted, directory / str(number))
        except InfrastructureError as error:
            if number == ATTEMPTS or not _qemu_aborted(error):
                raise
        else:
            if not wanted.processors.x2apic or LOST_TIMER not in verdict.message:
                break
        wanted = replace(wanted, processors=accel.processors(acceleration, 1))
    return verdict


def _granted(checks: Sequence[Check]) -> int:
    """The seconds that commands may take, beyond what every check may."""
    commands = [check.timeout for check in checks if isinstance(check, CommandCheck)]
    return sum(max(0, seconds - QUESTION_SECONDS) for seconds in commands)


def _qemu_aborted(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, QemuEnded) and cause.status == -signal.SIGABRT


def _boot_and_reboot(wanted: _Wanted, directory: Path) -> Verdict:
    """Boots an overlay of the image, and once more when a check asks for it."""
    directory.mkdir(mode=0o700)
    overlay = directory / "overlay.qcow2"
    make_overlay(overlay, wanted.image, wanted.format, Deadline.after(30, "making the overlay"))
    again = any(isinstance(check, RebootCheck) for check in wanted.checks)
    first = _boot_once(wanted, overlay, directory / "first", shut_down=again)
    if not again:
        return first
    if not first.passed:
        results = [NOT_REBOOTED if each.name == "reboot" else each for each in first.checks]
        return first.model_copy(update={"checks": tuple(results)})
    second = _boot_once(wanted, overlay, directory / "second", shut_down=False)
    return _compared(first, second)


def _compared(first: Verdict, second: Verdict) -> Verdict:
    """The verdict of both boots of one system."""
    seconds = round(first.seconds + second.seconds, 3)
    if second.status in ("passed", "checks-failed", "units-failed"):
        second = _told_apart(first, second)
    if second.status in ("passed", "checks-failed"):
        return second.model_copy(update={"phases": first.phases, "seconds": seconds})
    message = f"at the second boot: {second.message}"
    return second.model_copy(update={"message": message, "seconds": seconds})


def _told_apart(first: Verdict, second: Verdict) -> Verdict:
    """The second boot's verdict, with what a machine that has answered twice shows."""
    told = {name: (first.facts.get(name), second.facts.get(name)) for name in LASTING}
    faults = [f"{name} is unknown" for name, facts in told.items() if None in facts]
    changed = [name for name, (one, two) in told.items() if None not in (one, two) and one != two]
    if changed:
        faults.append(f"{', '.join(changed)} changed")
    detail = "; ".join(faults) or "it came up again, the same machine"
    result = CheckResult(name="reboot", passed=not faults, detail=detail)
    return _with_checks(
        second, [result if check.name == "reboot" else check for check in second.checks]
    )


def _with_checks(verdict: Verdict, results: Sequence[CheckResult]) -> Verdict:
    status, message = _judge(verdict.facts, results)
    return verdict.model_copy(
        update={"checks": tuple(results), "status": status, "message": message}
    )


def _boot_once(wanted: _Wanted, overlay: Path, directory: Path, *, shut_down: bool) -> Verdict:
    directory.mkdir(mode=0o700)
    nonce = secrets.token_hex(16)
    deadline = Deadline.after(wanted.seconds, "the boot test")
    spec = MachineSpec(
        accelerator=wanted.acceleration.name,
        memory=wanted.memory,
        cpus=wanted.processors.count,
        x2apic=wanted.processors.x2apic,
        disks=(Disk(overlay, "qcow2", "image"),),
        uefi=firmwares.prepare(wanted.firmware, directory),
        network="isolated",
        forwards=outside.ports(wanted.checks),
        reboots=True,
        credentials={} if wanted.console_only else probe.credentials(nonce, wanted.checks),
        probe_socket="probe.sock",
        firmware_socket="firmware.sock",
    )
    wanted.evidence.begin(spec, wanted.format, wanted.firmware)
    transcript = wanted.evidence.console
    started = time.monotonic()
    with ExitStack() as stack:
        seen = stack.enter_context(_what_was_seen(wanted, started))
        machine = stack.enter_context(
            running(spec, directory=directory, transcript=transcript, deadline=deadline)
        )
        channels = []
        for name in (spec.probe_socket, spec.firmware_socket):
            assert name is not None
            connection = connect_unix(directory, name, deadline, machine.console.is_alive)
            channels.append(Channel(connection))
            stack.callback(channels[-1].close)
        answer, firmware = channels
        watch = Watch(
            machine,
            answer,
            firmware,
            begin=probe.begin_marker(nonce),
            end=probe.end_marker(nonce),
            emergency=probe.emergency_marker(nonce),
            started=started,
            deadline=deadline,
            on_phase=wanted.on_phase,
            memory=spec.memory,
            uefi=spec.uefi is not None,
            console_only=wanted.console_only,
        )
        seen.append(watch)
        failure = watch.until_answer()
        wanted.evidence.take_screen(machine)
        verdict = Verdict(
            status="timed-out",
            firmware=wanted.firmware,
            seconds=0,
            message="",
            phases=watch.phases,
            restarts=watch.restarts,
            new_starts=watch.new_starts,
            console_tail=tuple(machine.console.transcript.tail()),
        )
        if failure is not None:
            status, message = failure
            verdict = verdict.model_copy(update={"status": status, "message": message})
        else:
            facts = probe.facts(answer.data, nonce)
            results = _results(wanted.checks, answer.data, nonce, machine)
            verdict = _with_checks(verdict.model_copy(update={"facts": facts}), results)
        if verdict.passed:
            verdict = verdict.model_copy(update={"console_tail": ()})
            if shut_down:
                answer.send(b"poweroff\n")
                if (failure := watch.until_off()) is not None:
                    verdict = verdict.model_copy(
                        update={
                            "status": failure[0],
                            "message": f"while it shuts down: {failure[1]}",
                            "console_tail": tuple(machine.console.transcript.tail()),
                        }
                    )
        verdict = verdict.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
        if failure is None and not (shut_down and verdict.passed):
            seconds = FILES_SECONDS + (PLOT_SECONDS if wanted.evidence.plot else 0)
            limit = Deadline.after(seconds * wanted.acceleration.factor, "the journal")
            files.fetch(
                machine,
                answer,
                nonce,
                wanted.evidence.directory,
                limit,
                with_plot=wanted.evidence.plot,
            )
        return verdict


@contextmanager
def _what_was_seen(wanted: _Wanted, started: float) -> Iterator[list[Watch]]:
    """Has an error of QEMU or the host tell what was seen until then, by who watched."""
    watches: list[Watch] = []
    try:
        yield watches
    except InfrastructureError as error:
        verdict = Verdict(
            status="infrastructure",
            firmware=wanted.firmware,
            seconds=round(time.monotonic() - started, 3),
            message=printable(error.brief),
            phases=watches[0].phases if watches else {},
            restarts=watches[0].restarts if watches else 0,
            new_starts=watches[0].new_starts if watches else 0,
            console_tail=tuple(console_tail(wanted.evidence.console)[-TAIL_LINES:]),
        )
        raise Undecided(error, verdict) from error


def _results(
    checks: Sequence[Check], data: bytes, nonce: str, machine: Machine
) -> list[CheckResult]:
    results = []
    for check, replies in zip(checks, probe.replies(data, nonce, checks), strict=True):
        found = UNASKED if NO_REPLY in replies else check.judge(replies)
        if found.holds:
            deadline = Deadline.after(2 * check.seconds, check.name)
            found = outside.reach(check, machine.monitor, deadline) or found
        results.append(_result(check, found))
    return results


def _result(check: Check, found: Judgement) -> CheckResult:
    name, detail = printable(check.name, 200), printable(found.detail.replace("\n", " / "))
    return CheckResult(name=name, passed=found.holds, detail=detail)


def _judge(facts: dict[str, str], results: Sequence[CheckResult]) -> tuple[Status, str]:
    state = facts.get("state", "")
    if state == "maintenance":
        return "emergency-mode", "the system itself says that it is in emergency or rescue mode"
    bad = {how: facts.get(how, "").split() for how in ("failed", "crash-looping")}
    if named := [f"{how} units: {', '.join(units)}" for how, units in bad.items() if units]:
        return "units-failed", "; ".join(named)
    if state != "running":
        return "units-failed", f"systemd says '{state}', not 'running'"
    if wrong := [f"{each.name}: {each.detail}" for each in results if not each.passed]:
        return "checks-failed", "; ".join(wrong)
    return "passed", f"{facts.get('system') or 'the system'} is up, no unit failed"
