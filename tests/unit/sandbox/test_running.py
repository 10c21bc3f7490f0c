"""The output disk of a real QEMU without a guest; QEMU itself writes as the guest would."""

from pathlib import Path

import pytest
from particle_agent.contract import wire
from particle_os.errors import InfrastructureError, NotEnoughSpace, StageFailed, VmError
from particle_os.sandbox.running import Sandbox, _disks_blamed
from particle_os.system.gate import Gate
from particle_os.vm.argv import MIB, Disk, MachineSpec
from particle_os.vm.console import ConsoleLog
from particle_os.vm.machine import running

from ...waiting import HANG_SECONDS


@pytest.fixture
def sandbox(tmp_path, soon):
    output = Disk(tmp_path / "output.raw", "raw", "output")
    output.path.write_bytes(bytes(MIB))
    spec = MachineSpec(accelerator="tcg", memory=64 * MIB, cpus=1, disks=(output,))
    transcript = ConsoleLog(tmp_path / "console.log", Gate())
    with running(spec, directory=tmp_path / "vm", transcript=transcript, deadline=soon) as machine:
        other = Disk(Path("unused"), "raw", "unused")
        yield Sandbox(machine, None, other, output, other)


def write(sandbox, byte, deadline):
    """Writes to the output disk through the device that the guest has."""
    monitor = sandbox._machine.monitor
    (device,) = [found["qdev"] for found in monitor.execute("query-block", deadline)
                 if found.get("qdev", "").endswith("virtio-backend")]  # fmt: skip
    monitor.human(f'qemu-io -d {device} "write -P {byte} 4096 512"', deadline)


def test_the_guest_cannot_change_the_disk_that_it_has_reported(sandbox, soon, tmp_path):
    sandbox.take_disk_event(wire.DiskNeeded(size=2 * MIB, content=MIB), soon)
    write(sandbox, 7, soon)
    sandbox.take_disk_event(wire.DiskWritten(size=2 * MIB), soon)
    before = sandbox.output.read_bytes()
    assert before[4096:4608] == b"\x07" * 512
    write(sandbox, 9, soon)
    sandbox._machine.monitor.execute("quit", soon)
    assert sandbox._machine.console.ends_within(HANG_SECONDS)
    assert sandbox.output.read_bytes() == before
    # The late write has taken place: QEMU has put it into the overlay.
    assert b"\x09" * 512 in (tmp_path / "vm/too-late.qcow2").read_bytes()
    assert sandbox.written == len(before) == 2 * MIB


NEEDED, WRITTEN = wire.DiskNeeded(size=MIB, content=0), wire.DiskWritten(size=MIB)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([WRITTEN], "none is due"),
        ([NEEDED, WRITTEN, WRITTEN], "none is due"),
        ([NEEDED, WRITTEN, NEEDED], "after it has written it"),
        ([wire.DiskNeeded(size=MIB + 1, content=0)], "a disk of 1048577 bytes"),
        ([NEEDED, wire.DiskWritten(size=MIB + 1)], "more than the output disk has"),
        ([NEEDED, wire.DiskWritten(size=0)], "more than the output disk has"),
    ],
)
def test_events_about_the_disk_come_once_and_in_order(sandbox, soon, events, message):
    *first, last = events
    for event in first:
        assert sandbox.take_disk_event(event, soon)
    with pytest.raises(VmError, match=message):
        sandbox.take_disk_event(last, soon)


class Disks:
    """A monitor that knows of `error`."""

    def __init__(self, error=None):
        self.error = error

    def disk_error(self, deadline):
        return self.error


def test_a_disk_that_failed_is_the_cause_of_whatever_the_guest_reports():
    found = InfrastructureError("the host cannot write to the VM's disk 'scratch'", hint="do this")
    said = StageFailed("the agent failed: OSError", where="recipe.yml:3", tail=["one", "two"])
    with pytest.raises(InfrastructureError) as raised, _disks_blamed(Disks(found)):
        raise said
    assert raised.value is found
    assert found.where == "recipe.yml:3"
    assert found.tail == ("the agent failed: OSError",)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (None, StageFailed("it failed")),
        (InfrastructureError("a disk"), NotEnoughSpace("the disk of the host is full")),
    ],
)
def test_another_error_stays_as_it_is(known, said):
    with pytest.raises(type(said)) as raised, _disks_blamed(Disks(known)):
        raise said
    assert raised.value is said
