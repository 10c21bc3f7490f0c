"""The output disk of a real QEMU without a guest; QEMU itself writes as the guest would."""

from pathlib import Path

import pytest
from particle_agent.contract import wire
from particle_os.errors import VmError
from particle_os.sandbox.running import Sandbox
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
        yield Sandbox(machine, None, other, other, [output])


def write(sandbox, byte, deadline):
    """Writes to the output disk through the device that the guest has."""
    monitor = sandbox._machine.monitor
    (device,) = [found["qdev"] for found in monitor.execute("query-block", deadline)
                 if found.get("qdev", "").endswith("virtio-backend")]  # fmt: skip
    monitor.human(f'qemu-io -d {device} "write -P {byte} 4096 512"', deadline)


def test_the_guest_cannot_change_the_disk_that_it_has_reported(
    sandbox, soon, tmp_path, monkeypatch
):
    overlays, plain = [], sandbox._machine.monitor.overlay

    def overlay(below, disk, deadline):
        overlays.append(disk)
        return plain(below, disk, deadline)

    monkeypatch.setattr(sandbox._machine.monitor, "overlay", overlay)
    sandbox.take_disk_event(wire.DiskNeeded(size=2 * MIB, content=MIB), soon)
    write(sandbox, 7, soon)
    sandbox.take_disk_event(wire.DiskWritten(size=2 * MIB), soon)
    before = sandbox.outputs["output"].path.read_bytes()
    assert before[4096:4608] == b"\x07" * 512
    write(sandbox, 9, soon)
    sandbox._machine.monitor.execute("quit", soon)
    assert sandbox._machine.console.ends_within(HANG_SECONDS)
    assert sandbox.outputs["output"].path.read_bytes() == before
    # The late write has taken place: QEMU has put it into the overlay.
    assert b"\x09" * 512 in (tmp_path / "vm/too-late-output.qcow2").read_bytes()
    assert sandbox.outputs["output"].written == len(before) == 2 * MIB
    assert [disk.backing for disk in overlays] == [()], "it names no other file"


NEEDED, WRITTEN = wire.DiskNeeded(size=MIB, content=0), wire.DiskWritten(size=MIB)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([WRITTEN], "none is due"),
        ([NEEDED, WRITTEN, WRITTEN], "none is due"),
        ([NEEDED, WRITTEN, NEEDED], "after it has written it"),
        ([wire.DiskNeeded(size=MIB + 1, content=0)], "a disk of 1048577 bytes"),
        ([NEEDED, wire.DiskWritten(size=MIB + 1)], "more than the output disk has"),
        ([wire.DiskNeeded(size=MIB, content=0, disk="repository")], "'repository', which it does"),
        ([NEEDED, wire.DiskWritten(size=0)], "more than the output disk has"),
    ],
)
def test_events_about_the_disk_come_once_and_in_order(sandbox, soon, events, message):
    *first, last = events
    for event in first:
        assert sandbox.take_disk_event(event, soon) is sandbox.outputs["output"]
    with pytest.raises(VmError, match=message):
        sandbox.take_disk_event(last, soon)
