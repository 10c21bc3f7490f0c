"""A simulated machine with a script of its output."""

from types import SimpleNamespace

from particle_os.errors import VmError
from particle_os.vm.console import QemuEnded

BEGIN, END, EMERGENCY = b"PROBE x", b"PROBE-END x", b"EMERGENCY x"
BOOT = [(0.2, b"SeaBIOS\r\n"), (0.5, b"EXTLINUX 6.04\r\n"), (2, b"[ 0.0] Linux version 6.12\r\n")]
SYSTEMD = [*BOOT, (6, b"Loading, please wait...\r\n"), (9, b"Welcome to Debian\r\n")]
PANIC = b"[ 8.8] Kernel panic - not syncing: Attempted to kill init!"


class Channel:
    data = b""

    def forget(self):
        self.data = b""

    def wait_for_end(self, seconds):
        pass


class Played:
    """A machine whose console prints `said` ((seconds, text) pairs) on a simulated clock.

    Times are in seconds. `answers` is the time of the complete answer, `ends` the time and status
    of QEMU's end, and `restarts` the times of resets by the guest.
    """

    def __init__(self, said=(), answers=None, ends=None, restarts=(), handed_over=0.3, busy=0):
        self.now = 0.0
        self.said = sorted(said)
        self.answers, self.ends, self.restarts = answers, ends, sorted(restarts)
        self.handed_over, self.busy = handed_over, busy
        self.probe, self.firmware = Channel(), Channel()
        self.shown, self.share, self.starved = b"", 1.0, 0.0
        self.terminals, self.search_seconds, self.searches = b"", 0.5, 0
        self.picture = lambda now: None
        # A boot loader that waits sleeps. One that works is in another state at each time.
        self.registers = lambda now: "EIP=0000b7ee HLT=1\nES =0000"
        self.kernel = False
        # The time at which QEMU closes its monitor, a moment before it ends.
        self.closed = float("inf")
        self.console = SimpleNamespace(read=self.read, ends_within=self.ends_within)
        self.after_reset, self.resets = [], 0
        self.monitor = SimpleNamespace(
            events=self.events,
            last_events=self.events,
            disk_operations=self.operations,
            execute=self.execute,
        )

    def read(self, seconds):
        until = self.now + seconds
        if self.ends and self.ends[0] <= until:
            self.now = self.ends[0]
            raise QemuEnded(self.ends[1], [])
        if self.said and self.said[0][0] <= until:
            self.now, text = max(self.now, self.said[0][0]), self.said.pop(0)[1]
        else:
            self.now, text = until, b""
        if self.handed_over is not None and self.now >= self.handed_over:
            self.firmware.data = b"Booting from 0000:7c00\n"
        if self.answers is not None and self.now >= self.answers:
            self.probe.data = BEGIN + b"\n" + END
        return text

    def execute(self, command, deadline):
        assert command == "system_reset"
        self.resets += 1
        self.said = [(self.now + at, text) for at, text in self.after_reset]

    def search(self):
        self.searches += 1
        self.now += self.search_seconds
        return self.terminals

    def ends_within(self, seconds):
        if self.ends is None or self.ends[0] > self.now + seconds:
            return False
        self.now = max(self.now, self.ends[0])
        return True

    def events(self, deadline):
        if self.now >= self.closed:
            raise VmError("QEMU's monitor failed: [Errno 32] Broken pipe")
        due = [at for at in self.restarts if at <= self.now]
        self.restarts = self.restarts[len(due) :]
        shutdown = [{"event": "SHUTDOWN", "data": {"guest": True}}] if self.ends else []
        return [{"event": "RESET", "data": {"guest": True}} for _ in due] + shutdown

    def operations(self, deadline):
        return int(min(self.now, self.busy))
