"""All processes below this one, also those whose parents have died."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def adopting() -> Iterator[None]:
    """Makes this process the parent of descendants that lose theirs: none can hide."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def descendants(root: int) -> list[tuple[int, str]]:
    """The running processes below `root`: their ids and the names of their programs."""
    table = {pid: (name, state, parent) for pid, name, state, parent in _processes()}
    return [
        (pid, name)
        for pid, (name, state, _) in table.items()
        if state != "Z" and pid != root and root in _ancestors(pid, table)
    ]


def bury() -> None:
    """Collects the status of adopted processes that have ended."""
    ours = os.getpid()
    for pid, _, state, parent in _processes():
        if state == "Z" and parent == ours:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _processes() -> Iterator[tuple[int, str, str, int]]:
    """Id, name, state and parent of each process (proc(5))."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                head, _, tail = (entry / "stat").read_text().rpartition(")")
                state, parent = tail.split()[:2]
                yield int(entry.name), head.partition("(")[2], state, int(parent)


def _ancestors(pid: int, table: dict[int, tuple[str, str, int]]) -> Iterator[int]:
    while pid in table:
        pid = table[pid][2]
        yield pid
