"""What the guest shows on its screen and in its processor, whatever it says on its console."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from particle_os.system.deadline import Deadline
from particle_os.vm.argv import MIB
from particle_os.vm.machine import Machine

# The text mode of VGA: 32 KiB of cells, a character and its colours each.
TEXT_MEMORY, TEXT_BYTES, COLUMNS = 0xB8000, 32768, 80
# How often a screen is read until it is twice the same.
TRIES = 4
DUMP, PICTURE = "screen.bin", "screen.ppm"
# Lines of the picture of a screen in text mode: 25 lines of 16 (VGA).
TEXT_LINES = b"400"
DESCRIPTORS = re.compile(r"^IDT= *([0-9a-f]+)", re.MULTILINE)
MODES = re.compile(r"\bEFER=([0-9a-f]+)")
# Linux keeps its interrupt descriptor table in the upper half of the address space from its first
# instructions in 64-bit mode on (Documentation/arch/x86/x86_64/mm.rst); firmware and boot loaders
# have theirs in low memory.
UPPER_HALF = 1 << 63
# AMD64 manual, volume 2, 3.1.7: long mode is active. BIOS and its boot loaders never are in it;
# what unpacks the kernel is, and UEFI.
LONG_MODE = 1 << 10
# A virtual terminal in graphics mode has its cells somewhere in memory (vc_screenbuf of
# include/linux/console_struct.h), in grey on black what a kernel and an initramfs say.
GREY = b"\x07"
# Of each failure that stops a boot, words that stand beside its sign.
FAILURES = tuple(
    GREY.join(bytes([byte]) for byte in word)
    for word in (b"Kernel panic - not", b"(initramfs)", b"/rdsosreport.txt", b"emergency mode")
)
# More than a terminal of 160 columns and 50 lines has before and after what stands on it.
AROUND_BYTES = 16384
# q35 has its memory below 4 GiB, up to the first of these; if it has more, up to the second, and
# the rest from 4 GiB on (QEMU's hw/i386/pc_q35.c). In the first MiB is VGA's.
LOW_MEMORY, LOW_OF_MORE, HIGH_MEMORY = 0xB0000000, 0x80000000, 1 << 32
PIECE = 64 * MIB
SEARCH_SECONDS, COMMAND_SECONDS = 10.0, 20.0
PADDING = re.compile(rb" {2,}|\0")
# How long disk and screen stand still before the memory is searched, which takes a second or more
# for each GiB.
STILL_SECONDS = 3.0
# A screen on which only the cursor blinks shows these in turn.
PICTURES = 2
TICKS = os.sysconf("SC_CLK_TCK")


def text(machine: Machine, deadline: Deadline) -> bytes:
    """The screen's lines, where it is in text mode; else nothing that makes sense."""
    before, cells = b"", _cells(machine, deadline)
    tries = 1
    # While the guest writes or scrolls, half of a line may be that of another one.
    while cells != before and tries < TRIES:
        before, cells = cells, _cells(machine, deadline)
        tries += 1
    lines = [cells[i : i + COLUMNS].rstrip(b" \0") for i in range(0, len(cells), COLUMNS)]
    return b"\n".join(lines).rstrip()


def _cells(machine: Machine, deadline: Deadline) -> bytes:
    machine.monitor.execute("pmemsave", deadline, val=TEXT_MEMORY, size=TEXT_BYTES, filename=DUMP)
    return (machine.directory / DUMP).read_bytes()[::2]


def pieces(memory: int) -> list[tuple[int, int]]:
    """The memory of a machine with `memory` bytes: where each piece begins, and its size."""
    low = memory if memory <= LOW_MEMORY else LOW_OF_MORE
    # What lies across the border of two pieces is whole in one of them.
    return [
        (start, min(PIECE, end - start))
        for begin, end in ((MIB, low), (HIGH_MEMORY, HIGH_MEMORY + memory - low))
        for start in range(begin, end, PIECE - AROUND_BYTES)
    ]


def terminals(machine: Machine, where: Iterable[tuple[int, int]]) -> bytes:
    """What Linux' virtual terminals say of a failure, though the screen is in graphics mode.

    They are looked for in these pieces of memory, for SEARCH_SECONDS at most.
    """
    said: list[bytes] = []
    until = time.monotonic() + SEARCH_SECONDS
    # It stands still meanwhile, and leaves the processor to the search.
    machine.monitor.execute("stop", _soon())
    for start, size in where:
        machine.monitor.execute("pmemsave", _soon(), val=start, size=size, filename=DUMP)
        said = list(_failures((machine.directory / DUMP).read_bytes()))
        if said or time.monotonic() >= until:
            break
    machine.monitor.execute("cont", _soon())
    return b"\n".join(said)


def _soon() -> Deadline:
    return Deadline.after(COMMAND_SECONDS, "QEMU's monitor")


class StillScreen:
    """The screen in graphics mode of a machine with `memory` bytes that may have stopped."""

    def __init__(self, machine: Machine, memory: int) -> None:
        self._machine = machine
        self._pieces = pieces(memory)
        # A search goes on where the last one had to end.
        self._next = itertools.cycle(self._pieces)
        self._pictures: deque[bytes] = deque(maxlen=PICTURES)
        self._redrawn = self._next_search = time.monotonic()

    def failures(self, used_disk: float, deadline: Deadline) -> bytes:
        """What stands on it of a failure, once nothing has moved for a while; else nothing.

        `used_disk` is when a disk was last used, by the monotonic clock.
        """
        shown = picture(self._machine, deadline)
        if shown is None or shown not in self._pictures:
            self._pictures.append(shown or b"")
            self._redrawn = time.monotonic()
        now = time.monotonic()
        if now < max(self._next_search, max(used_disk, self._redrawn) + STILL_SECONDS):
            return b""
        said = terminals(self._machine, itertools.islice(self._next, len(self._pieces)))
        ended = time.monotonic()
        # A machine that works in silence is held up for a quarter of its time at most.
        self._next_search = ended + 3 * (ended - now)
        return said


def _failures(memory: bytes) -> Iterator[bytes]:
    """The lines around the first of each word of a failure."""
    for word in FAILURES:
        at = memory.find(word)
        if at >= 0:
            start = max(at % 2, at - AROUND_BYTES)
            yield PADDING.sub(b"\n", memory[start : at + AROUND_BYTES : 2])


def picture(machine: Machine, deadline: Deadline) -> bytes | None:
    """A digest of the screen in graphics mode; None in text mode, whose cursor blinks."""
    machine.monitor.execute("screendump", deadline, filename=PICTURE)
    with (machine.directory / PICTURE).open("rb") as file:
        # ppm(5) as QEMU writes it: P6, width and height, the largest value, a line each.
        _, size, _ = file.readline(), file.readline(), file.readline()
        if size.split()[-1:] == [TEXT_LINES]:
            return None
        return hashlib.file_digest(file, "sha256").digest()


def kernel_runs(machine: Machine, deadline: Deadline, *, uefi: bool) -> bool:
    """Whether the first processor is Linux's, or unpacks it."""
    told = machine.monitor.human("info registers", deadline)
    table, modes = DESCRIPTORS.search(told), MODES.search(told)
    if table is not None and int(table.group(1), 16) >= UPPER_HALF:
        return True
    return not uefi and modes is not None and bool(int(modes.group(1), 16) & LONG_MODE)


def processor_seconds(machine: Machine) -> float:
    """How long QEMU has kept the host's processors busy so far (proc_pid_stat(5))."""
    fields = Path(f"/proc/{machine.console.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
