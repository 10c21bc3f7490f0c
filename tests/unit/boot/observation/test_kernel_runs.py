"""The registers of a processor show whether a kernel runs, whatever the console shows."""

import pytest
from particle_os.boot.observation import screen

# The parts of `info registers` that count. The addresses are those of a running machine.
ARM64 = "PC={:016x} X00=0000000000000000 X01=0000000000000001\nPSTATE=600003c5 -ZC- EL1h\n"
PC = "EAX=00000000\nEIP=00000000\nIDT=     {:016x} 00000fff\nEFER={:016x}\n"


@pytest.mark.parametrize(
    ("counter", "runs"),
    [(0xFFFF800080F9A8B4, True), (0x13F6C1A10, False), (0, False), (0x40200000, False)],
)
def test_a_kernel_of_arm64_runs_in_the_upper_half(counter, runs):
    """A quiet kernel prints nothing, and a boot loader that waits has the same idle processor."""
    assert screen.kernel_runs(ARM64.format(counter), uefi=True) is runs


@pytest.mark.parametrize(
    ("table", "modes", "uefi", "runs"),
    [
        (0xFFFFFE0000000000, 0xD01, True, True),
        (0x7F000000, 0x500, True, False),
        (0, 0, False, False),
        (0, 0x500, False, True),
    ],
)
def test_a_kernel_of_amd64_has_its_table_in_the_upper_half(table, modes, uefi, runs):
    assert screen.kernel_runs(PC.format(table, modes), uefi=uefi) is runs


def test_a_processor_that_shows_nothing_runs_no_kernel():
    assert screen.kernel_runs("", uefi=True) is False
