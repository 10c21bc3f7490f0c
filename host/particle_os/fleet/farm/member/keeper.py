"""The process that keeps one build of a farm: a child of the worker, and the parent of the build.

It reads an assignment from standard input, runs the build, and writes its events and then the
answer to standard output, as lines of JSON. It ends the build when standard input ends, so nothing
is left of a build whose worker is killed. Run it with `python -m`.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from particle_os.errors import DeadlineExceeded, Interrupted
from particle_os.fleet.build_process import SHOWN, BuildProcess, Ended
from particle_os.fleet.farm.assignment import Assignment
from particle_os.system import interrupt
from particle_os.system.deadline import Deadline

INPUT, OUTPUT = 0, 1
# A build that is not wanted gets so long to remove its files; with it, its machine ends.
CANCEL_SECONDS = 4.0
BUILD_SECONDS = 24 * 3600.0
# Characters of the text of an event.
TEXT_LIMIT = 2000
ASSIGNMENT_LIMIT = 64 << 20


def main() -> int:
    """Keeps one build; returns the exit status, which means nothing."""
    interrupt.install()
    try:
        assignment = Assignment.decode(sys.stdin.buffer.readline(ASSIGNMENT_LIMIT))
        with _locked(assignment.lock):
            say({"answer": answer_to(assignment)})
    except BrokenPipeError:
        # The worker is dead.
        return 1
    except Interrupted as ended:
        return 128 + ended.signal_number
    return 0


def say(message: dict[str, Any]) -> None:
    """Sends a message to the worker. Raises BrokenPipeError when it is dead."""
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(OUTPUT, data) :]


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Holds a shared lock on a file, so that others can wait for the end of this process."""
    if not path:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def answer_to(assignment: Assignment) -> dict[str, Any]:
    """Builds as the assignment says, and returns the answer to the client."""
    if assignment.command:
        argv = [*assignment.command, *SHOWN]
        return run(argv, lines=assignment.lines, variables=assignment.variables).data()
    # Import late: only a build of another machine needs the shared cache.
    from particle_os.fleet.farm.member import elsewhere

    return elsewhere.build(assignment, run, say)


def run(argv: Sequence[str], *, lines: bool, variables: Mapping[str, str]) -> Ended:
    """Runs a build until it ends, or until standard input ends."""
    with ExitStack() as stack:
        build = BuildProcess(argv, variables)
        stack.callback(build.end, CANCEL_SECONDS)
        return _Watch(build, lines=lines).run()


class _Watch:
    """The watch over a build and over standard input."""

    def __init__(self, build: BuildProcess, *, lines: bool) -> None:
        self._build = build
        self._lines = lines
        self._deadline = Deadline.after(BUILD_SECONDS, "the build")
        self._killed = False

    def run(self) -> Ended:
        with selectors.DefaultSelector() as selector:
            selector.register(INPUT, selectors.EVENT_READ)
            for pipe in self._build.pipes:
                selector.register(pipe, selectors.EVENT_READ)
            left = set(self._build.pipes)
            while left:
                try:
                    found = selector.select(self._deadline.remaining())
                except DeadlineExceeded:
                    if self._killed:
                        break
                    self._kill()
                    continue
                for key, _ in found:
                    if key.fileobj == INPUT:
                        if not os.read(INPUT, 1 << 16):
                            selector.unregister(INPUT)
                            self._cancel()
                    elif self._ended(key.fileobj):
                        selector.unregister(key.fileobj)
                        left.discard(key.fileobj)
        return self._build.finish(CANCEL_SECONDS)

    def _cancel(self) -> None:
        self._build.cancel()
        self._deadline = Deadline.after(CANCEL_SECONDS, "the end of the build")

    def _kill(self) -> None:
        """Kills the build; a child of it may still hold the pipes for a while."""
        self._killed = True
        self._build.kill()
        self._deadline = Deadline.after(CANCEL_SECONDS, "the end of the build")

    def _ended(self, pipe: Any) -> bool:
        """Passes on the events in a pipe; returns whether the pipe has ended."""
        events = self._build.read(pipe)
        if events is None:
            return True
        for event in events:
            if event.get("event") != "line" or self._lines:
                say({k: v[:TEXT_LIMIT] if isinstance(v, str) else v for k, v in event.items()})
        return False


if __name__ == "__main__":
    sys.exit(main())
