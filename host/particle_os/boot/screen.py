"""What the guest shows on its screen and in its processor, whatever it says on its console."""

from __future__ import annotations

import re

from particle_os.deadline import Deadline
from particle_os.vm.machine import Machine

# The text mode of VGA: 32 KiB of cells, a character and its colours each.
TEXT_MEMORY, TEXT_BYTES, COLUMNS = 0xB8000, 32768, 80
DUMP = "screen.bin"
DESCRIPTORS = re.compile(r"^IDT= *([0-9a-f]+)", re.MULTILINE)
# Linux keeps its interrupt descriptor table in the upper half of the address space from its first
# instructions in 64-bit mode on (Documentation/arch/x86/x86_64/mm.rst); firmware and boot loaders
# have theirs in low memory.
UPPER_HALF = 1 << 63


def text(machine: Machine, deadline: Deadline) -> bytes:
    """The screen's lines, where it is in text mode; else nothing that makes sense."""
    machine.monitor.execute("pmemsave", deadline, val=TEXT_MEMORY, size=TEXT_BYTES, filename=DUMP)
    cells = (machine.directory / DUMP).read_bytes()[::2]
    lines = [cells[i : i + COLUMNS].rstrip(b" \0") for i in range(0, len(cells), COLUMNS)]
    return b"\n".join(lines).rstrip()


def kernel_runs(machine: Machine, deadline: Deadline) -> bool:
    """Whether the first processor is Linux's."""
    found = DESCRIPTORS.search(machine.monitor.human("info registers", deadline))
    return found is not None and int(found.group(1), 16) >= UPPER_HALF
