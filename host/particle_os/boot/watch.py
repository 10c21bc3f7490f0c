"""Follows one boot from the firmware to the answer, and says why there is none.

The console can lie, so a sign of failure on it only counts when nothing contradicts it: the boot
does not go on to a later phase, and the system does not answer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from particle_os.boot import screen
from particle_os.boot.channel import Channel
from particle_os.boot.signs import (
    BEFORE_KERNEL,
    COUNTDOWN,
    HANDED_OVER,
    NO_DEVICE,
    PHASE_NAMES,
    PHASES,
    RESETS_AGAIN,
    SIGNS,
    STARTS,
    find_sign,
)
from particle_os.boot.verdict import Status
from particle_os.errors import VmError, printable
from particle_os.system.deadline import Deadline
from particle_os.vm.console import QemuEnded
from particle_os.vm.machine import Machine

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0
# What is on a line may come in pieces.
OVERLAP_BYTES = 1024
EVIDENCE_BYTES = 16384
# A sign counts after so long, and sooner when console and disk fall silent. Once there is an init,
# other programs write there, too, and silence has to last longer.
GRACE_SECONDS = 8.0
SILENCE_SECONDS = 2.0
INIT_SILENCE_SECONDS = 5.0
# After these nothing is read from a disk any more: whoever still reads has lied, unless systemd
# itself has told of its emergency mode.
DEATHS: tuple[Status, ...] = ("kernel-panic", "root-not-found", "init-missing", "emergency-mode")
EMERGENCY = b"it is in emergency or rescue mode"
KERNEL, ANSWER = PHASE_NAMES.index("kernel"), PHASE_NAMES.index("answer")
# Once the system has answered, only its kernel can fail.
AFTER_ANSWER = tuple(status for status, _ in SIGNS if status != "kernel-panic")
# The first line of the answer after the marker, whole: systemd has settled.
SETTLED = re.compile(rb"\nfacts [A-Za-z0-9+/]+=*\r?\n")
# A boot loader that reads nothing, and says and shows nothing, for so long does not go on, if it
# has had the processor for most of that time, or did not want it: a busy host may keep it waiting.
STALL_SECONDS = 8.0
STALL_PROCESSOR_SECONDS = 6.0
IDLE_SHARE = 0.1
# A menu that counts down goes on by itself, but a host that does not let GRUB run while it measures
# its clock, which takes 1 ms (grub-core/kern/i386/tsc_pmtimer.c), makes its seconds minutes. A menu
# that is busy with counting, and does not go on, has the machine started anew, so often.
NEW_STARTS = 2
# An update or a relabelling may restart a new system once or twice.
RESTARTS = 2
# From the end of QEMU's monitor to its own.
END_SECONDS = 5.0
MONITOR_SECONDS = 20.0


@dataclass
class _Suspicion:
    """A sign of failure that has not been contradicted yet."""

    status: Status
    words: bytes
    since: float
    phase: int
    evidence: bytes
    place: str
    # The system itself has told, where nothing else can write.
    told: bool = False


class Watch:
    """One boot under observation; times in seconds since `started` (of the monotonic clock).

    `memory` is the machine's, in bytes. With `console_only` a login prompt ends it.
    """

    def __init__(
        self,
        machine: Machine,
        probe: Channel,
        firmware: Channel,
        *,
        begin: bytes,
        end: bytes,
        emergency: bytes,
        started: float,
        deadline: Deadline,
        on_phase: Callable[[str, float], None],
        memory: int,
        uefi: bool = False,
        console_only: bool = False,
    ) -> None:
        self.phases: dict[str, float] = {}
        self.restarts = 0
        # How often the machine was started anew from here.
        self.new_starts = 0
        self._machine = machine
        self._probe = probe
        self._firmware = firmware
        self._begin = begin
        self._end = end
        self._emergency = emergency
        self._started = started
        self._deadline = deadline
        self._on_phase = on_phase
        self._uefi = uefi
        self._console_only = console_only
        self._phase = -1
        self._window = b""
        self._suspicion: _Suspicion | None = None
        self._dismissed: set[bytes] = set()
        self._resets = 0
        self._counts_down = False
        self._heard = self._acted = self._looked = self._used_disk = time.monotonic()
        self._asked = self._heard
        self._still = screen.StillScreen(machine, memory)
        self._activity: object = None
        self._operations = 0
        self._processor = 0.0
        self._firmware_seen = 0

    def until_answer(self) -> tuple[Status, str] | None:
        """Waits for the whole answer: None then, else why it will not come.

        Raises VmError when QEMU or the host is to blame.
        """
        while True:
            try:
                self._hear(self._machine.console.read(self._slice()))
                found = self._restarted() or self._firmware_says() or self._look()
            except QemuEnded as ended:
                return self._ended(ended)
            except VmError:
                # QEMU's monitor closes a moment before it ends.
                if not self._machine.console.ends_within(END_SECONDS):
                    raise
                continue
            if self._answered():
                return None
            self._hear_of_emergency()
            if found := found or self._weigh() or self._prompted():
                return found
            if time.monotonic() >= self._deadline.at:
                return "timed-out", self._time_out()

    def until_off(self) -> tuple[Status, str] | None:
        """Waits until a system that is told to shut down has done so: None then, else why not.

        Raises VmError when QEMU or the host is to blame.
        """
        while True:
            try:
                self._hear(self._machine.console.read(self._slice()))
                events = self._machine.monitor.events(self._monitor_deadline())
                # Whoever still uses the disk has not panicked.
                self._look()
            except QemuEnded as ended:
                if ended.status != 0:
                    raise
                return None
            except VmError:
                if not self._machine.console.ends_within(END_SECONDS):
                    raise
                continue
            if any(map(_is_reset, events)):
                return "reboot-loop", "the machine restarts"
            if found := self._weigh():
                return found
            if time.monotonic() >= self._deadline.at:
                return "timed-out", f"it takes more than {self._deadline.seconds:.0f} s in all"

    def _slice(self) -> float:
        return max(0.01, min(POLL_SECONDS, self._deadline.at - time.monotonic()))

    def _monitor_deadline(self) -> Deadline:
        return Deadline.after(MONITOR_SECONDS, "QEMU's monitor")

    def _answered(self) -> bool:
        data = self._probe.data
        if self._begin in data:
            self._reach("answer")
        if self._phase == ANSWER and SETTLED.search(data):
            self._reach("checks")
        return self._end in data

    def _hear_of_emergency(self) -> None:
        """A system in emergency mode runs, and whatever reads its disk may go on to do so."""
        if self._emergency not in self._probe.data:
            return
        if self._suspicion is None and EMERGENCY not in self._dismissed:
            now = time.monotonic()
            self._suspicion = _Suspicion(
                "emergency-mode", EMERGENCY, now, self._phase, b"", "system"
            )
        if self._suspicion is not None:
            self._suspicion.told = True

    def _reach(self, name: str) -> None:
        """A phase shows itself; the earlier ones have passed, seen or not."""
        index = PHASE_NAMES.index(name)
        if index <= self._phase:
            return
        self._phase = index
        self.phases[name] = round(time.monotonic() - self._started, 2)
        self._on_phase(name, self.phases[name])
        if self._suspicion is not None and index > self._suspicion.phase:
            self._dismissed.add(self._suspicion.words)
            self._suspicion = None

    def _hear(self, data: bytes) -> None:
        if not data:
            return
        self._heard = time.monotonic()
        text = self._window + data
        self._window = text[-OVERLAP_BYTES:]
        if self._suspicion is not None:
            room = EVIDENCE_BYTES - len(self._suspicion.evidence)
            self._suspicion.evidence += data[: max(0, room)]
        self._phases_in(text)
        self._suspect(text, "console")

    def _phases_in(self, text: bytes) -> None:
        for name, pattern in PHASES[self._phase + 1 :]:
            if pattern.search(text):
                self._reach(name)
        self._counts_down = self._counts_down or COUNTDOWN.search(text) is not None

    def _suspect(self, text: bytes, place: str) -> None:
        if self._suspicion is not None:
            return
        found = find_sign(text, self._passed())
        if found and found[1] not in self._dismissed:
            status, words = found
            now = time.monotonic()
            self._suspicion = _Suspicion(status, words, now, self._phase, text, place)

    def _passed(self) -> tuple[Status, ...]:
        """What cannot fail any more."""
        if self._phase >= ANSWER:
            return AFTER_ANSWER
        return BEFORE_KERNEL if self._phase >= KERNEL else ()

    def _firmware_says(self) -> tuple[Status, str] | None:
        data = self._firmware.data[self._firmware_seen :]
        if data:
            self._reach("firmware")
        if NO_DEVICE.search(data) and self._phase < KERNEL:
            self._look_at_screen()
            # A boot loader that gives up returns to the firmware, which then finds nothing more.
            if self._suspicion is not None:
                return self._believed()
            return "no-bootable-device", "the firmware found no bootable device"
        return None

    def _look(self) -> tuple[Status, str] | None:
        """Asks QEMU what the machine does: processor, screen, disks."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        if self._phase < KERNEL and self._kernel_runs():
            self._reach("kernel")
        self._look_at_screen()
        if self._phase < KERNEL:
            return self._stalled()
        if self._phase < ANSWER and self._silent():
            self._suspect(self._still.failures(self._used_disk, self._monitor_deadline()), "screen")
        return None

    def _kernel_runs(self) -> bool:
        return screen.kernel_runs(self._machine, self._monitor_deadline(), uefi=self._uefi)

    def _look_at_screen(self) -> None:
        shown = screen.text(self._machine, self._monitor_deadline())
        self._phases_in(shown)
        self._suspect(shown, "screen")
        operations = self._machine.monitor.disk_operations(self._monitor_deadline())
        if operations != self._operations:
            self._operations, self._used_disk = operations, time.monotonic()
        activity = (shown, self._picture(), operations, self._heard, len(self._firmware.data))
        if activity != self._activity:
            self._activity = activity
            self._act()

    def _silent(self) -> bool:
        """Whether the kernel says nothing on the serial console."""
        return self._heard - self._started < self.phases.get("kernel", 0) + 2 * LOOK_SECONDS

    def _picture(self) -> bytes | None:
        """What a boot loader shows in graphics mode: a menu that counts down has not stopped."""
        if self._phase >= KERNEL:
            return None
        return screen.picture(self._machine, self._monitor_deadline())

    def _act(self) -> None:
        """The machine has done something."""
        self._acted = time.monotonic()
        self._processor = screen.processor_seconds(self._machine)

    def _restarted(self) -> tuple[Status, str] | None:
        """Notices that the machine has restarted itself, and begins anew then."""
        now = time.monotonic()
        if now - self._asked < POLL_SECONDS:
            return None
        self._asked = now
        events = self._machine.monitor.events(self._monitor_deadline())
        self._resets += sum(map(_is_reset, events))
        # The firmware resets the machine once more, and may have said so before QEMU does. Of who
        # only jumps to its start, QEMU tells no other reset.
        said = self._firmware.data
        starts = said.count(STARTS) - 1 - self.new_starts
        restarts = max(self._resets - said.count(RESETS_AGAIN), starts)
        if restarts <= self.restarts:
            return None
        if self._suspicion is not None:
            return self._believed()
        self.restarts = restarts
        self._begin_anew()
        if self.restarts <= RESTARTS:
            return None
        seconds = time.monotonic() - self._started
        return (
            "reboot-loop",
            f"the machine restarted itself {self.restarts} times within {seconds:.0f} s",
        )

    def _begin_anew(self) -> None:
        self._phase, self._window, self._counts_down = -1, b"", False
        self.phases.clear()
        # An answer counts for one start: what was said before would hide that this one fails.
        self._probe.forget()
        said = self._firmware.data
        begun = said.rfind(RESETS_AGAIN, self._firmware_seen)
        self._firmware_seen = len(said) if begun < 0 else begun
        # The screen still shows the words of the start before.
        self._looked = time.monotonic()
        self._act()

    def _stalled(self) -> tuple[Status, str] | None:
        """A boot loader that has stopped, or waits for somebody to press a key."""
        quiet = time.monotonic() - self._acted
        loader_runs = self._phase >= PHASE_NAMES.index("boot loader")
        handed_over = HANDED_OVER.search(self._firmware.data[self._firmware_seen :])
        if not (loader_runs or handed_over) or quiet < STALL_SECONDS or self._suspicion is not None:
            return None
        used = screen.processor_seconds(self._machine) - self._processor
        if IDLE_SHARE * quiet <= used < STALL_PROCESSOR_SECONDS:
            return None
        busy = used >= STALL_PROCESSOR_SECONDS
        if busy and self._counts_down and self.new_starts < NEW_STARTS:
            self.new_starts += 1
            self._machine.monitor.execute("system_reset", self._monitor_deadline())
            self._begin_anew()
            return None
        if not loader_runs:
            return (
                "boot-loader-failed",
                f"the disk's boot code has said and read nothing for {quiet:.0f} s",
            )
        return (
            "kernel-not-started",
            f"the boot loader has loaded no kernel and has read nothing for {quiet:.0f} s; it "
            "may wait for a key",
        )

    def _weigh(self) -> tuple[Status, str] | None:
        """Whether what is suspected has stood for long enough."""
        if self._suspicion is None:
            return None
        now, since = time.monotonic(), self._suspicion.since
        init_runs = self._phase >= PHASE_NAMES.index("init")
        silence = now - max(self._heard, self._used_disk, since)
        if silence >= (INIT_SILENCE_SECONDS if init_runs else SILENCE_SECONDS):
            return self._believed()
        reads_on = self._used_disk - since > LOOK_SECONDS
        lies = self._suspicion.status in DEATHS and reads_on and not self._suspicion.told
        if now - since < GRACE_SECONDS or lies:
            return None
        return self._believed()

    def _prompted(self) -> tuple[Status, str] | None:
        """A login prompt that nothing has contradicted, where that is all that is asked for."""
        at = self.phases.get("login prompt")
        if not self._console_only or at is None or self._suspicion is not None:
            return None
        if time.monotonic() - self._started - at < GRACE_SECONDS:
            return None
        return (
            "console-only",
            "a login prompt stands on the console; the system itself has not been asked, so that "
            "this is no proof",
        )

    def _believed(self) -> tuple[Status, str]:
        suspicion = self._suspicion
        assert suspicion is not None
        # The line may have been incomplete when it was noticed.
        found = find_sign(suspicion.evidence, self._passed())
        status, words = found or (suspicion.status, suspicion.words)
        said = printable(words.decode("utf-8", "replace"), 300)
        return status, f"the {suspicion.place} says: {said}"

    def _ended(self, ended: QemuEnded) -> tuple[Status, str] | None:
        if ended.status != 0:
            raise ended
        self._probe.wait_for_end(2.0)
        if self._answered():
            return None
        if self._suspicion is not None:
            return self._believed()
        deadline = Deadline.after(2.0, "QEMU's last words")
        if not _shut_itself_down(self._machine.monitor.last_events(deadline)):
            raise ended
        return "powered-off-early", "the machine switched itself off before it answered"

    def _time_out(self) -> str:
        text = f"no answer within {self._deadline.seconds:.0f} s; last seen: "
        last = next(reversed(self.phases), "nothing")
        text += last
        if self.phases:
            times = [*self.phases.values(), time.monotonic() - self._started]
            spans = zip(self.phases, pairwise(times), strict=True)
            took = ", ".join(f"{name} {end - began:.1f} s" for name, (began, end) in spans)
            text += f" ({took} so far)"
        if last == "kernel" and self._silent():
            text += (
                "; the kernel says nothing on the serial console (console=ttyS0), and its screen "
                "shows none of the known failures. The picture of the screen may show more: "
                "--evidence"
            )
        elif last == "login prompt":
            text += (
                "; the system cannot be questioned: its systemd is older than 252, it has another "
                "init or no shell, or its ttyS1 is missing or not the second serial port: "
                "--console-only"
            )
        elif last == "answer":
            text += (
                "; systemd has not settled, since a job does not end, or something else has taken "
                "ttyS1, over which it answers"
            )
        elif last == "checks":
            text += "; a check has not ended"
        if self.restarts:
            text += f"; the machine has restarted itself {self.restarts} times"
        return text


def _is_reset(event: dict[str, Any]) -> bool:
    return event["event"] == "RESET" and bool(event["data"].get("guest"))


def _shut_itself_down(events: list[dict[str, Any]]) -> bool:
    """Whether the guest ended QEMU; without a word of QEMU's it was, with status 0."""
    shutdowns = [event["data"] for event in events if event["event"] == "SHUTDOWN"]
    return all(data.get("guest") for data in shutdowns)
