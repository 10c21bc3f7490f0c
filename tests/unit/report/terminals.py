"""Programs on a terminal of their own, which pyte emulates, and which tests resize."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios

import pyte

from ...waiting import HANG_SECONDS


class Terminal:
    """A terminal with a Python program; it breaks rows that are too wide, unless it `cuts`."""

    def __init__(self, program, lines, columns, *, cuts=False, **environment):
        self._cuts = cuts
        self._show([], lines, columns)
        self._pid, self._descriptor = pty.fork()
        if not self._pid:
            left_out = ("COLUMNS", "LINES", "NO_COLOR", "TMUX", "STY", "XTERM_VERSION")
            kept = {k: v for k, v in os.environ.items() if k not in left_out}
            # pytest's readline has set COLUMNS without the knowledge of Python.
            os.execve(
                sys.executable,
                [sys.executable, "-c", program],
                {**kept, "TERM": "xterm-256color", **environment},
            )
        self._set_size()

    def _show(self, rows, lines, columns):
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        for number, row in enumerate(rows[-lines:]):
            self.screen.cursor_position(number + 1, 1)
            self.screen.draw(row)

    def _set_size(self):
        size = struct.pack("HHHH", self.screen.lines, self.screen.columns, 0, 0)
        # The kernel sends SIGWINCH to the program.
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, size)

    def resize(self, lines, columns):
        """Changes the size as a terminal does that breaks, or cuts, the rows on its screen."""
        cursor = self.screen.cursor.y
        rows = [row.rstrip() for row in self.screen.display[: cursor + 1]]
        if self._cuts:
            rows = [row[:columns] for row in rows]
        broken = [row[i : i + columns] for row in rows for i in range(0, max(1, len(row)), columns)]
        self._show(broken, lines, columns)
        self._set_size()

    def wait_for(self, text):
        """Reads until the program has printed a text, or ends."""
        seen = b""
        while text.encode() not in seen:
            ready, _, _ = select.select([self._descriptor], [], [], HANG_SECONDS)
            assert ready, self.text
            try:
                data = os.read(self._descriptor, 1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            seen += data
            self._stream.feed(data)

    def answer(self):
        """Lets the program go on, which waits for a line."""
        os.write(self._descriptor, b"\n")

    def end(self):
        self.wait_for("no program prints this")
        os.close(self._descriptor)
        os.waitpid(self._pid, 0)

    @property
    def text(self):
        return [row.rstrip() for row in self.screen.display if row.strip()]
