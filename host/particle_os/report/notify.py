"""Shows the terminal the progress of a run and its end."""

from __future__ import annotations

from typing import IO

from particle_os.report.progress import Event, StageStarted


class NotifySink:
    """Shows the progress in the terminal's tab or task bar, and rings its bell at the end.

    The sequence is OSC 9;4 of ConEmu, which Windows Terminal, Ghostty and systemd know; other
    terminals ignore it.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._is_open = True
        self._show("3", "")

    def emit(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._show(f"1;{100 * event.index // event.total}", "")

    def close(self) -> None:
        if self._is_open:
            self._show("0", "\a")
        self._is_open = False

    def _show(self, state: str, more: str) -> None:
        self._stream.write(f"\x1b]9;4;{state}\x1b\\{more}")
        self._stream.flush()
