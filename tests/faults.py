"""Runs a function in a child process, and disturbs one of its system calls.

The call fails, a signal comes with it, or it is the child's last.

The kernel itself stops the child at its calls (ptrace(2)), so no call is missed, whatever the code
or the library that makes it. Needs x86-64 and no privilege.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import gc
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Fault = Literal["kill", "ENOSPC", "EIO", "TERM"]
FAULTS: tuple[Fault, ...] = ("kill", "ENOSPC", "EIO")

# ptrace(2), linux/ptrace.h
TRACEME, GETREGS, SETREGS, DETACH, SYSCALL, SETOPTIONS = 0, 12, 13, 17, 24, 0x4200
TRACESYSGOOD, EXITKILL = 1, 0x100000
SYSCALL_STOP = signal.SIGTRAP | 0x80
# The registers of x86-64 (sys/user.h), in the order of struct user_regs_struct.
REGISTERS = 27
RAX, ORIG_RAX = 10, 15
# The numbers of x86-64 (asm/unistd_64.h). A kill before another call leaves what a kill before the
# next of these calls leaves.
CHANGES = {
    1: "write", 18: "pwrite64", 20: "writev", 40: "sendfile", 76: "truncate",
    77: "ftruncate", 82: "rename",
    83: "mkdir", 84: "rmdir", 86: "link", 87: "unlink", 88: "symlink", 90: "chmod", 91: "fchmod",
    257: "openat", 258: "mkdirat", 260: "fchownat", 263: "unlinkat", 264: "renameat",
    265: "linkat", 280: "utimensat", 285: "fallocate", 316: "renameat2", 326: "copy_file_range",
}  # fmt: skip
SYNCS = {3: "close", 74: "fsync", 75: "fdatasync", 277: "sync_file_range", 306: "syncfs"}
READS = {
    0: "read", 4: "stat", 5: "fstat", 6: "lstat", 8: "lseek", 17: "pread64", 73: "flock",
    217: "getdents64", 262: "newfstatat", 332: "statx",
}  # fmt: skip
CALLS: dict[Fault, dict[int, str]] = {
    "kill": CHANGES,
    "ENOSPC": CHANGES | SYNCS,
    "EIO": CHANGES | SYNCS | READS,
    "TERM": CHANGES | SYNCS | READS,
}
# The exit codes of the child.
RETURNED, RAISED, BROKEN = 0, 11, 12


@dataclass(frozen=True)
class Outcome:
    """The end of a child: `call` is the call that failed; None if it made fewer calls.

    "ended" means that SIGTERM ended the child, because it had no handler.
    """

    call: str | None
    end: Literal["killed", "ended", "returned", "raised"]


class _Registers(ctypes.Structure):
    _fields_ = [("all", ctypes.c_longlong * REGISTERS)]


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return libc


def _ptrace(request: int, pid: int, data: object = 0) -> None:
    if _libc().ptrace(request, pid, 0, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace({request})")


def run(
    action: Callable[[], object],
    number: int,
    fault: Fault,
    expected: tuple[type[BaseException], ...] = (),
) -> Outcome:
    """Runs `action` in a child, with a fault at the call `number` of `CALLS`, counted from 0.

    Fails with the child's traceback if the action raises anything but an `expected` exception.
    """
    pid = os.fork()
    if pid == 0:
        _be_child(action, expected)
    return _outcome(*_drive(pid, number, fault))


def _be_child(action: Callable[[], object], expected: tuple[type[BaseException], ...]) -> None:
    code = BROKEN
    try:
        gc.disable()
        _ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        action()
        code = RETURNED
    except expected:
        code = RAISED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _drive(pid: int, number: int, fault: Fault) -> tuple[str | None, int]:
    """Lets the child run to its end; returns the call that failed, and the child's status."""
    assert os.WIFSTOPPED(os.waitpid(pid, 0)[1])
    _ptrace(SETOPTIONS, pid, TRACESYSGOOD | EXITKILL)
    left, registers = number, _Registers()
    reference = ctypes.byref(registers)
    while (status := _next_stop(pid)) is None:
        _ptrace(GETREGS, pid, reference)
        name = CALLS[fault].get(registers.all[ORIG_RAX])
        left -= name is not None
        if left >= 0:
            # The end of the call.
            if (status := _next_stop(pid)) is not None:
                break
            continue
        if fault == "kill":
            os.kill(pid, signal.SIGKILL)
        elif fault == "TERM":
            os.kill(pid, signal.SIGTERM)
            _ptrace(DETACH, pid)
        else:
            # The kernel skips a call with the number -1.
            registers.all[ORIG_RAX] = -1
            _ptrace(SETREGS, pid, reference)
            assert _next_stop(pid) is None
            registers.all[RAX] = -getattr(errno, fault)
            _ptrace(SETREGS, pid, reference)
            _ptrace(DETACH, pid)
        return name, os.waitpid(pid, 0)[1]
    return None, status


def _next_stop(pid: int) -> int | None:
    """Lets the child run to the beginning or the end of a call; returns its status if it ends."""
    while True:
        _ptrace(SYSCALL, pid)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return status
        if os.WSTOPSIG(status) == SYSCALL_STOP:
            return None


def _outcome(call: str | None, status: int) -> Outcome:
    if os.WIFSIGNALED(status):
        ends: dict[int, Literal["killed", "ended"]] = {9: "killed", 15: "ended"}
        return Outcome(call, ends[os.WTERMSIG(status)])
    code = os.WEXITSTATUS(status)
    assert code in (RETURNED, RAISED), f"an error that no caller expects, after a failed {call}"
    return Outcome(call, "returned" if code == RETURNED else "raised")


def each(
    prepare: Callable[[], Callable[[], object]],
    fault: Fault,
    expected: tuple[type[BaseException], ...] = (),
) -> Iterator[Outcome]:
    """Runs an action once for each of its calls in `CALLS`, with the fault at that call.

    `prepare` sets up a fresh state and returns the action. The last run has no fault.
    """
    number = 0
    while True:
        outcome = run(prepare(), number, fault, expected)
        yield outcome
        if outcome.call is None:
            return
        number += 1
