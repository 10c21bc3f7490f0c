"""The wait for a helper VM: a starving VM is waited for, an idle one is not."""

import os

import pytest
from particle_os.errors import DeadlineExceeded, VmError
from particle_os.sandbox import idleness, starting
from particle_os.sandbox.idleness import IDLE_SECONDS, Idleness, UnlessIdle
from particle_os.sandbox.running import BOOT_SECONDS
from particle_os.system import deadline as deadlines
from particle_os.vm.accel import TCG_FACTOR

from ...waiting import Clock

LIMIT = BOOT_SECONDS * TCG_FACTOR


class Qemu:
    """A process that gets `share` of a processor, and waits for one for the share `hungry`."""

    def __init__(self, monkeypatch, *, share, hungry):
        self.clock = Clock()
        self.begun = self.clock.now
        self.share, self.hungry = share, hungry
        monkeypatch.setattr(idleness, "time", self.clock)
        monkeypatch.setattr(deadlines, "time", self.clock)
        watch = Idleness(1, lambda _: self.passed * share, lambda _: self.passed * hungry)
        self.deadline = UnlessIdle.of(self.clock.deadline(LIMIT, "starting the VM"), watch)

    @property
    def passed(self):
        return self.clock.now - self.begun

    def wait(self):
        """Looks every half second, as the console does, until the deadline passes."""
        with pytest.raises(DeadlineExceeded) as ended:
            while True:
                self.deadline.remaining()
                self.clock.sleep(0.5)
        return ended.value


def test_a_vm_that_starves_is_waited_for(monkeypatch):
    qemu = Qemu(monkeypatch, share=0.01, hungry=0.9)
    error = qemu.wait()
    assert qemu.passed >= LIMIT >= 1800
    assert error.brief == (
        "starting the VM took longer than 1800 s; QEMU has had 18 s of processor time"
    )
    assert "--accel kvm" in error.hint


def test_a_vm_that_wants_no_processor_hangs(monkeypatch):
    qemu = Qemu(monkeypatch, share=0.02, hungry=0.001)
    error = qemu.wait()
    assert IDLE_SECONDS <= qemu.passed < IDLE_SECONDS + 2
    assert error.brief == (
        "starting the VM: the VM was idle for 120 s; QEMU has had 2 s of processor time"
    )
    assert "hangs" in error.hint


def test_a_vm_that_is_busy_again_is_not_idle(monkeypatch):
    clock, busy = Clock(), 0.0
    monkeypatch.setattr(idleness, "time", clock)
    watch = Idleness(1, lambda _: busy, lambda _: 0.0)
    clock.sleep(IDLE_SECONDS - 1)
    assert watch.seconds == IDLE_SECONDS - 1
    busy += idleness.BUSY_SECONDS
    assert watch.seconds == 0
    clock.sleep(1)
    assert watch.seconds == 1


def test_the_kernel_counts_the_time_of_a_process():
    assert Idleness(os.getpid()).processor_seconds > 0


def test_a_passed_deadline_is_told_once_and_not_tried_again(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(starting, "time", clock)
    limit = clock.deadline(10)
    late = DeadlineExceeded("late")
    assert starting._worth_a_retry(late, limit)
    assert starting._worth_a_retry(VmError("the VM died"), limit)
    assert not starting._worth_a_retry(ValueError(), limit)
    clock.sleep(10)
    assert not starting._worth_a_retry(late, limit)
