"""Confines the programs of the target: root in the target must not reach the VM around it.

The programs of a stage run in mount, PID and IPC namespaces of their own. They see the scratch disk
and none of the VM's file systems, processes and disks. They lack the capabilities that lead out.
They need no user namespace: in one, a file's capabilities would get other bytes in the image.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from particle_agent.errors import CommandFailed, EnvironmentFailed
from particle_agent.target import inside
from particle_agent.target.system_calls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
    call,
    mount,
)

# linux/sched.h
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x8000000, 0x20000000
PR_CAPBSET_DROP = 24  # linux/prctl.h
# linux/capability.h. Installing packages needs these. The list is that of Docker, with
# LINUX_IMMUTABLE, IPC_OWNER, SYS_RESOURCE and LEASE, which systemd-nspawn keeps, too.
KEPT = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "LINUX_IMMUTABLE": 9,
    "NET_BIND_SERVICE": 10,
    "NET_RAW": 13,
    "IPC_OWNER": 15,
    "SYS_CHROOT": 18,
    "SYS_RESOURCE": 24,
    "MKNOD": 27,
    "LEASE": 28,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
# Stages may give these in addition.
ADDITIONAL = {"NET_ADMIN": 12, "SYS_ADMIN": 21}
# The files of /proc that change the kernel, or that show what it keeps from containers. The lists
# are those of the OCI runtimes and of systemd's ProtectKernelTunables and ProtectKernelLogs.
READ_ONLY = ("acpi", "asound", "bus", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger")
HIDDEN = ("kcore", "keys", "kmsg", "latency_stats", "sched_debug", "timer_list", "vmallocinfo")
# Where the namespace's root is put together. The enclosure needs nothing of the VM's /run.
NEW_ROOT = Path("/run")
HARDENED = MS_NOSUID | MS_NODEV | MS_NOEXEC


class Enclosure:
    """The namespaces of the target's programs. They exist from the first program to `close`.

    `root` is the directory of the target. A thread of the agent lives in the
    namespaces and starts all programs, which inherit namespaces, root directory and capabilities.
    So a program in the enclosure starts as fast as one outside. The programs have the capabilities
    in `KEPT`, and the ones whose numbers are in `more`.
    """

    def __init__(self, root: Path, more: Collection[int] = ()) -> None:
        self._root = root
        self._more = more
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None
        # The first process of the PID namespace is the parent of orphans. All others die with it.
        self._first: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Starts a program of the target; `options` are those of Popen.

        Raises CommandFailed if the target cannot run the program.
        """
        with self._lock:
            if self._thread is None:
                self._thread = self._moved_in()
            thread = self._thread
        return thread.submit(self._start, argv, options).result()

    def close(self) -> None:
        """Ends all programs in the enclosure, and returns when none of them is left."""
        with self._lock:
            if self._thread is not None:
                self._thread.shutdown()
            self._thread = None
            if self._first is not None:
                self._first.kill()
                # The kernel ends the first process last, after the agent has waited for its own.
                for process in (*self._started, self._first):
                    with process:
                        process.kill()
            self._first = None
            self._started = []

    def _start(self, argv: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[bytes]:
        self._started = [process for process in self._started if process.returncode is None]
        try:
            process = subprocess.Popen(list(argv), **options)
        except OSError as error:
            # The status of a shell.
            status = 127 if error.errno == errno.ENOENT else 126
            raise CommandFailed(argv, status, [f"{argv[0]}: {error.strerror}"]) from error
        self._started.append(process)
        return process

    def _moved_in(self) -> ThreadPoolExecutor:
        """Makes a thread that lives in the namespaces, which it makes."""
        thread = ThreadPoolExecutor(1)
        try:
            thread.submit(self._move_in).result()
        except BaseException:
            thread.shutdown()
            raise
        return thread

    def _move_in(self) -> None:
        """Moves the current thread to new namespaces, and its root directory to the target."""
        drop_capabilities(self._more)
        # What the thread starts after this call is in the new PID namespace. The thread is not.
        call("unshare", CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID)
        # The agent's later mounts in the target arrive here; no mount leaves.
        mount("", Path("/"), flags=MS_REC | MS_SLAVE)
        self._first = _first_process(_put_together(self._root))
        _close_off(NEW_ROOT / "target")
        _pivot(NEW_ROOT)
        os.chroot("/target")
        os.chdir("/")


def drop_capabilities(more: Collection[int] = ()) -> None:
    """Drops all other capabilities than those in `KEPT` for the programs that this thread starts.

    They keep those in `more`, too.

    The thread itself keeps them. See capabilities(7), "Capability bounding set".
    """
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in set(range(last + 1)) - {*KEPT.values(), *more}:
        call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)


def _put_together(root: Path) -> Path:
    """Mounts the target in an empty file system, with a new /sys. Returns the place of its /proc.

    The target's root is no root of the mount namespace, so that maintainer scripts see a chroot. A
    program that leaves its root directory, as chroot(2) describes, finds the empty file system.
    """
    mount("tmpfs", NEW_ROOT, "tmpfs", HARDENED, "mode=0755")
    top = NEW_ROOT / "target"
    top.mkdir()
    mount(root, top, flags=MS_BIND | MS_REC)
    mount("", NEW_ROOT, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | HARDENED)
    proc, sys = (inside.resolve(top, path) for path in ("/proc", "/sys"))
    for place in (proc, sys):
        # In a user namespace, the kernel permits a new /proc where an older one is whole.
        with suppress(OSError):
            call("umount2", os.fsencode(place), MNT_DETACH)
    mount("sysfs", sys, "sysfs", HARDENED | MS_RDONLY)
    return proc


def _first_process(proc: Path) -> subprocess.Popen[bytes]:
    """Starts the first process of the PID namespace, and mounts the namespace's /proc.

    cat(1) waits for input, and ends with the agent. The namespace's processes can read its memory,
    so it must be no fork of the agent, which has secrets.
    """
    first = subprocess.Popen(
        ["cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        start_new_session=True,
        preexec_fn=lambda: _become_first(proc),
    )
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdin.write(b"\n")
    first.stdin.flush()
    # When it answers, it has loaded its libraries, which it does not find after the change of root.
    if first.stdout.read(1) != b"\n":
        first.kill()
        first.communicate()
        raise EnvironmentFailed("the first process of the enclosure ended at once")
    return first


def _become_first(proc: Path) -> None:
    # The kernel then reaps the orphans, and nothing must wait for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    mount("proc", proc, "proc", HARDENED)


def _close_off(top: Path) -> None:
    """Makes the dangerous files of /proc read-only, and hides those that show too much."""
    proc = inside.resolve(top, "/proc")
    for place in (proc / name for name in READ_ONLY):
        if place.exists():
            mount(place, place, flags=MS_BIND)
            mount("", place, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | HARDENED)
    for place in (proc / name for name in HIDDEN):
        if place.exists():
            mount("/dev/null", place, flags=MS_BIND)


def _pivot(place: Path) -> None:
    """Makes the file system at `place` the root of the mount namespace, and unmounts all others.

    See pivot_root(2), 'pivot_root(".", ".")'.
    """
    os.chdir(place)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
