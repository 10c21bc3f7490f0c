"""QMP, QEMU's machine protocol: https://www.qemu.org/docs/master/interop/qmp-spec.html."""

from __future__ import annotations

import collections
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from particle_os.errors import (
    InfrastructureError,
    NotEnoughSpace,
    ParticleError,
    VmError,
    printable,
)
from particle_os.system.deadline import Deadline
from particle_os.vm.argv import OUTSIDE, Disk, blockdev
from particle_os.vm.chardev import connect_unix

REPLY_LIMIT = 1 << 20
EVENTS = 256
QUERY_SECONDS = 5.0
DISK_ERROR = "BLOCK_IO_ERROR"


class Monitor:
    """A QMP connection; QEMU answers commands in turn, and events are kept for `events`."""

    def __init__(
        self, directory: Path, name: str, deadline: Deadline, alive: Callable[[], bool]
    ) -> None:
        self._socket = connect_unix(directory, name, deadline, alive)
        self._received = b""
        self._events: collections.deque[dict[str, Any]] = collections.deque(maxlen=EVENTS)
        self._disk_error: InfrastructureError | None = None
        self._receive(deadline)
        self.execute("qmp_capabilities", deadline)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _receive(self, deadline: Deadline) -> dict[str, Any]:
        try:
            line = self._line(deadline)
            message = json.loads(line) if line else None
        except (OSError, ValueError, RecursionError) as error:
            raise VmError(f"QEMU's monitor failed: {error}") from error
        if not isinstance(message, dict):
            raise VmError("QEMU closed its monitor")
        if "event" in message:
            self._events.append(message)
            if message["event"] == DISK_ERROR and self._disk_error is None:
                self._disk_error = _disk_error(message)
        return message

    def _line(self, deadline: Deadline) -> bytes:
        """The next line; nothing at the end. Each part of it counts for the deadline."""
        while b"\n" not in self._received and len(self._received) < REPLY_LIMIT:
            self._socket.settimeout(deadline.remaining())
            if not (data := self._socket.recv(1 << 16)):
                break
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    def execute(self, command: str, deadline: Deadline, **arguments: object) -> Any:
        """Runs a QMP command and returns its value. Raises VmError when QEMU refuses it."""
        request = (
            {"execute": command, "arguments": arguments} if arguments else {"execute": command}
        )
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise VmError(f"QEMU's monitor failed: {error}") from error
        return self._reply(command, deadline)

    def _reply(self, command: str, deadline: Deadline) -> Any:
        while True:
            message = self._receive(deadline)
            if "error" in message:
                raise VmError(f"QEMU refuses {command}: {message['error'].get('desc')}")
            if "return" in message:
                return message["return"]

    def events(self, deadline: Deadline) -> list[dict[str, Any]]:
        """Returns the events since the last call, the latest EVENTS at most.

        Format: https://www.qemu.org/docs/master/interop/qmp-spec.html.
        """
        self.execute("query-status", deadline)
        return self._taken()

    def disk_error(self) -> InfrastructureError | None:
        """The first error of the host in reading or writing a disk of the guest, if any.

        It is NotEnoughSpace for a full disk. A QEMU that has ended may have reported one.
        """
        with suppress(InfrastructureError):
            deadline = Deadline.after(QUERY_SECONDS, "QEMU's answer about its disks")
            self.execute("query-status", deadline)
        return self._disk_error

    @contextmanager
    def blaming_disks(self) -> Iterator[None]:
        """Names a disk of the host that has failed as the cause of an error.

        The guest sees an input/output error, whose effect may be any error of a program.
        """
        try:
            yield
        except NotEnoughSpace:
            raise
        except ParticleError as error:
            found = self.disk_error()
            if found is None:
                raise
            # The log has what the guest printed, such as a traceback.
            found.where, found.tail = error.where, (error.brief,)
            raise found from error

    def last_events(self, deadline: Deadline) -> list[dict[str, Any]]:
        """Waits for QEMU's end, and returns the events before it."""
        try:
            while True:
                self._receive(deadline)
        except InfrastructureError:
            return self._taken()

    def _taken(self) -> list[dict[str, Any]]:
        taken = list(self._events)
        self._events.clear()
        return taken

    def human(self, line: str, deadline: Deadline) -> str:
        """Returns the output of a command of QEMU's human monitor (HMP)."""
        return str(
            self.execute("human-monitor-command", deadline, **{"command-line": line})
        ).replace("\r", "")

    def disk_operations(self, deadline: Deadline) -> int:
        """Returns the number of the guest's reads and writes on all disks."""
        statistics = [item["stats"] for item in self.execute("query-blockstats", deadline)]
        return sum(int(each["rd_operations"] + each["wr_operations"]) for each in statistics)

    def forwards(self, deadline: Deadline) -> dict[int, int]:
        """Returns the port on 127.0.0.1 for each forwarded TCP port of the guest."""
        pattern = r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)\s"
        found = re.findall(pattern, self.human("info usernet", deadline))
        return {int(guest): int(host) for host, guest in found}

    def forwarded_port(self, deadline: Deadline) -> int:
        """Returns the port on 127.0.0.1 for the guest's SSH server. Raises VmError without one."""
        if (port := self.forwards(deadline).get(22)) is not None:
            return port
        raise VmError("QEMU forwards no port to the VM's SSH server")

    def connect_outside(self, connected: bool, deadline: Deadline) -> None:
        """Puts the cable into the card that leads outside, or takes it out.

        No program of the guest can undo that.
        """
        self.execute("set_link", deadline, name=OUTSIDE, up=connected)

    def overlay(self, old: Disk, new: Disk, deadline: Deadline) -> None:
        """Redirects writes from `old` to `new`, whose file exists; `old` stays unchanged."""
        below, above = f"disk-{old.serial}", f"disk-{new.serial}"
        self.execute("blockdev-add", deadline, **blockdev(new, above))
        self.execute("blockdev-snapshot", deadline, node=below, overlay=above)

    def resize(self, disk: Disk, size: int, deadline: Deadline) -> None:
        """Resizes a disk to `size` bytes; QEMU notifies the guest."""
        node = f"disk-{disk.serial}"
        self.execute("block_resize", deadline, **{"node-name": node, "size": size})

    def screendump(self, file: str, deadline: Deadline) -> None:
        """Writes a PNG picture of the screen to `file` in QEMU's working directory.

        Needs QEMU 7.1 or later.
        """
        self.execute("screendump", deadline, filename=file, format="png")

    def save(self, state: int, deadline: Deadline) -> None:
        """Stops the machine, and writes memory and device state to the file descriptor `state`."""
        self.execute("stop", deadline)
        self.execute("migrate-set-parameters", deadline, **{"max-bandwidth": 1 << 40})
        self._pass(state, deadline)
        self.execute("migrate", deadline, uri="fd:state")
        self._await_migration(deadline)

    def restore(self, state: int, deadline: Deadline) -> None:
        """Reads memory and device state from the file descriptor `state`, and runs the machine."""
        self._pass(state, deadline)
        self.execute("migrate-incoming", deadline, uri="fd:state")
        self._await_migration(deadline)
        self.run(deadline)

    def run(self, deadline: Deadline) -> None:
        """Lets a machine run that stands still."""
        self.execute("cont", deadline)

    def _pass(self, descriptor: int, deadline: Deadline) -> None:
        """Passes an open file to QEMU (SCM_RIGHTS), so that QEMU needs no path and no program."""
        request = json.dumps({"execute": "getfd", "arguments": {"fdname": "state"}})
        try:
            socket.send_fds(self._socket, [request.encode() + b"\n"], [descriptor])
        except OSError as error:
            raise VmError(f"QEMU's monitor failed: {error}") from error
        self._reply("getfd", deadline)

    def _await_migration(self, deadline: Deadline) -> None:
        while True:
            status = self.execute("query-migrate", deadline).get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise VmError(f"QEMU cannot save or restore the machine: migration {status}")
            deadline.remaining()
            time.sleep(0.01)


def _disk_error(event: dict[str, Any]) -> InfrastructureError:
    """The error that an event BLOCK_IO_ERROR reports.

    Format: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html.
    """
    data = event.get("data", {})
    node = str(data.get("node-name", "")).removeprefix("disk-")
    action = "write to" if data.get("operation") == "write" else "read"
    reason = printable(str(data.get("reason", "")), 200) or "input/output error"
    message = f"the host cannot {action} the VM's disk '{printable(node, 80)}': {reason}"
    if data.get("nospace"):
        hint = "The host's disk is full: free space in the cache's and the output's directory."
        return NotEnoughSpace(message, hint=hint)
    hint = "The host's disk has failed: see 'journalctl -k', and check the disk."
    return InfrastructureError(message, hint=hint)
