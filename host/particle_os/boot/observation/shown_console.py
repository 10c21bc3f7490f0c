"""The console as a terminal shows it: boot loaders place their words with control sequences.

GRUB, for example, writes `Welcome to`, moves the cursor twice, and writes `GRUB!`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pyte
import pyte.modes
import pyte.screens

# Boot loaders take a terminal for one of at most 100 columns and 31 lines; a wider one breaks no
# line of others.
COLUMNS, LINES = 240, 50
# A terminal is slow, so of more bytes at once only the last are read.
MOST_BYTES = 1 << 16
# Words scroll out of sight after LINES lines, so the terminal is read after fewer.
LINES_AT_ONCE = LINES // 2
# So often the screen is looked at before it is erased.
ERASED_AT_ONCE = 100
# The sequences that erase the screen (ECMA-48 ED, and RIS of a VT100).
ERASE = re.compile(rb"\x1b\[[0-3]?J|\x1bc")
PIECE = re.compile(rb"(?<=\n)|(?=\x1b\[[0-3]?J|\x1bc)")
WORD = re.compile(rb"[A-Za-z]{3}")


class ShownConsole:
    """The console of a machine until its kernel starts, on a terminal of COLUMNS and LINES."""

    def __init__(self) -> None:
        self._screen = _Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self._screen)

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Takes output of the machine, some lines at a time, and less before the screen is erased.

        Yields the lines that they have changed, as they are shown, and the rest of the output.
        """
        data = data[-MOST_BYTES:]
        end = 0
        for part in _parts(data):
            end += len(part)
            # Other characters than those of ASCII are in no sign, and may combine without end.
            text = part.decode("ascii", "replace")
            try:
                self._stream.feed(text)
            except Exception:
                # pyte takes some malformed sequences for a wrong use of its functions.
                self._screen.reset()
                self._stream = pyte.Stream(self._screen)
            yield self._changed(), data[end:]

    def _changed(self) -> bytes:
        rows = [self._screen.buffer[number] for number in sorted(self._screen.dirty)]
        self._screen.dirty.clear()
        return "\n".join(text for row in rows if (text := _text(row).rstrip())).encode()


def _parts(data: bytes) -> Iterator[bytes]:
    """The parts of an output that a terminal shows at one time.

    On a busy host, the words of the firmware, the boot loader and the kernel come all at once, and
    each of them erases the words before.
    """
    part, lines, has_word, erased = bytearray(), 0, False, 0
    for piece in PIECE.split(data):
        erases = has_word and erased < ERASED_AT_ONCE and ERASE.match(piece) is not None
        if lines >= LINES_AT_ONCE or erases:
            yield bytes(part)
            part, lines, has_word = bytearray(), 0, False
            erased += erases
        part += piece
        lines += piece.endswith(b"\n")
        has_word = has_word or WORD.search(piece) is not None
    if part:
        yield bytes(part)


class _Screen(pyte.Screen):
    def reset(self) -> None:
        """Begins again; a line feed alone begins a line, too."""
        super().reset()
        self.set_mode(pyte.modes.LNM)

    def erase_in_display(self, how: int = 0, *args: object, **kwargs: object) -> None:
        """Forgets whole lines (ED): pyte fills each of their cells, which takes long."""
        last = self.cursor.y
        whole = {0: range(last + 1, LINES), 1: range(last)}.get(how, range(LINES))
        for number in whole:
            self.buffer.pop(number, None)
        self.dirty.update(whole)
        if how in (0, 1):
            self.erase_in_line(how)

    def alignment_display(self) -> None:
        """Ignores the order to fill the screen, which takes long."""


def _text(row: Mapping[int, pyte.screens.Char]) -> str:
    """A row of the screen; cells without a character are blanks."""
    width = max(row, default=-1) + 1
    return "".join(row[column].data if column in row else " " for column in range(width))
