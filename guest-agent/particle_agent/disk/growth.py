"""Growth of the root file system at boot, for disks that are larger than the image."""

from __future__ import annotations

from collections.abc import Iterator

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.disk import boot
from particle_agent.disk.volumes import DiskLabel
from particle_agent.target.target import Target

# systemd.mount(5): systemd-growfs@.service(8) grows the file system to its partition.
MOUNT_OPTION = "x-systemd.growfs"
# repart.d(5): the partition of this type takes all free space.
DEFINITION = "/etc/repart.d/50-root.conf"
UNITS, UNIT = "/etc/systemd/system", "particle-os-grow.service"
REPART, GROWPART = "/usr/bin/systemd-repart", "/usr/bin/growpart"
UNIT_TEXT = """\
[Unit]
Description=Grow the partition of the root file system
DefaultDependencies=no
After=systemd-remount-fs.service tmp.mount
Before=systemd-growfs-root.service local-fs.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
# growpart ends with 1 when there is nothing to do.
SuccessExitStatus=1
ExecStart=/bin/sh -eu -c '\\
  name=$$(basename "$$(findmnt --nofsroot -n -o SOURCE /)"); \\
  disk=$$(basename "$$(dirname "$$(readlink -f "/sys/class/block/$$name")")"); \\
  exec growpart "/dev/$$disk" "$$(cat "/sys/class/block/$$name/partition")"'

[Install]
WantedBy=local-fs.target
"""
# / and /sysroot of a deployment are read-only, so that no program grows their file system. /var is
# another mount of it, which systemd-growfs(8) may change.
DEPLOYED_UNIT = "particle-os-grow-file-system.service"
DEPLOYED_UNIT_TEXT = f"""\
[Unit]
Description=Grow the root file system
Documentation=man:systemd-growfs(8)
DefaultDependencies=no
RequiresMountsFor=/var
After=systemd-repart.service {UNIT}
Before=sysinit.target shutdown.target
Conflicts=shutdown.target
ConditionPathExists=/run/ostree-booted

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/systemd/systemd-growfs /var

[Install]
WantedBy=sysinit.target
"""


def need(table: DiskLabel) -> Need:
    """The need for the package that grows a partition at boot."""
    if table == "gpt":
        return needs.package("systemd-repart", REPART, "growing a partition", "grow")
    why = "growing a partition"
    return needs.package("cloud-guest-utils", GROWPART, why, "grow")


def rewrites(table: DiskLabel) -> Iterator[tuple[str, str]]:
    """The files that 'grow' replaces (see `StageOptions.rewrites`)."""
    units = (DEPLOYED_UNIT,) if table == "gpt" else (UNIT, DEPLOYED_UNIT)
    for path in (*((DEFINITION,) if table == "gpt" else ()), *(f"{UNITS}/{u}" for u in units)):
        yield path, "give the file another name, or leave out 'grow', which writes this one"


def check(target: Target, table: DiskLabel) -> None:
    """Raises StageError unless the image has the package that grows a partition."""
    if table == "msdos":
        boot.need(target, GROWPART, "cloud-guest-utils", "growing a partition")
    else:
        boot.need(target, REPART, "systemd-repart", "growing a partition")


def set_up(target: Target, table: DiskLabel) -> None:
    """Configures the running system to grow the partition. systemd-repart(8) supports GPT only."""
    if table == "gpt":
        target.write(DEFINITION, "[Partition]\nType=root\n")
        return
    _enable(target, UNIT, UNIT_TEXT, "local-fs.target")


def set_up_deployment(target: Target, table: DiskLabel) -> None:
    """Configures a deployment to grow the partition and its file system; updates keep that."""
    set_up(target, table)
    _enable(target, DEPLOYED_UNIT, DEPLOYED_UNIT_TEXT, "sysinit.target")


def _enable(target: Target, unit: str, text: str, wanted_by: str) -> None:
    target.write(f"{UNITS}/{unit}", text)
    target.symlink(f"{UNITS}/{wanted_by}.wants/{unit}", f"../{unit}")
