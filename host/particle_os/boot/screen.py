"""What the guest shows on its screen and in its processor, whatever it says on its console."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from particle_os.deadline import Deadline
from particle_os.vm.machine import Machine

# The text mode of VGA: 32 KiB of cells, a character and its colours each.
TEXT_MEMORY, TEXT_BYTES, COLUMNS = 0xB8000, 32768, 80
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
TICKS = os.sysconf("SC_CLK_TCK")


def text(machine: Machine, deadline: Deadline) -> bytes:
    """The screen's lines, where it is in text mode; else nothing that makes sense."""
    machine.monitor.execute("pmemsave", deadline, val=TEXT_MEMORY, size=TEXT_BYTES, filename=DUMP)
    cells = (machine.directory / DUMP).read_bytes()[::2]
    lines = [cells[i : i + COLUMNS].rstrip(b" \0") for i in range(0, len(cells), COLUMNS)]
    return b"\n".join(lines).rstrip()


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
