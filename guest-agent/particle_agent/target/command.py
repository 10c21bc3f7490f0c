"""Runs a command with a deadline and emits its output line by line."""

from __future__ import annotations

import codecs
import collections
import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

from particle_agent.errors import CommandFailed, EnvironmentFailed

TAIL_LINES = 40
# The size in bytes of a pipe for bulk data, and of the reads of tar(1) from it. With the default
# sizes, two programs take turns so often that an emulated machine needs twice the time.
PIPE_BYTES = 1 << 20
TAR_RECORDS = f"--record-size={PIPE_BYTES}"
LINE_CHARACTERS = 4096
LEFTOVER_SECONDS = 2.0
# Starts a program; the keywords are those of Popen.
Start = Callable[..., subprocess.Popen[bytes]]


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a program in the helper VM, outside of the target; `options` are those of Popen."""
    return subprocess.Popen(list(argv), **options)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class _Lines:
    """Splits a byte stream into lines and emits them.

    A line of more than `LINE_CHARACTERS` becomes several, and no text is lost between them: the
    host hides a secret that continues on the next line, but recognises no incomplete one.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)

    def feed(self, data: bytes) -> None:
        text = self._rest + self._decoder.decode(data)
        *lines, self._rest = text.replace("\r", "\n").split("\n")
        if len(self._rest) > LINE_CHARACTERS:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            self._line(line)

    def close(self) -> None:
        self._line(self._rest + self._decoder.decode(b"", final=True))
        self._rest = ""

    def _line(self, line: str) -> None:
        for start in range(0, len(line), LINE_CHARACTERS):
            if text := line[start : start + LINE_CHARACTERS].rstrip():
                self.tail.append(text)
                self._emit(text)


def run(
    argv: Sequence[str],
    *,
    emit: Callable[[str], None],
    timeout: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    start: Start = start,
) -> None:
    """Runs `argv` without a shell. Calls `emit` with each line as the command prints it.

    `timeout` is in seconds; `start` starts the program. Raises CommandFailed on a non-zero status
    and EnvironmentFailed when the time is up. Daemons that outlive the command do not delay this
    function.
    """
    process = _started(argv, stdin, env, start)
    lines = _Lines(emit)
    deadline = time.monotonic() + timeout
    if not _read_output(process, lines, deadline):
        _kill_group(process)
        raise EnvironmentFailed(
            f"'{' '.join(argv)[:200]}' did not end within {timeout:.0f} s", tail=tuple(lines.tail)
        )
    lines.close()
    try:
        status = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _kill_group(process)
        raise EnvironmentFailed(
            f"'{' '.join(argv)[:200]}' closed its output but did not end", tail=tuple(lines.tail)
        ) from None
    if status != 0:
        raise CommandFailed(argv, status, tuple(lines.tail))


def _started(
    argv: Sequence[str], stdin: bytes, env: Mapping[str, str] | None, start: Start
) -> subprocess.Popen[bytes]:
    # A file takes input of any size in one write; a pipe would need a thread that writes.
    source = os.memfd_create("stdin")
    with os.fdopen(source, "w+b") as stdin_file:
        stdin_file.write(stdin)
        stdin_file.seek(0)
        return start(
            argv,
            stdin=stdin_file,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env) if env is not None else None,
            start_new_session=True,
        )


def _read_output(process: subprocess.Popen[bytes], lines: _Lines, deadline: float) -> bool:
    """Reads the output until it or its process ends. Returns False if the deadline comes first."""
    assert process.stdout is not None
    exited_at: float | None = None
    with selectors.DefaultSelector() as selector, process.stdout as output:
        os.set_blocking(output.fileno(), False)
        selector.register(output, selectors.EVENT_READ)
        while time.monotonic() <= deadline:
            if selector.select(0.5):
                data = output.read(65536)
                if data == b"":
                    return True
                lines.feed(data or b"")
            if process.poll() is not None:
                # A daemon that the process left behind may keep the pipe open and print more.
                exited_at = exited_at or time.monotonic()
                if time.monotonic() - exited_at > LEFTOVER_SECONDS:
                    return True
    return False


def feed(
    argv: Sequence[str],
    data: Iterable[bytes],
    *,
    timeout: float,
    env: Mapping[str, str],
    start: Start = start,
) -> None:
    """Runs `argv` without a shell, with `data` on its standard input through a large pipe.

    `timeout` is in seconds, and also limits the writing. Raises the errors of `run`. The output is
    only used for the error.
    """
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryFile() as output:
        process = start(
            argv,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            pipesize=PIPE_BYTES,
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            # A program that stops reading reports the reason in its own output.
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                _write(pipe, data, argv, deadline)
            status = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise EnvironmentFailed(
                f"'{' '.join(argv)[:200]}' did not end within {timeout:.0f} s"
            ) from None
        finally:
            if process.poll() is None:
                _kill_group(process)
        output.seek(0)
        lines = output.read(TAIL_LINES * LINE_CHARACTERS).decode("utf-8", "replace").splitlines()
    if status != 0:
        raise CommandFailed(argv, status, tuple(lines[-TAIL_LINES:]))


def _write(pipe: IO[bytes], data: Iterable[bytes], argv: Sequence[str], deadline: float) -> None:
    """Writes `data` to the pipe. Raises TimeoutExpired when the reader takes too long."""
    os.set_blocking(pipe.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_WRITE)
        for chunk in data:
            rest = memoryview(chunk)
            while rest:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise subprocess.TimeoutExpired(list(argv), left)
                rest = rest[os.write(pipe.fileno(), rest) :]


def capture(
    argv: Sequence[str], *, timeout: float, env: Mapping[str, str], start: Start = start
) -> str:
    """Runs `argv` without a shell and returns its output. Raises the errors of `run`."""
    process = start(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env),
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(
            f"'{' '.join(argv)[:200]}' did not end within {timeout:.0f} s"
        ) from None
    finally:
        if process.poll() is None:
            _kill_group(process)
    if process.returncode != 0:
        tail = errors.decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
        raise CommandFailed(argv, process.returncode, tail)
    return output.decode("utf-8", "replace")
