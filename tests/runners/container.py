"""Runs a command as a container without privilege does.

usage: container.py [--root DIRECTORY [--bind PATH ...] --] COMMAND [ARGUMENT ...]

Root keeps the capabilities that Docker leaves it, and no others. An ordinary user has none. For
both, the filter of Docker refuses namespaces and mounts (docs.docker.com/engine/security/seccomp).

With --root, the command sees the system in DIRECTORY, in which each PATH is the host's, and a /dev
with the devices of a container: there is no /dev/kvm. Only root can do that.
"""

import argparse
import ctypes
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pyseccomp as seccomp

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
PR_CAPBSET_DROP = 24
# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW,
# SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP, by their numbers in linux/capability.h.
KEPT = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
REFUSED = (
    "unshare setns mount umount umount2 pivot_root move_mount open_tree fsopen fsmount fspick "
    "mount_setattr keyctl add_key request_key bpf perf_event_open userfaultfd"
).split()
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name, str(arguments))


def bind(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.touch()
    call("mount", bytes(source), bytes(target), None, MS_BIND | MS_REC, None)


def enter(root: Path, binds: Sequence[Path]) -> None:
    """Makes the directory `root` the root, in a mount namespace of this process."""
    call("unshare", CLONE_NEWNS)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    call("mount", b"none", bytes(root / "dev"), b"tmpfs", 0, b"mode=755")
    for name in DEVICES:
        bind(Path("/dev", name), root / "dev" / name)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (root / "dev" / name).symlink_to(f"/proc/self/fd/{number}")
    (root / "dev/fd").symlink_to("/proc/self/fd")
    (root / "dev/pts").mkdir()
    call("mount", b"none", bytes(root / "dev/pts"), b"devpts", 0, b"newinstance,ptmxmode=0666")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    (root / "dev/shm").mkdir()
    (root / "dev/shm").chmod(0o1777)
    for place in (Path("/proc"), Path("/sys"), *binds):
        bind(place, root / str(place).lstrip("/"))
    working = Path.cwd()
    os.chroot(root)
    os.chdir(working if working.is_dir() else "/")


def confine() -> None:
    """Takes all rights that a container does not have."""
    policy = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    for name in REFUSED:
        policy.add_rule(seccomp.ERRNO(errno.EPERM), name)
    new_user = seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER)
    policy.add_rule(seccomp.ERRNO(errno.EPERM), "clone", new_user)
    # The flags of clone3 lie in memory, which a filter cannot read; libc falls back to clone.
    policy.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    if os.getuid() == 0:
        # As in a container, programs can become another user.
        policy.set_attr(seccomp.Attr.CTL_NNP, 0)
        policy.load()
        for capability in range(64):
            if capability not in KEPT:
                LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    else:
        policy.load()
    if LIBC.unshare(CLONE_NEWUSER) == 0 or ctypes.get_errno() != errno.EPERM:
        sys.exit("container.py: unshare was not refused")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--bind", type=Path, action="append", default=[])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.root is not None:
        enter(given.root, given.bind)
    confine()
    command = given.command[1:] if given.command[0] == "--" else given.command
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
