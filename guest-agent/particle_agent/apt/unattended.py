"""Keeps maintainer scripts from actions that must not happen in an image.

These measures are no shortcuts: without them the image would be different, or wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from particle_agent.target.target import Target

POLICY = "/usr/sbin/policy-rc.d"
HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))


@contextmanager
def services_stay_off(target: Target) -> Iterator[None]:
    """Keeps services from starting. Status 101 of policy-rc.d forbids it (invoke-rc.d(8))."""
    if target.exists(POLICY):
        yield
        return
    target.write(POLICY, "#!/bin/sh\nexit 101\n", mode=0o755)
    try:
        yield
    finally:
        target.remove(POLICY)


@contextmanager
def no_host_keys(target: Target) -> Iterator[None]:
    """Keeps openssh-server from making host keys, which the image makes at first boot.

    openssh-server makes no key whose file exists.
    """
    placeholders = [path for path in HOST_KEYS if not target.exists(path)]
    had_directory = target.exists("/etc/ssh")
    for path in placeholders:
        target.write(path, "", mode=0o600)
    try:
        yield
    finally:
        for path in placeholders:
            if target.exists(path) and target.read(path) == "":
                target.remove(path)
        if not had_directory and not target.list("/etc/ssh"):
            target.remove("/etc/ssh")
