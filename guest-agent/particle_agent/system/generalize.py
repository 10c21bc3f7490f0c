"""Takes out of a system what must differ between machines and what its build left behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from particle_agent.system.hosts import DEFAULT_HOSTS, hosts
from particle_agent.target.target import Target

# systemd-update-done.service(8)
UPDATE_DONE = "/usr/lib/systemd/systemd-update-done"
HOST_KEY_UNIT = "particle-os-ssh-host-keys.service"
# ssh-keygen(1): -A makes those host keys that do not exist.
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
    # Container images bring one that keeps every service from starting at package upgrades.
    "/usr/sbin/policy-rc.d",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
    "/var/cache/ldconfig/aux-cache",
    "/root/.bash_history",
    "/etc/.pwd.lock",
)
# Directories that stay, empty.
CONTENTS = ("tmp", "var/tmp", "run", "var/lib/apt/lists", "var/cache/apt/archives")
LOGS = ("/var/log/apt", "/var/log/dpkg.log", "/var/log/alternatives.log", "/var/log/bootstrap.log")
BACKUPS = {"/var/cache/debconf": "-old", "/var/lib/dpkg": "-old"}


def run(target: Target) -> None:
    """Makes the target a system that many machines can start from.

    machine-id(5): an empty /etc/machine-id is filled at the first boot, without the first-boot
    presets that would enable units which the recipe did not ask for.
    """
    target.write("/etc/machine-id", "", mode=0o444)
    target.remove("/var/lib/dbus/machine-id")
    if target.exists("/usr/bin/dbus-uuidgen"):
        target.symlink("/var/lib/dbus/machine-id", "/etc/machine-id")
    if not target.exists("/etc/hostname"):
        target.write("/etc/hostname", f"{target.hostname}\n")
        # What somebody else has written stays.
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
        # The packages' scripts have done what systemd would do at the first boot (ldconfig, ...).
        # It notes the time of /usr.
        if target.source_date is not None:
            clamp_time(target.path("/usr"), target.source_date)
        target.chroot([UPDATE_DONE])
    for directory, suffix in BACKUPS.items():
        for name in target.list(directory):
            if name.endswith(suffix):
                target.remove(f"{directory}/{name}")


def empty(tree: Path) -> None:
    """Empties directories whose content a running system makes anew.

    `tree` is the target without the mounts that hide what lies in these directories.
    """
    for directory in CONTENTS:
        place = tree / directory
        if place.is_symlink() or not place.is_dir():
            continue
        for entry in place.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def clamp_time(place: Path, latest: int) -> None:
    """Sets the time of the last change to `latest` (seconds since 1970) if it is later.

    The time of the last access becomes that of the last change.
    """
    changed = min(place.lstat().st_mtime_ns, latest * 10**9)
    os.utime(place, ns=(changed, changed), follow_symlinks=False)
