"""Follows one boot from the firmware to the answer, or finds the reason for a missing answer.

The console can lie, so a sign of failure counts only when nothing contradicts it: the boot reaches
no later phase, and the system does not answer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from particle_os.architecture import AMD64, MachineFacts
from particle_os.boot.observation import screen
from particle_os.boot.observation.events import Resets, is_reset, shut_itself_down
from particle_os.boot.observation.shown_console import ShownConsole
from particle_os.boot.observation.signs import (
    ANSWER,
    COUNTDOWN,
    HANDED_OVER,
    KERNEL,
    NO_DEVICE,
    PHASE_NAMES,
    PHASES,
    PROMPT,
    RESETS_AGAIN,
    reasons_in,
)
from particle_os.boot.observation.suspicion import GRACE_SECONDS, SignPlace, Suspicion
from particle_os.boot.observation.verdict import BootProgress, Outcome, stopped, time_out
from particle_os.errors import VmError
from particle_os.system.deadline import Deadline
from particle_os.vm.chardev import Chardev
from particle_os.vm.console import QemuEnded
from particle_os.vm.machine import Machine

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0
# Searched again with the next data, because a line may arrive in pieces.
OVERLAP_BYTES = 1024
# The complete first line of the answer after the marker: systemd has settled.
SETTLED = re.compile(rb"\nfacts [A-Za-z0-9+/]+=*\r?\n")
# A boot loader may have stopped if it reads, prints and shows nothing for so long. It may also
# work, or a busy host may not let it run, so its processor or its words must show that it waits.
STALL_SECONDS = 8.0
STALL_PROCESSOR_SECONDS = 6.0
# GRUB measures its clock for 1 ms (grub-core/kern/i386/tsc_pmtimer.c). If a busy host interrupts
# that, the seconds of GRUB's countdown last minutes. The watch restarts a machine whose menu counts
# down without end, at most so often.
NEW_STARTS = 2
# A sign counts only once the machine has used the processor for so long after it, or sleeps.
RAN_SECONDS = 1.0
# A new system may restart once or twice, for an update or a relabelling.
RESTARTS = 2
# QEMU ends within so many seconds after it closes its monitor.
END_SECONDS = 5.0
MONITOR_SECONDS = 20.0


class Watch:
    """One boot under observation.

    Times are in seconds since `started`, a time of the monotonic clock. `memory` is the machine's
    memory in bytes. With `console_only`, a login prompt ends the wait. A machine that restarts more
    than `most_restarts` times has failed.
    """

    def __init__(
        self,
        machine: Machine,
        probe: Chardev,
        firmware: Chardev,
        *,
        begin: bytes,
        end: bytes,
        emergency: bytes,
        started: float,
        deadline: Deadline,
        on_phase: Callable[[str, float], None],
        on_output: Callable[[], None],
        memory: int,
        vm: MachineFacts = AMD64.vm,
        uefi: bool = False,
        console_only: bool = False,
        most_restarts: int = RESTARTS,
    ) -> None:
        self.phases: dict[str, float] = {}
        self.restarts = 0
        # The number of restarts by the watch itself.
        self.new_starts = 0
        self._machine = machine
        self._probe = probe
        self._firmware = firmware
        self._begin = begin
        self._end = end
        self._emergency = emergency
        self._started = started
        self._deadline = deadline
        self._on_phase, self._on_output = on_phase, on_output
        self._uefi = uefi
        self._vm = vm
        self._console_only = console_only
        self._most_restarts = most_restarts
        self._phase, self._window, self._counts_down = -1, b"", False
        self._suspicion = Suspicion()
        self._resets = Resets()
        self._heard = self._acted = self._looked = self._used_disk = self._asked = time.monotonic()
        self._still = screen.StillScreen(machine, memory, self._vm)
        self._loader = screen.LoaderProcessor()
        self._shown = ShownConsole()
        self._activity: object = None
        self._prompts = False
        self._reasons: dict[str, None] = {}
        self._operations = self._firmware_seen = 0
        self._processor = self._signed = 0.0

    @property
    def progress(self) -> BootProgress:
        """The machine's progress until now."""
        return BootProgress(dict(self.phases), self.restarts, self.new_starts)

    def until_answer(self) -> Outcome | None:
        """Waits for the complete answer: returns None, or the outcome of a boot that fails.

        Raises VmError when QEMU or the host is to blame.
        """
        while True:
            try:
                self._hear(self._machine.console.read(self._slice()))
                found = self._restarted() or self._firmware_says() or self._look()
            except QemuEnded as ended:
                return self._ended(ended)
            except VmError:
                # QEMU closes its monitor a moment before it ends.
                if not self._machine.console.ends_within(END_SECONDS):
                    raise
                continue
            if self._answered():
                return None
            if self._emergency in self._probe.data:
                self._suspicion.hear_of_emergency(self._phase, time.monotonic())
            if found := found or self._weigh() or self._prompted():
                return found
            if self._deadline.is_over:
                return self._timed_out()

    def until_off(self) -> Outcome | None:
        """Waits for the end of an ordered shutdown: returns None, or the outcome if it fails.

        Raises VmError when QEMU or the host is to blame.
        """
        while True:
            try:
                self._hear(self._machine.console.read(self._slice()))
                events = self._machine.monitor.events(self._monitor_deadline())
                # A machine that still uses the disk has not panicked, so the disk's use is noted.
                self._look()
            except QemuEnded as ended:
                if ended.status != 0:
                    raise
                return None
            except VmError:
                if not self._machine.console.ends_within(END_SECONDS):
                    raise
                continue
            if any(map(is_reset, events)):
                return "reboot-loop", "the machine restarts"
            if found := self._weigh():
                return found
            if self._deadline.is_over:
                return "timed-out", f"the test takes more than {self._deadline.limit}"

    def _slice(self) -> float:
        return max(0.01, min(POLL_SECONDS, self._deadline.left))

    def _monitor_deadline(self) -> Deadline:
        return Deadline.after(MONITOR_SECONDS, "QEMU's monitor")

    def _answered(self) -> bool:
        data = self._probe.data
        if self._begin in data:
            self._reach("answer")
        if self._phase == ANSWER and SETTLED.search(data):
            self._reach("checks")
        return self._end in data

    def _reach(self, name: str) -> None:
        """Records the phase `name`; earlier phases have passed, seen or not."""
        index = PHASE_NAMES.index(name)
        if index <= self._phase:
            return
        if self._phase < KERNEL <= index:
            # Words of the boot loader are no words of the system.
            self._window = b""
        self._phase = index
        self.phases[name] = round(time.monotonic() - self._started, 2)
        self._on_phase(name, self.phases[name])
        self._suspicion.contradict(index)

    def _hear(self, data: bytes) -> None:
        self._on_output()
        if not data:
            return
        self._heard = time.monotonic()
        self._suspicion.add_evidence(data)
        text = self._window + data
        if self._phase < KERNEL:
            data = self._hear_boot_loader(data)
        if self._phase >= KERNEL:
            self._phases_in(self._window + data)
        self._window = (self._window + data)[-OVERLAP_BYTES:]
        self._reasons.update(dict.fromkeys(reasons_in(text)))
        self._suspect(text, "console")

    def _hear_boot_loader(self, data: bytes) -> bytes:
        """Searches the console as a terminal shows it.

        Returns what follows the first words of a kernel, or all of `data` without a kernel.
        """
        for shown, rest in self._shown.feed(data):
            self._phases_in(shown)
            self._suspect(shown, "console")
            if self._phase >= KERNEL:
                return rest
        return data

    def _phases_in(self, text: bytes) -> None:
        for name, pattern in PHASES[self._phase + 1 :]:
            if pattern.search(text):
                self._reach(name)
        self._counts_down = self._counts_down or COUNTDOWN.search(text) is not None

    def _suspect(self, text: bytes, place: SignPlace) -> None:
        known = bool(self._suspicion)
        self._suspicion.look_for_signs(text, place, self._phase, time.monotonic())
        if self._suspicion and not known:
            self._signed = screen.processor_seconds(self._machine)

    def _firmware_says(self) -> Outcome | None:
        data = self._firmware.data[self._firmware_seen :]
        if data:
            self._reach("firmware")
        if NO_DEVICE.search(data) and self._phase < KERNEL:
            self._look_at_screen()
            # A boot loader that gives up returns to the firmware, which finds no other device.
            if self._suspicion:
                return self._suspicion.believed(self._phase)
            return "no-bootable-device", "the firmware found no bootable device"
        return None

    def _look(self) -> Outcome | None:
        """Asks QEMU for the state of the processor, the screen and the disks."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        registers = ""
        if self._phase < KERNEL:
            registers = screen.registers_of(self._machine, self._monitor_deadline(), self._vm)
            if screen.kernel_runs(registers, uefi=self._uefi):
                self._reach("kernel")
        self._look_at_screen()
        if self._phase < KERNEL:
            self._loader.look(registers, screen.processor_seconds(self._machine))
            return self._stalled()
        if self._phase < ANSWER and self._silent():
            self._suspect(self._still.failures(self._used_disk, self._monitor_deadline()), "screen")
        return None

    def _look_at_screen(self) -> None:
        shown = screen.text(self._machine, self._monitor_deadline(), self._vm)
        self._phases_in(shown)
        self._reasons.update(dict.fromkeys(reasons_in(shown)))
        self._suspect(shown, "screen")
        self._prompts = any(map(PROMPT.search, (shown, self._window)))
        operations = self._machine.monitor.disk_operations(self._monitor_deadline())
        if operations != self._operations:
            self._operations, self._used_disk = operations, time.monotonic()
        activity = (shown, self._picture(), operations, self._heard, len(self._firmware.data))
        if activity != self._activity:
            self._activity = activity
            self._act()

    def _silent(self) -> bool:
        """Whether the kernel prints nothing on the serial console."""
        return self._heard - self._started < self.phases.get("kernel", 0) + 2 * LOOK_SECONDS

    def _picture(self) -> bytes | None:
        """Returns the digest of a boot loader's picture, which changes while a menu counts down."""
        if self._phase >= KERNEL:
            return None
        return screen.picture(self._machine, self._monitor_deadline())

    def _act(self) -> None:
        """Records that the machine is active."""
        self._acted = time.monotonic()
        self._loader.forget()
        self._processor = screen.processor_seconds(self._machine)

    def _restarted(self) -> Outcome | None:
        """Notices restarts of the machine, and returns an outcome after too many restarts."""
        now = time.monotonic()
        if now - self._asked < POLL_SECONDS:
            return None
        self._asked = now
        events = self._machine.monitor.events(self._monitor_deadline())
        restarts = self._resets.restarts(events, self._firmware.data, self.new_starts)
        if restarts <= self.restarts:
            return None
        if self._suspicion:
            return self._suspicion.believed(self._phase)
        self.restarts = restarts
        self._begin_again()
        if self.restarts <= self._most_restarts:
            return None
        seconds = time.monotonic() - self._started
        times = f"{self.restarts} times within {seconds:.0f} s"
        return "reboot-loop", f"the machine restarted itself {times}"

    def _begin_again(self) -> None:
        self._phase, self._window, self._counts_down = -1, b"", False
        self.phases.clear()
        self._shown = ShownConsole()
        # An answer of the previous start would hide a failure of the new start.
        self._probe.forget()
        output = self._firmware.data
        begun = output.rfind(RESETS_AGAIN, self._firmware_seen)
        self._firmware_seen = len(output) if begun < 0 else begun
        # The screen still shows the text of the previous start.
        self._looked = time.monotonic()
        self._act()

    def _stalled(self) -> Outcome | None:
        """Returns the outcome if the boot loader has stopped or waits for a key."""
        quiet = time.monotonic() - self._acted
        if quiet < STALL_SECONDS or self._suspicion:
            return None
        used = screen.processor_seconds(self._machine) - self._processor
        busy = used >= STALL_PROCESSOR_SECONDS
        if busy and self._counts_down and self.new_starts < NEW_STARTS:
            self.new_starts += 1
            self._machine.monitor.execute("system_reset", self._monitor_deadline())
            self._begin_again()
            return None
        return self._stopped(quiet) if self._loader.waits or self._prompts else None

    def _timed_out(self) -> Outcome:
        """The outcome at the end. Time is no proof: a boot loader that works may be slow."""
        seconds = time.monotonic() - self._started
        silent = self._silent() and self._phase == KERNEL
        limit = self._deadline.limit
        message = time_out(self.progress, seconds, limit, self._reasons, silent=silent, vm=self._vm)
        return "timed-out", message

    def _stopped(self, quiet: float) -> Outcome | None:
        """Returns the outcome for a boot loader that has stopped, if one has begun."""
        loader_runs = self._phase >= PHASE_NAMES.index("boot loader")
        handed_over = HANDED_OVER.search(self._firmware.data[self._firmware_seen :])
        if self._phase >= KERNEL or not (loader_runs or handed_over):
            return None
        return stopped(quiet, self._reasons, boot_loader=loader_runs)

    def _weigh(self) -> Outcome | None:
        if self._suspicion and not self._has_run():
            return None
        now = time.monotonic()
        return self._suspicion.weigh(self._phase, self._heard, self._used_disk, now)

    def _has_run(self) -> bool:
        """Whether the machine has run since the sign, or sleeps: a busy host may not let it."""
        if screen.processor_seconds(self._machine) - self._signed >= RAN_SECONDS:
            return True
        return screen.sleeps(self._machine, self._monitor_deadline(), self._vm)

    def _prompted(self) -> Outcome | None:
        """Returns the outcome for a stable login prompt if the user asked for no more."""
        at = self.phases.get("login prompt")
        if not self._console_only or at is None or self._suspicion:
            return None
        if time.monotonic() - self._started - at < GRACE_SECONDS:
            return None
        return (
            "console-only",
            "the console shows a login prompt; the system itself was not questioned, so this is "
            "no proof",
        )

    def _ended(self, ended: QemuEnded) -> Outcome | None:
        if ended.status != 0:
            raise ended
        self._probe.wait_for_end(2.0)
        if self._answered():
            return None
        if self._suspicion:
            return self._suspicion.believed(self._phase)
        deadline = Deadline.after(2.0, "QEMU's last words")
        if not shut_itself_down(self._machine.monitor.last_events(deadline)):
            raise ended
        return "powered-off-early", "the machine switched itself off before it answered"
