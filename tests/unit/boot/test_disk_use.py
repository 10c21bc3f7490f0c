"""A kernel that finds no root file system learns which device it lacked, if it lacked one."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from particle_os.boot.disk_use import DiskUse
from particle_os.errors import VmError
from particle_os.vm.devices.hardware import DISK_BUSES, DISKS

FAILURE = "root-not-found", "the console says: ALERT! UUID=1 does not exist"


class Disks:
    """The monitor of a machine, whose disks have done `operations`."""

    operations = 7

    def disk_operations(self, deadline):
        if self.operations is None:
            raise VmError("QEMU has ended")
        return self.operations


def explained(during_kernel, outcome=FAILURE, phase="kernel", disk="nvme"):
    monitor, seen = Disks(), []
    use = DiskUse(
        SimpleNamespace(monitor=monitor, directory=Path("/none")),
        lambda name, seconds: seen.append(name),
    )
    use.phase(phase, 1.0)
    assert seen == [phase]
    monitor.operations = during_kernel
    hardware = SimpleNamespace(disk=disk)
    request = SimpleNamespace(
        variant=SimpleNamespace(hardware=hardware, firmware="bios"),
        image=Path("/none"),
        format="raw",
    )
    return use.explain(outcome, request)


@pytest.mark.parametrize("disk", DISK_BUSES)
def test_a_kernel_that_never_used_the_disk_lacks_its_driver(disk):
    status, message = explained(7, disk=disk)
    assert status == "root-not-found"
    assert message.startswith(FAILURE[1])
    assert DISKS[disk] in message


@pytest.mark.parametrize(
    ("during_kernel", "outcome", "phase"),
    [
        (8, FAILURE, "kernel"),
        (None, FAILURE, "kernel"),
        (7, FAILURE, "boot loader"),
        (7, ("kernel-panic", "the console says: Kernel panic"), "kernel"),
    ],
)
def test_nothing_is_said_about_a_driver_without_proof(during_kernel, outcome, phase):
    assert explained(during_kernel, outcome, phase) == outcome
