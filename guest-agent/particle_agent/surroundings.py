"""What keeps the scripts of packages from work that a build has no use for, or does once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from particle_agent import kernels
from particle_agent.target import ENVIRONMENT, Target

POLICY = "/usr/sbin/policy-rc.d"
# dpkg and the maintainer scripts find these programs here first.
STAND_INS = "/run/particle-os-bin"
ASKED_FOR = "/run/particle-os-asked"
HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))


@contextmanager
def services_stay_off(target: Target) -> Iterator[None]:
    """invoke-rc.d(8) asks policy-rc.d; 101 forbids the action."""
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
    """openssh-server makes no keys where a file exists; the image makes its own at first boot."""
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


@contextmanager
def generated_once(target: Target) -> Iterator[list[str]]:
    """What packages have generated again and again is generated once, at the end, side by side.

    That is the initramfs of each kernel, and udev's database of hardware. Yields the options with
    which apt-get only notes that these were asked for.
    """
    for name in ("update-initramfs", "systemd-hwdb"):
        text = f'#!/bin/sh\nmkdir -p {ASKED_FOR}\necho "$*" > {ASKED_FOR}/{name}\n'
        target.write(f"{STAND_INS}/{name}", text, mode=0o755)
    try:
        yield [f"-oDPkg::Path={STAND_INS}:{ENVIRONMENT['PATH']}"]
    finally:
        target.remove(STAND_INS)
        asked = target.list(ASKED_FOR)
        target.remove(ASKED_FOR)
    with ThreadPoolExecutor() as pool:
        hwdb = pool.submit(_make_hwdb if "systemd-hwdb" in asked else lambda target: None, target)
        if "update-initramfs" in asked:
            for version in kernels.versions(target):
                if not kernels.takes_list(target, version):
                    # Its initramfs holds the database.
                    hwdb.result()
                kernels.make_initramfs(target, version)
        hwdb.result()


def _make_hwdb(target: Target) -> None:
    target.chroot(["systemd-hwdb", "--usr", "update"])
