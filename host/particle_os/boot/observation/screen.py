"""Reads the guest's screen, memory and processor, independently of its console."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator

from particle_os.architecture import AMD64, MachineFacts
from particle_os.errors import InfrastructureError, printable
from particle_os.system import process
from particle_os.system.deadline import Deadline
from particle_os.vm.argv import MIB
from particle_os.vm.machine import Machine

# VGA's text mode: 32 KiB of cells of two bytes, a character and its colours.
TEXT_MEMORY, TEXT_BYTES, COLUMNS, LINES = 0xB8000, 32768, 80, 25
# The number of attempts to read an equal screen twice in a row.
TRIES = 4
DUMP, PICTURE = "screen.bin", "screen.ppm"
# The height of the picture in text mode: 25 lines of 16 pixels (VGA).
TEXT_LINES = b"400"
DESCRIPTORS = re.compile(r"^IDT= *([0-9a-f]+)", re.MULTILINE)
MODES = re.compile(r"\bEFER=([0-9a-f]+)")
# Linux keeps its interrupt descriptor table in the upper half of the address space from its first
# instructions in 64-bit mode on (Documentation/arch/x86/x86_64/mm.rst). Firmware and boot loaders
# keep their table in low memory.
UPPER_HALF = 1 << 63
# AMD64 manual, volume 2, 3.1.7: long mode is active. A BIOS and its boot loaders never enter long
# mode. UEFI and the code that unpacks the kernel run in it.
LONG_MODE = 1 << 10
# In graphics mode, the cells of a virtual terminal lie at an unknown place in memory (vc_screenbuf
# of include/linux/console_struct.h). A kernel and an initramfs write in grey on black.
GREY = b"\x07"
# For each failure that stops a boot, words that appear next to its sign (`signs`).
FAILURES = tuple(
    GREY.join(bytes([byte]) for byte in word)
    for word in (b"Kernel panic - not", b"(initramfs)", b"/rdsosreport.txt", b"emergency mode")
)
# More than a whole terminal of 160 columns and 50 lines, before and after the words.
AROUND_BYTES = 16384
# A q35 machine with up to LOW_MEMORY bytes has all of its memory below 4 GiB. A larger one has
# LOW_OF_MORE bytes there and the rest from HIGH_MEMORY on (QEMU's hw/i386/pc_q35.c). The search
# skips the first MiB, which holds VGA's memory.
LOW_MEMORY, LOW_OF_MORE, HIGH_MEMORY = 0xB0000000, 0x80000000, 1 << 32
PIECE = 64 * MIB
SEARCH_SECONDS, COMMAND_SECONDS = 10.0, 20.0
PADDING = re.compile(rb" {2,}|\0")
# The memory is searched only after disk and screen have stood still for so long, because a search
# takes a second or more for each GiB.
STILL_SECONDS = 3.0
# A screen on which only the cursor blinks alternates between so many pictures.
PICTURES = 2
# The program counter of arm64 in QEMU's monitor.
INSTRUCTION_BYTES = 4
COUNTER = re.compile(r"\bPC=([0-9a-f]+)")
# QEMU's monitor about a processor that waits for an interrupt.
ASLEEP = "HLT=1"
# So many looks decide whether a processor waits. Between two of them it runs for at least
# RAN_SECONDS, unless it sleeps.
LOOKS, RAN_SECONDS = 8, 0.1


def text(machine: Machine, deadline: Deadline, vm: MachineFacts = AMD64.vm) -> bytes:
    """Returns the screen's lines in text mode; the result is meaningless in graphics mode.

    The screens of some machines have no text mode, and no lines.
    """
    if not vm.text_screen:
        return b""
    before, cells = b"", _cells(machine, deadline)
    tries = 1
    # While the guest writes or scrolls, a line may be mixed from two.
    while cells != before and tries < TRIES:
        before, cells = cells, _cells(machine, deadline)
        tries += 1
    lines = [cells[i : i + COLUMNS].rstrip(b" \0") for i in range(0, len(cells), COLUMNS)]
    return b"\n".join(lines).rstrip()


def lines(machine: Machine, vm: MachineFacts = AMD64.vm) -> list[str]:
    """Returns the last lines of the screen in text mode, safe to show; empty lines are left out.

    Returns none in graphics mode, and none when QEMU has ended.
    """
    try:
        if picture(machine, _soon()) is not None:
            return []
        shown = text(machine, _soon(), vm).decode("cp437").replace("\0", " ")
    except InfrastructureError:
        return []
    return [printable(line) for line in shown.split("\n") if line.strip()][-LINES:]


def _cells(machine: Machine, deadline: Deadline) -> bytes:
    machine.monitor.execute("pmemsave", deadline, val=TEXT_MEMORY, size=TEXT_BYTES, filename=DUMP)
    return (machine.directory / DUMP).read_bytes()[::2]


def pieces(memory: int, vm: MachineFacts = AMD64.vm) -> list[tuple[int, int]]:
    """Returns the address and size of each piece of memory of a machine with `memory` bytes."""
    low = memory if memory <= LOW_MEMORY else LOW_OF_MORE
    parts = [(MIB, low), (HIGH_MEMORY, HIGH_MEMORY + memory - low)]
    if vm.memory_start:
        parts = [(vm.memory_start, vm.memory_start + memory)]
    # The pieces overlap, so that a terminal across a border is complete in one of them.
    return [
        (start, min(PIECE, end - start))
        for begin, end in parts
        for start in range(begin, end, PIECE - AROUND_BYTES)
    ]


def terminals(machine: Machine, where: Iterable[tuple[int, int]]) -> bytes:
    """Returns the lines about a failure on Linux' virtual terminals in graphics mode.

    The search covers the pieces `where` of the memory and takes SEARCH_SECONDS at most.
    """
    found: list[bytes] = []
    until = time.monotonic() + SEARCH_SECONDS
    # A stopped machine leaves the processor to the search.
    machine.monitor.execute("stop", _soon())
    for start, size in where:
        machine.monitor.execute("pmemsave", _soon(), val=start, size=size, filename=DUMP)
        found = list(_failures((machine.directory / DUMP).read_bytes()))
        if found or time.monotonic() >= until:
            break
    machine.monitor.execute("cont", _soon())
    return b"\n".join(found)


def _soon() -> Deadline:
    return Deadline.after(COMMAND_SECONDS, "QEMU's monitor")


class StillScreen:
    """The screen in graphics mode of a machine with `memory` bytes, which may have stopped."""

    def __init__(self, machine: Machine, memory: int, vm: MachineFacts = AMD64.vm) -> None:
        self._machine = machine
        self._pieces = pieces(memory, vm)
        # A search continues where the previous search ran out of time.
        self._next = itertools.cycle(self._pieces)
        self._pictures: deque[bytes] = deque(maxlen=PICTURES)
        self._redrawn = self._next_search = time.monotonic()

    def failures(self, used_disk: float, deadline: Deadline) -> bytes:
        """Returns the lines about a failure once disk and screen stand still; else nothing.

        `used_disk` is the time of the last disk operation, in seconds of the monotonic clock.
        """
        shown = picture(self._machine, deadline)
        if shown is None or shown not in self._pictures:
            self._pictures.append(shown or b"")
            self._redrawn = time.monotonic()
        now = time.monotonic()
        if now < max(self._next_search, max(used_disk, self._redrawn) + STILL_SECONDS):
            return b""
        found = terminals(self._machine, itertools.islice(self._next, len(self._pieces)))
        ended = time.monotonic()
        # The search may stop a machine that works in silence for a quarter of its time at most.
        self._next_search = ended + 3 * (ended - now)
        return found


def _failures(memory: bytes) -> Iterator[bytes]:
    """Yields the lines around the first occurrence of each of FAILURES."""
    for word in FAILURES:
        at = memory.find(word)
        if at >= 0:
            start = max(at % 2, at - AROUND_BYTES)
            yield PADDING.sub(b"\n", memory[start : at + AROUND_BYTES : 2])


def picture(machine: Machine, deadline: Deadline) -> bytes | None:
    """Returns a digest of the screen in graphics mode; None in text mode, where a cursor blinks."""
    machine.monitor.execute("screendump", deadline, filename=PICTURE)
    with (machine.directory / PICTURE).open("rb") as file:
        # QEMU writes three header lines (ppm(5)): P6, width and height, the largest value.
        _, size, _ = file.readline(), file.readline(), file.readline()
        if size.split()[-1:] == [TEXT_LINES]:
            return None
        return hashlib.file_digest(file, "sha256").digest()


def registers_of(machine: Machine, deadline: Deadline, vm: MachineFacts = AMD64.vm) -> str:
    """Returns the state of the first processor as QEMU's monitor prints it.

    QEMU does not print that a processor of arm64 sleeps, so this function adds it.
    """
    registers = machine.monitor.human("info registers", deadline)
    if vm.sleep is None or (at := COUNTER.search(registers)) is None:
        return registers
    # The instruction before the next one. The address may be unknown to a processor that runs.
    place = int(at[1], 16) - INSTRUCTION_BYTES
    shown = machine.monitor.human(f"x /1xw {place:#x}", deadline)
    return f"{registers}\n{ASLEEP}" if f"{vm.sleep:#010x}" in shown else registers


def sleeps(machine: Machine, deadline: Deadline, vm: MachineFacts = AMD64.vm) -> bool:
    """Whether the first processor waits for an interrupt."""
    return ASLEEP in registers_of(machine, deadline, vm)


class LoaderProcessor:
    """The first processor of a machine whose boot loader shows and reads nothing.

    A boot loader that waits for a key sleeps, or runs through the same states again and again. One
    that works, for example one that unpacks a kernel, is in another state at each look, because its
    pointers and counters advance.
    """

    def __init__(self) -> None:
        self._states: list[str] = []
        self._used = 0.0

    def forget(self) -> None:
        """Begins again, because the machine is active."""
        self._states.clear()

    def look(self, registers: str, used: float) -> None:
        """Takes the state of the processor; `used` is QEMU's processor time in seconds.

        A processor that a busy host has not let run since the last look proves nothing.
        """
        if ASLEEP in registers or used - self._used >= RAN_SECONDS:
            self._used = used
            # The general registers and the flags; what follows them does not change in a loop.
            self._states.append(registers.partition("ES =")[0])

    @property
    def waits(self) -> bool:
        """Whether enough looks show that it sleeps, or returns to the same states."""
        looks = len(self._states)
        asleep = sum(ASLEEP in state for state in self._states)
        again = looks - len(set(self._states))
        return looks >= LOOKS and (asleep >= 0.75 * looks or again >= 0.25 * looks)


def kernel_runs(registers: str, *, uefi: bool) -> bool:
    """Whether the first processor runs Linux or the code that unpacks it."""
    table, modes = DESCRIPTORS.search(registers), MODES.search(registers)
    counter = COUNTER.search(registers)
    if counter is not None:
        # UEFI and its boot loaders run in the lower half (arm64: Documentation/arch/arm64/memory).
        return int(counter.group(1), 16) >= UPPER_HALF
    if table is not None and int(table.group(1), 16) >= UPPER_HALF:
        return True
    return not uefi and modes is not None and bool(int(modes.group(1), 16) & LONG_MODE)


def processor_seconds(machine: Machine) -> float:
    """Returns the processor time that QEMU has used so far, in seconds."""
    return process.processor_seconds(machine.console.pid)
