"""Runs a command as an ordinary user that can gain no privileges.

usage: confine.py UID GID COMMAND [ARGUMENT ...]

The command has no capabilities, no_new_privs, and a seccomp filter that refuses unshare, setns,
every kind of mount, and clone with CLONE_NEWUSER. The user stays when UID is the caller's own.
"""

import ctypes
import errno
import os
import sys

import pyseccomp as seccomp

CLONE_NEWUSER = 0x10000000
PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24
REFUSED = (
    "unshare setns mount umount umount2 pivot_root chroot move_mount open_tree fsopen fsmount "
    "fspick mount_setattr"
).split()


def confine(uid: int, gid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() == 0:
        for capability in range(64):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    policy = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    for name in REFUSED:
        policy.add_rule(seccomp.ERRNO(errno.EPERM), name)
    new_user = seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER)
    policy.add_rule(seccomp.ERRNO(errno.EPERM), "clone", new_user)
    # The flags of clone3 lie in memory, which a filter cannot read; libc falls back to clone.
    policy.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    policy.load()


def check() -> None:
    """Fails unless the confinement holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) == 0 or ctypes.get_errno() != errno.EPERM:
        sys.exit("confine.py: unshare was not refused")
    with open("/proc/self/status") as status:  # noqa: PTH123
        fields = dict(line.split(":", 1) for line in status)
    for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(fields[field], 16) and not (field == "CapBnd" and os.environ.get("KEEP_BOUND")):
            sys.exit(f"confine.py: {field} is not empty")
    if fields["NoNewPrivs"].strip() != "1" or fields["Seccomp"].strip() != "2":
        sys.exit("confine.py: no_new_privs or seccomp is missing")


if __name__ == "__main__":
    was_root = os.getuid() == 0
    confine(int(sys.argv[1]), int(sys.argv[2]))
    if not was_root:
        os.environ["KEEP_BOUND"] = "1"
    check()
    os.execvp(sys.argv[3], sys.argv[3:])
