"""Removes from a system what must differ between machines, and the leftovers of its build."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from particle_agent.system import first_boots
from particle_agent.system.hosts import DEFAULT_HOSTS, hosts
from particle_agent.target import inside
from particle_agent.target.target import Target

# systemd-update-done.service(8)
UPDATE_DONE = "/usr/lib/systemd/systemd-update-done"
HOST_KEY_UNIT = "particle-os-ssh-host-keys.service"
# ssh-keygen(1): -A makes the missing host keys.
HOST_KEY_TEXT = """\
[Unit]
Description=Make SSH host keys at first boot
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
Before=ssh.service ssh.socket sshd-keygen.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
"""
FILES = (
    # Container images have a policy that keeps every service from starting at package upgrades.
    "/usr/sbin/policy-rc.d",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
    "/var/cache/ldconfig/aux-cache",
    "/root/.bash_history",
    "/etc/.pwd.lock",
)
# Directories that `empty` empties.
CONTENTS = ("tmp", "var/tmp", "run", "var/lib/apt/lists", "var/cache/apt/archives")
LOGS = ("/var/log/apt", "/var/log/dpkg.log", "/var/log/alternatives.log", "/var/log/bootstrap.log")
BACKUPS = {"/var/cache/debconf": "-old", "/var/lib/dpkg": "-old"}


def rewrites() -> Iterator[tuple[str, str]]:
    """The files that no image contains as they were, and the reason."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/ssh/ssh_host_*"):
        yield path, "leave it out: each machine makes its own"
    logs = [pattern for path in LOGS for pattern in (path, f"{path}/*")]
    backups = [f"{directory}/*{suffix}" for directory, suffix in BACKUPS.items()]
    for path in (*FILES, *logs, *backups, *(f"/{each}/*" for each in CONTENTS)):
        yield path, "leave it out: no image contains it"
    own = "give the file another name: this one makes the SSH host keys of each machine"
    yield f"/etc/systemd/system/{HOST_KEY_UNIT}", own


def run(target: Target, *, first_boot: bool = False) -> None:
    """Prepares the target as the common system of many machines.

    systemd makes the machine-id at the first boot (machine-id(5)). With `first_boot` it also starts
    the units with ConditionFirstBoot=, and applies the presets.
    """
    target.write("/etc/machine-id", "uninitialized\n" if first_boot else "", mode=0o444)
    if first_boot:
        first_boots.prepare(target)
    target.remove("/var/lib/dbus/machine-id")
    if target.exists("/usr/bin/dbus-uuidgen"):
        target.symlink("/var/lib/dbus/machine-id", "/etc/machine-id")
    if not target.exists("/etc/hostname"):
        target.write("/etc/hostname", f"{target.hostname}\n")
        # Keep a file that the recipe or the base has changed.
        if not target.exists("/etc/hosts") or target.read("/etc/hosts") == DEFAULT_HOSTS:
            target.write("/etc/hosts", hosts(target, target.hostname))
    for name in target.list("/etc/ssh"):
        if name.startswith("ssh_host_"):
            target.remove(f"/etc/ssh/{name}")
    if target.exists("/usr/sbin/sshd"):
        target.write(f"/etc/systemd/system/{HOST_KEY_UNIT}", HOST_KEY_TEXT)
        target.symlink(
            f"/etc/systemd/system/multi-user.target.wants/{HOST_KEY_UNIT}", f"../{HOST_KEY_UNIT}"
        )
    for path in (*FILES, *LOGS):
        target.remove(path)
    if target.exists(UPDATE_DONE):
        # The packages' scripts have done the work that systemd would repeat at the first boot
        # (ldconfig, ...). The program records the time of /usr, so clamp that first.
        if target.source_date is not None:
            clamp_time(target.path("/usr"), target.source_date)
        target.chroot([UPDATE_DONE])
    for directory, suffix in BACKUPS.items():
        for name in target.list(directory):
            if name.endswith(suffix):
                target.remove(f"{directory}/{name}")


def empty(tree: Path, more: Sequence[str] = ()) -> None:
    """Empties directories whose content a running system recreates, and `more`.

    `tree` is the target without mounts, which would hide the content of these directories.
    """
    for directory in (*CONTENTS, *more):
        # A link in the tree never leads to a directory of the VM.
        place = inside.resolve(tree, directory, follow=False)
        if place.is_symlink() or not place.is_dir():
            continue
        for entry in place.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def clamp_time(place: Path, latest: int) -> None:
    """Sets the modification time to `latest` (seconds since 1970) if it is later.

    The access time becomes the modification time.
    """
    changed = min(place.lstat().st_mtime_ns, latest * 10**9)
    os.utime(place, ns=(changed, changed), follow_symlinks=False)
