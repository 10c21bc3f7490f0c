"""Tests of the machine of a boot test: memory, time limit, and forwarded ports."""

from pathlib import Path

import pytest
from particle_os.architecture import AMD64
from particle_os.boot.evidence import Evidence
from particle_os.boot.machines.limits import MEMORY, memory_for, seconds_for
from particle_os.boot.request import BootRequest
from particle_os.errors import UsageError
from particle_os.recipe.checks.contents import CommandCheck
from particle_os.recipe.checks.network import HttpCheck
from particle_os.recipe.checks.system import MemoryCheck
from particle_os.system.gate import Gate
from particle_os.vm import accel


def test_the_least_memory_that_a_check_allows_is_what_the_machine_has():
    checks = [MemoryCheck(memory="768M"), MemoryCheck(memory="512M")]
    assert memory_for(checks, None) == 512 << 20
    assert memory_for(checks, 256 << 20) == 256 << 20
    assert memory_for([], None) == MEMORY


def test_more_memory_than_a_check_allows_is_refused():
    with pytest.raises(UsageError, match="512 MiB"):
        memory_for([MemoryCheck(memory="512M")], 1 << 30)


def test_what_commands_may_take_is_granted_to_the_boot():
    checks = [CommandCheck(command=("a",)), CommandCheck(command=("b",), timeout=600)]
    assert seconds_for(checks, accel.TCG) - seconds_for([], accel.TCG) == 570


@pytest.mark.parametrize("console_only", [True, False])
def test_only_a_system_that_is_asked_gets_credentials(tmp_path, monkeypatch, console_only):
    request = BootRequest(
        image=tmp_path / "x.raw", format="raw", acceleration=accel.TCG,
        processors=accel.Processors(1, x2apic=False),
        evidence=Evidence(tmp_path, Path("x.raw"), plot=False, gate=Gate()),
        checks=[HttpCheck(http="/", port=8080)], memory=MEMORY, seconds=10,
        on_phase=lambda phase, seconds: None, on_line=lambda line: None,
        console_only=console_only,
    )  # fmt: skip
    monkeypatch.setattr("particle_os.vm.firmware.prepare", lambda *given: given)
    spec = request.machine(tmp_path / "overlay", tmp_path, "0" * 32)
    assert spec.uefi == ("bios", tmp_path, AMD64)
    assert spec.reboots, "a reset must not end the test"
    assert spec.network == "isolated"
    assert bool(spec.credentials) != console_only
    assert [each.guest for each in spec.forwards] == [8080]
    assert [disk.path for disk in spec.disks] == [tmp_path / "overlay"]
    assert spec.disks[0].backing == (), "QEMU opens no file that the overlay names"
