"""A root shell in the target."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from particle_agent.agent.channel import Channel
from particle_agent.agent.scratch import (
    ROOT,
    mount_scratch,
    mounted_for_chroot,
)
from particle_agent.apt import proxy as apt_proxy
from particle_agent.contract import wire
from particle_agent.ostree.image.layout import DATABASE, ETC
from particle_agent.ostree.tree import is_commit
from particle_agent.target.target import ENVIRONMENT, Target

# /run of the target is a tmpfs, so that the file is not part of the system.
APT_CONFIG = "/run/particle-os-apt.conf"


# apt shows why a source fails; the shell starts anyway.
UPDATE = ("apt-get", "update", "-q")


def run_shell(options: wire.ShellOptions) -> int:
    """Runs a root shell in the target on the streams of this process. Returns its exit status.

    apt in the shell uses the proxy, if there is one.
    """
    mount_scratch()
    # The channel sends no events here: the streams belong to the user.
    target = Target(ROOT, Channel(sys.stderr, sys.stdin.buffer), hostname="target")
    program = "/bin/bash" if target.exists("/bin/bash") else "/bin/sh"
    environment = {**ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
    with mounted_for_chroot(ROOT), _commit_shown(target) as variables, target.network():
        environment |= variables
        if options.apt_proxy is not None:
            target.write(APT_CONFIG, apt_proxy.configuration(options.apt_proxy))
            environment["APT_CONFIG"] = APT_CONFIG
        try:
            if options.apt_indexes:
                target.start(["chroot", str(ROOT), *UPDATE], env=environment).wait()
            return target.start(["chroot", str(ROOT), program, "-l"], env=environment).wait()
        finally:
            target.end_programs()


@contextmanager
def _commit_shown(target: Target) -> Iterator[Mapping[str, str]]:
    """Shows the files of a commit at the places that programs know.

    Yields the variables by which they find the others. Without a commit, nothing changes.
    """
    if not is_commit(target):
        yield {}
        return
    with target.mounted_inside(target.path(ETC), "/etc", "--bind"):
        yield {"DPKG_ADMINDIR": DATABASE}
