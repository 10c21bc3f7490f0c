"""The names of systemd units, and the directories of their files."""

from __future__ import annotations

# systemd.unit(5), for the system and for the managers of users. The first one is the image's own.
SYSTEM = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
USER = (
    "/etc/systemd/user",
    "/usr/local/share/systemd/user",
    "/usr/share/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
)
# systemd-sysv-generator(8) makes units of these scripts.
SCRIPTS = "/etc/init.d"
# Units of the other types need no file: systemd makes them from fstab(5), devices and names.
WITH_FILES = ("service", "socket", "timer", "path", "target")
TYPES = (*WITH_FILES, "device", "mount", "automount", "swap", "slice", "scope")


def full_name(name: str) -> str:
    """The name with its type; as for systemctl(1), a name without one is a service."""
    return name if name.rpartition(".")[2] in TYPES and "." in name else f"{name}.service"


def template(unit: str) -> str:
    """The name of the unit file: an instance has the file of its template."""
    name, at, rest = unit.partition("@")
    return f"{name}@.{rest.rpartition('.')[2]}" if at else unit
