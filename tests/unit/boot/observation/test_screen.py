"""Tests of the search for a guest's screen in its memory."""

from types import SimpleNamespace

import pytest
from particle_os.architecture import ARM64
from particle_os.boot.observation import screen
from particle_os.errors import VmError

from ....waiting import Clock, plenty

MIB, GIB = 1 << 20, 1 << 30
PANIC = b"[18.816144] Kernel panic - not syncing: Attempted to kill init!"


@pytest.fixture(autouse=True)
def _standing_clock(monkeypatch):
    """Stops the clock, so that a busy host never cuts a search short."""
    monkeypatch.setattr(screen, "time", Clock())


class Memory:
    """A machine that saves pieces of its memory, with `cells` at the address `at`."""

    def __init__(self, directory, cells=b"", at=0):
        self.directory, self.monitor = directory, SimpleNamespace(execute=self.execute)
        self.cells, self.at = cells, at
        self.ran, self.saved = [], []

    def execute(self, command, deadline, **arguments):
        self.ran.append(command)
        if command == "pmemsave":
            start, size = arguments["val"], arguments["size"]
            self.saved.append((start, start + size))
            with (self.directory / arguments["filename"]).open("wb") as file:
                file.truncate(min(size, 4 * MIB))
                if start <= self.at < start + size:
                    file.seek(self.at - start)
                    file.write(self.cells[: start + size - self.at])


class Scrolling(Memory):
    """A machine whose screen shows each of `screens` once and then keeps the last one."""

    def __init__(self, directory, *screens):
        super().__init__(directory)
        self.screens = list(screens)

    def execute(self, command, deadline, **arguments):
        shown = self.screens.pop(0) if len(self.screens) > 1 else self.screens[0]
        (self.directory / arguments["filename"]).write_bytes(b"\x07".join([*shown, b""]))


def screenful(line):
    return [bytes([byte]) for byte in line.ljust(16384)]


def test_a_screen_that_is_read_while_it_scrolls_is_read_again(tmp_path):
    torn, whole = screenful(b"Welcome to om Hard Disk"), screenful(b"Welcome to GRUB!")
    machine = Scrolling(tmp_path, torn, whole)
    assert screen.text(machine, plenty()) == b"Welcome to GRUB!"
    restless = [screenful(b"%d" % number) for number in range(99)]
    machine = Scrolling(tmp_path, *restless)
    screen.text(machine, plenty())
    assert len(machine.screens) > 90


def cells(*lines, colour=b"\x07"):
    padded = b"".join(line.ljust(160) for line in lines)
    return colour.join(padded[i : i + 1] for i in range(len(padded))) + colour


def search(machine, size):
    return screen.terminals(machine, screen.pieces(size))


@pytest.mark.parametrize("at", [MIB, 3 * MIB - 16384 - 40, 7 * MIB, 8 * MIB - 1000])
def test_a_panic_is_found_wherever_it_stands(tmp_path, monkeypatch, at):
    monkeypatch.setattr(screen, "PIECE", 2 * MIB)
    machine = Memory(tmp_path, cells(b"Begin: Running /scripts/init-bottom", PANIC), at)
    assert PANIC in search(machine, 8 * MIB).splitlines()
    assert machine.ran[0] == "stop" and machine.ran[-1] == "cont"


@pytest.mark.parametrize(
    "data",
    [
        PANIC,  # the kernel's own text, or its log
        cells(PANIC, colour=b"\0"),  # UTF-16
        cells(b"all is well"),
    ],
    ids=["text", "wide", "well"],
)
def test_other_memory_is_no_screen(tmp_path, data):
    assert search(Memory(tmp_path, data, 2 * MIB), 8 * MIB) == b""


@pytest.mark.parametrize(
    ("size", "ends"), [(GIB, {GIB}), (0xA0000000, {0xA0000000}), (3 * GIB, {2 * GIB, 5 * GIB})]
)
def test_the_memory_of_q35_is_read_whole_and_no_device(tmp_path, monkeypatch, size, ends):
    monkeypatch.setattr(screen, "PIECE", GIB)
    machine = Memory(tmp_path)
    search(machine, size)
    for end in ends:
        assert any(until == end for _, until in machine.saved)
    assert all(until <= 2 * GIB or start >= 4 * GIB or size < 0xB0000000
               for start, until in machine.saved)  # fmt: skip
    assert sum(until - start for start, until in machine.saved) >= size - MIB


