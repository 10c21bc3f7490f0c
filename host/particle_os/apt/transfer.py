"""The progress of downloads: the sizes that apt announces, and the bytes that have arrived."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SECONDS = 1.0
# apt's line before it fetches packages, and the line before each file.
_NEED = re.compile(r"^Need to get ([\d.,]+) ([kMGT]?)B")
# apt's line after it has fetched all files.
_FETCHED = re.compile(r"^Fetched ([\d.,]+) ([kMGT]?)B in (?:(\d+)h )?(?:(\d+)min )?(\d+)s\b")
_BEGUN = re.compile(r"^Get:\d+ .*\[([\d.,]+) ([kMGT]?)B\]$")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def needed(line: str) -> int | None:
    """The bytes of all packages that apt fetches; None for other lines."""
    return _announced(_NEED.match(line))


def begun(line: str) -> int | None:
    """The bytes of the file that apt begins to fetch; None for other lines."""
    return _announced(_BEGUN.match(line))


def fetched(line: str) -> tuple[int, int] | None:
    """The bytes that apt has fetched, and the whole seconds that it took; None for other lines."""
    found = _FETCHED.match(line)
    size = _announced(found)
    if found is None or size is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups()[2:])
    return size, (hours * 60 + minutes) * 60 + seconds


def _announced(found: re.Match[str] | None) -> int | None:
    """The bytes that apt writes as, for example, "1,234 k" or "10.5 M"."""
    if found is None:
        return None
    try:
        return int(float(found[1].replace(",", "")) * _UNITS[found[2]])
    except ValueError:
        return None


@contextmanager
def watched(
    measure: Callable[[], int], total: Callable[[], int], log: Callable[[str], None]
) -> Iterator[None]:
    """Logs how much has arrived, as long as the context lasts.

    A thread calls `measure`, the bytes that have arrived, and `total`, all bytes or 0 while their
    number is not known.
    """
    ended = threading.Event()

    def watch() -> None:
        last = 0
        while not ended.wait(SECONDS):
            if not (size := total()):
                continue
            percent = min(100, 100 * measure() // size)
            if percent > last:
                last = percent
                log(f"fetched {percent} % of {size} bytes")

    def watch_quietly() -> None:
        # The program's own lines raise this error in the main thread.
        with suppress(OSError):
            watch()

    thread = threading.Thread(target=watch_quietly, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def size_of(places: Iterable[Path]) -> int:
    """The bytes of files, and of all files in directories; those that vanish do not count."""
    size = 0
    for place in places:
        for path in (place, *place.rglob("*")):
            with suppress(OSError):
                if path.is_file():
                    size += path.stat().st_size
    return size
