"""The places of files in a commit (https://ostreedev.github.io/ostree/adapting-existing/)."""

from __future__ import annotations

ETC = "/usr/etc"
# dpkg's database describes /usr and changes with it.
DATABASE, OLD_DATABASE = "/usr/share/dpkg/database", "/var/lib/dpkg"
# The directories of the machine, and their places in /var.
MOVED = {
    "/home": "home",
    "/mnt": "mnt",
    "/opt": "opt",
    "/root": "roothome",
    "/srv": "srv",
    "/usr/local": "usrlocal",
}
LINKS = {"/media": "run/media", "/ostree": "sysroot/ostree"}
EMPTY = {"/boot": 0o755, "/dev": 0o755, "/proc": 0o755, "/run": 0o755, "/sys": 0o755,
         "/sysroot": 0o755, "/tmp": 0o1777, "/var": 0o755}  # fmt: skip
# The directories of EMPTY that hide files of the image while the system runs.
HIDDEN = ("dev", "proc", "sys", "sysroot")
# Files that the package manager or the boot loader of other images put into the root directory.
SURPLUS = ("/vmlinuz", "/vmlinuz.old", "/initrd.img", "/initrd.img.old", "/lost+found")
