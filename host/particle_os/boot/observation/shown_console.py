"""The console as a terminal shows it: boot loaders place their words with control sequences.

GRUB, for example, writes `Welcome to`, moves the cursor twice, and writes `GRUB!`.
"""

from __future__ import annotations

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


class ShownConsole:
    """The console of a machine until its kernel starts, on a terminal of COLUMNS and LINES."""

    def __init__(self) -> None:
        self._screen = _Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self._screen)

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Takes output of the machine, some lines at a time.

        Yields the lines that they have changed, as they are shown, and the rest of the output.
        """
        pieces = data[-MOST_BYTES:].splitlines(keepends=True)
        for start in range(0, len(pieces), LINES_AT_ONCE):
            # Other characters than those of ASCII are in no sign, and may combine without end.
            text = b"".join(pieces[start : start + LINES_AT_ONCE]).decode("ascii", "replace")
            try:
                self._stream.feed(text)
            except Exception:
                # pyte takes some malformed sequences for a wrong use of its functions.
                self._screen.reset()
                self._stream = pyte.Stream(self._screen)
            yield self._changed(), b"".join(pieces[start + LINES_AT_ONCE :])

    def _changed(self) -> bytes:
        rows = [self._screen.buffer[number] for number in sorted(self._screen.dirty)]
        self._screen.dirty.clear()
        return "\n".join(text for row in rows if (text := _text(row).rstrip())).encode()


class _Screen(pyte.Screen):
    def reset(self) -> None:
        """Begins again; a line feed alone begins a line, too."""
        super().reset()
        self.set_mode(pyte.modes.LNM)

    def alignment_display(self) -> None:
        """Ignores the order to fill the screen, which takes long."""


def _text(row: Mapping[int, pyte.screens.Char]) -> str:
    """A row of the screen; cells without a character are blanks."""
    width = max(row, default=-1) + 1
    return "".join(row[column].data if column in row else " " for column in range(width))
