"""Runs a command as a container without privilege does: `container.py COMMAND [ARGUMENT ...]`.

Root keeps the capabilities that Docker leaves it, and no others. An ordinary user has none. For
both, the filter of Docker refuses namespaces and mounts (docs.docker.com/engine/security/seccomp).
"""

import ctypes
import errno
import os
import sys

import pyseccomp as seccomp

CLONE_NEWUSER = 0x10000000
PR_CAPBSET_DROP = 24
# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW,
# SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP, by their numbers in linux/capability.h.
KEPT = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
REFUSED = (
    "unshare setns mount umount umount2 pivot_root move_mount open_tree fsopen fsmount fspick "
    "mount_setattr keyctl add_key request_key bpf perf_event_open userfaultfd"
).split()


def confine() -> None:
    policy = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    for name in REFUSED:
        policy.add_rule(seccomp.ERRNO(errno.EPERM), name)
    new_user = seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER)
    policy.add_rule(seccomp.ERRNO(errno.EPERM), "clone", new_user)
    # The flags of clone3 lie in memory, which a filter cannot read; libc falls back to clone.
    policy.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() == 0:
        # As in a container, programs can become another user.
        policy.set_attr(seccomp.Attr.CTL_NNP, 0)
        policy.load()
        for capability in range(64):
            if capability not in KEPT:
                libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    else:
        policy.load()
    if libc.unshare(CLONE_NEWUSER) == 0 or ctypes.get_errno() != errno.EPERM:
        sys.exit("container.py: unshare was not refused")


if __name__ == "__main__":
    confine()
    os.execvp(sys.argv[1], sys.argv[1:])