def test_a_search_that_takes_long_goes_on_where_it_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(screen, "PIECE", 2 * MIB)
    monkeypatch.setattr(screen, "SEARCH_SECONDS", 0)
    monkeypatch.setattr(screen, "STILL_SECONDS", 0)
    monkeypatch.setattr(screen, "picture", lambda machine, deadline: b"still")
    machine = Memory(tmp_path, cells(PANIC), 6 * MIB)
    still = screen.StillScreen(machine, 9 * MIB)
    said = b""
    for _ in range(6):
        still._next_search = 0
        said = said or still.failures(0, plenty())
    assert PANIC in said.splitlines()
    assert machine.saved[0][0] == MIB and len(machine.saved) == 3
    assert machine.ran.count("cont") == machine.ran.count("stop")


def test_the_screen_is_read_from_the_memory_of_vga(tmp_path):
    machine = Memory(tmp_path, cells(b"login:"), screen.TEXT_MEMORY)
    assert screen.text(machine, plenty()).startswith(b"login:")
    assert {*machine.saved} == {(0xB8000, 0xB8000 + 0x8000)}


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_characters_are_told_from_their_colours_wherever_a_screen_begins(before):
    (found,) = screen._failures(bytes(before) + cells(b"so: ", PANIC))
    assert PANIC in found.splitlines()


def test_the_memory_of_arm64_begins_at_its_own_address():
    found = screen.pieces(256 * MIB, ARM64.vm)
    assert found[0][0] == GIB
    assert max(start + size for start, size in found) == GIB + 256 * MIB


WFI, OTHER_INSTRUCTION = "0xd503207f", "0xd65f03c0"


@pytest.mark.parametrize(("instruction", "asleep"), [(WFI, True), (OTHER_INSTRUCTION, False)])
def test_a_processor_of_arm64_sleeps_at_the_instruction_that_waits(instruction, asleep):
    asked = []

    def human(line, deadline):
        asked.append(line)
        registers = " PC=ffff8000812d0b98 X00=0000000000000000\n"
        return registers if line == "info registers" else f"ffff8000812d0b94: {instruction}\n"

    machine = SimpleNamespace(monitor=SimpleNamespace(human=human))
    assert (screen.ASLEEP in screen.registers_of(machine, plenty(), ARM64.vm)) == asleep
    assert asked == ["info registers", "x /1xw 0xffff8000812d0b94"]
    assert screen.ASLEEP not in screen.registers_of(machine, plenty())


class Terminal(Scrolling):
    """A machine with a screen in text mode, or in graphics mode with another height."""

    def __init__(self, directory, text, height=400):
        super().__init__(directory, screenful(text))
        self.height = height

    def execute(self, command, deadline, **arguments):
        if command == "screendump":
            picture = b"P6\n640 %d\n255\n" % self.height
            (self.directory / arguments["filename"]).write_bytes(picture)
        else:
            super().execute(command, deadline, **arguments)


def test_the_lines_of_a_screen_are_safe_to_show(tmp_path):
    text = b"".join(b"line %02d" % n + b" " * 73 for n in range(40)) + b"\xcd\0\x1b[31m"
    found = screen.lines(Terminal(tmp_path, text))
    assert found[0] == "line 16" and found[-1] == "═ \\x1b[31m"
    assert len(found) == screen.LINES


def test_a_screen_in_graphics_mode_has_no_lines(tmp_path):
    assert screen.lines(Terminal(tmp_path, b"noise", height=480)) == []
    assert screen.lines(Terminal(tmp_path, b"noise"), ARM64.vm) == []


def test_a_machine_that_has_ended_has_no_screen(tmp_path):
    def fail(*arguments, **options):
        raise VmError("QEMU has ended")

    ended = SimpleNamespace(directory=tmp_path, monitor=SimpleNamespace(execute=fail))
    assert screen.lines(ended) == []
