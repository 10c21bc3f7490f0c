"""The processor of a boot loader that waits differs from one that works."""

import pytest
from particle_os.boot.observation.screen import LOOKS, LoaderProcessor

# As QEMU 10 prints them in 16-bit and in 64-bit mode.
BIOS = "CPU#0\nEAX={:08x} EBX=00000000\nEIP=0000b7ee EFL=00000202 HLT={}\nES =0000 00000000\n"
UEFI = "CPU#0\nRAX={:016x} RBX=00000000\nRIP=0000b7ee RFL=00000202 HLT={}\nES =0030 00000000\n"


def waits(states, seconds=1.0):
    processor = LoaderProcessor()
    for number, state in enumerate(states, 1):
        processor.look(state, number * seconds)
    return processor.waits


@pytest.mark.parametrize("mode", [BIOS, UEFI])
def test_a_processor_that_sleeps_or_returns_waits(mode):
    asleep, works = mode.format(0, 1), [mode.format(i, 0) for i in range(20)]
    assert waits([asleep] * LOOKS)
    assert not waits([asleep] * (LOOKS - 1))
    # Each tick of a clock wakes it up.
    assert waits([*works[:2], *[asleep] * 6])
    assert not waits(works)
    assert waits([*works[:6], works[0], works[1]])
    assert not waits([*works[:7], works[0]])


def test_a_processor_that_has_not_run_proves_nothing():
    assert waits([BIOS.format(0, 0)] * LOOKS, seconds=1)
    assert not waits([BIOS.format(0, 0)] * LOOKS, seconds=0.05)
    assert waits([BIOS.format(0, 1)] * LOOKS, seconds=0.0)


def test_what_follows_the_general_registers_does_not_count():
    state = BIOS.format(0, 0)
    assert waits([f"{state}XMM00={i}" for i in range(LOOKS)])


def test_an_active_machine_begins_again():
    processor = LoaderProcessor()
    for number in range(LOOKS):
        processor.look(BIOS.format(0, 1), number)
    assert processor.waits
    processor.forget()
    assert not processor.waits
