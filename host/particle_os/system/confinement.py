"""Confines the programs of the host to their own files, with Landlock and resource limits.

QEMU, qemu-img, apt, skopeo and others read bytes that strangers wrote. A defect in one of them must
not open the user's other files. Landlock needs no privilege:
https://docs.kernel.org/userspace-api/landlock.html and linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import shutil
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38  # prctl(2)
# linux/capability.h: SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT, PERFMON and BPF.
# Root in a container may have them, and PERFMON reads the variables of other programs.
PRIVILEGES = (16, 17, 19, 21, 22, 38, 39)
# System calls have the same numbers on all architectures since Linux 5.1.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH, RULE_NET_PORT = 1, 2
# The first version of Landlock that lets a program move files between its own directories.
LEAST_ABI = 2
# Rights to files: the bit, and the version of Landlock that knows it.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
ALL_SINCE = {2: (1 << 14) - 1, 3: TRUNCATE, 5: IOCTL_DEV}
# The rights that apply to a file; the kernel refuses the others in a rule for a file.
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = EXECUTE | READ_FILE | READ_DIR
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
NETWORK_ABI, SCOPE_ABI = 4, 6
# No signals, and no sockets of the abstract namespace, to programs outside.
SCOPES = 3
# The files of the host's system, which hold nothing of the user's. resolv.conf(5) is often a link.
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/proc", "/sys",
    "/nix/store", "/gnu/store", "/var/lib/dpkg", "/run/systemd/resolve",
)  # fmt: skip
RESOLVER = "/etc/resolv.conf"
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
GIB = 1 << 30
# glibc reserves up to eight arenas of 64 MiB of addresses for each processor (malloc(3)).
ARENAS = 512 << 20
FAILED = 126
Tcp = Literal["none", "ephemeral", "any"]


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """The files and the network that a program may use, in addition to the host's system.

    - `reads` and `writes` are files and directories with all that is below; those that are
      missing or closed to the user are left out. The program may read what it may write.
    - `tcp` is about connections: with "ephemeral", the program may only listen, on a port that the
      kernel chooses. Linux before 6.7 does not restrict TCP.
    - `connects` are ports that the program may connect to, on any host; `listens` are ports that
      it may listen on.
    - `memory` limits the address space, in bytes, without the arenas of malloc(3).
    - `file_size` limits each file that the program writes, in bytes: SIGXFSZ ends it there.
    """

    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    tcp: Tcp = "none"
    connects: tuple[int, ...] = ()
    listens: tuple[int, ...] = ()
    memory: int = 4 * GIB
    file_size: int | None = None

    def entry(self, program: str) -> Callable[[], None]:
        """Returns a function that confines its process, for a child before exec.

        `program` is what the child will run; it may be outside of the system's directories. The
        function raises OSError when the kernel refuses a step. All that can be done before the
        fork is done here, because other threads may hold locks at the fork.
        """
        memory = self.memory + ARENAS * (os.cpu_count() or 1)
        abi = landlock_abi()
        rules = list(_rules(self, program))
        ports = [(port, CONNECT_TCP) for port in self.connects]
        ports += [(port, BIND_TCP) for port in self.listens]

        def enter() -> None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            _limit(resource.RLIMIT_AS, memory)
            if self.file_size is not None:
                _limit(resource.RLIMIT_FSIZE, self.file_size)
            for capability in PRIVILEGES:
                # An ordinary user has none, and the kernel refuses.
                _libc().prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
            if abi:
                _restrict(abi, rules, self.tcp, ports)

        return enter


@functools.cache
def landlock_abi() -> int:
    """The version of Landlock that the kernel offers; 0 when it offers none that is of use."""
    try:
        found = _call(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0
    return found if found >= LEAST_ABI else 0


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program: PATH, LC_ALL and `extra`.

    Variables hold secrets, and QEMU faces the guest.
    """
    # dpkg's programs are in sbin, which a user's PATH may lack.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {"PATH": path, "LC_ALL": "C.UTF-8", **extra}


def _limit(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def _restrict(
    abi: int, rules: Iterable[tuple[str, int]], tcp: Tcp, ports: Iterable[tuple[int, int]]
) -> None:
    files = sum(bits for since, bits in ALL_SINCE.items() if abi >= since)
    limited = tcp != "any" and abi >= NETWORK_ABI
    attributes = [files]
    if abi >= NETWORK_ABI:
        attributes.append(BIND_TCP | CONNECT_TCP if limited else 0)
    if abi >= SCOPE_ABI:
        attributes.append(SCOPES)
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = _call(CREATE_RULESET, packed, len(packed), 0)
    for path, rights in rules:
        _allow(ruleset, path, rights & files)
    if limited and tcp == "ephemeral":
        # Port 0 stands for a port that the kernel chooses.
        _call(ADD_RULE, ruleset, RULE_NET_PORT, struct.pack("=QQ", BIND_TCP, 0), 0)
    for port, right in ports if limited else ():
        _call(ADD_RULE, ruleset, RULE_NET_PORT, struct.pack("=QQ", right, port), 0)
    if _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _rules(confinement: Confinement, program: str) -> Iterator[tuple[str, int]]:
    for system in (*SYSTEM, os.path.realpath(RESOLVER)):
        yield system, READ
    if (found := shutil.which(program, path=environment({})["PATH"])) is not None:
        yield os.path.realpath(found), READ
    for device in DEVICES:
        yield device, READ_FILE | WRITE_FILE | IOCTL_DEV
    for path in confinement.reads:
        yield str(path.absolute()), READ
    for path in confinement.writes:
        yield str(path.absolute()), ~EXECUTE


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # The program cannot open it either.
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= OF_FILES
        _call(ADD_RULE, ruleset, RULE_PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    """A system call. Raises OSError."""
    result = int(_libc().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"system call {number}")
    return result
