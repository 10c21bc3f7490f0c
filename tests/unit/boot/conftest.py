from types import SimpleNamespace

import pytest
from particle_os.boot.observation import screen, watch
from particle_os.boot.observation.time_limit import TimeLimit
from particle_os.boot.observation.watch import Watch
from particle_os.system import deadline
from particle_os.vm import console

from .played import BEGIN, EMERGENCY, END


@pytest.fixture
def observe(monkeypatch):
    def run(machine, seconds=100.0, console_only=False, on_output=lambda: None):
        for module in (watch, screen, deadline, console):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: machine.now))
        monkeypatch.setattr(screen, "text", lambda m, d, vm: m.shown)
        monkeypatch.setattr(screen, "picture", lambda m, d: m.picture(m.now))
        monkeypatch.setattr(screen, "terminals", lambda m, where: m.search())
        monkeypatch.setattr(screen, "registers_of", lambda m, d, vm: m.registers(m.now))
        monkeypatch.setattr(screen, "kernel_runs", lambda registers, uefi: machine.kernel)
        monkeypatch.setattr(screen, "processor_seconds", lambda m: m.now * m.share)
        watched = Watch(
            machine, machine.probe, machine.firmware, begin=BEGIN, end=END,
            emergency=EMERGENCY, started=0.0,
            deadline=TimeLimit(
                at=seconds, seconds=seconds, what="the boot test",
                waited=lambda: machine.now * machine.starved,
            ),
            on_phase=lambda name, at: None, on_output=on_output, memory=1 << 30,
            console_only=console_only,
        )  # fmt: skip
        return watched, watched.until_answer()

    return run
