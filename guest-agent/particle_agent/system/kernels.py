"""The kernels of the target: their initramfs, their modules and their command line.

What a recipe asks for is kept in the target's own configuration, so that it holds for the initramfs
that an update in the running system makes, too, and for a kernel that is installed later.
"""

from __future__ import annotations

import difflib
import re

from particle_agent.errors import StageError
from particle_agent.target.target import Target

# kernel-install(8): one line, the words that a boot loader passes.
COMMAND_LINE = "/etc/kernel/cmdline"
# Words about the disk are those of the boot loader's stage.
OF_THE_DISK = re.compile(r"(?:root|rootfstype|rootflags|resume)=.*|ro|rw")
# modules-load.d(5)
MODULES_LOAD = "/etc/modules-load.d/kernel.conf"
# initramfs.conf(5) and initramfs-tools(7). What is temporary is named so that it is read first.
SETTINGS = "/etc/initramfs-tools/conf.d/recipe"
MODULES = "/usr/share/initramfs-tools/modules.d/recipe"
FAST_SETTINGS = "/etc/initramfs-tools/conf.d/particle-os"
FAST_MODULES = "/usr/share/initramfs-tools/modules.d/particle-os"
HOOK = "/usr/share/initramfs-tools/hooks/zz-particle-os"
# initramfs-tools(7): a hook is asked for what must come before it, then run. A file system whose
# tools are in the image may be that of its root; its module is loaded only when it is.
LIST_HOOK = """\
#!/bin/sh
case "$1" in
prereqs) echo udev; exit ;;
esac
. /usr/share/initramfs-tools/hook-functions
rm -f "$DESTDIR/usr/lib/udev/hwdb.bin"
for name in xfs btrfs; do
	if [ -e "/usr/sbin/mkfs.$name" ]; then manual_add_modules "$name"; fi
done
"""
# The modules that do not exist are passed over.
CLOUD_STORAGE = (
    "virtio_pci virtio_mmio virtio_blk virtio_scsi nvme ahci ata_piix sd_mod "
    "xen-blkfront hv_storvsc vmw_pvscsi mptspi ext4 crc32c_generic"
).split()
# What initramfs-tools knows: the program, its Debian package, and the kernel's option.
COMPRESSORS = {
    "gzip": ("gzip", "gzip", "CONFIG_RD_GZIP"),
    "zstd": ("zstd", "zstd", "CONFIG_RD_ZSTD"),
    "xz": ("xz", "xz-utils", "CONFIG_RD_XZ"),
    "lz4": ("lz4", "lz4", "CONFIG_RD_LZ4"),
}


def versions(target: Target) -> list[str]:
    """The versions of the kernels that are installed."""
    names = target.list("/boot")
    return [name.removeprefix("vmlinuz-") for name in names if name.startswith("vmlinuz-")]


def is_cloud(version: str) -> bool:
    """Whether it is Debian's kernel that only ever meets virtual hardware."""
    return "-cloud-" in version


def command_line(target: Target) -> list[str]:
    """The words that the recipe or the base wants on the kernel's command line."""
    text = target.read(COMMAND_LINE) if target.exists(COMMAND_LINE) else ""
    return [word for word in text.split() if not OF_THE_DISK.fullmatch(word)]


def settings(target: Target) -> dict[str, str]:
    """The settings of initramfs.conf(5) that the recipe gives."""
    text = target.read(SETTINGS) if target.exists(SETTINGS) else ""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def takes_list(target: Target, version: str) -> bool:
    """Whether the initramfs holds listed drivers only, and no database of all other hardware."""
    wanted = settings(target).get("MODULES", "list" if is_cloud(version) else "most")
    return wanted == "list"


def make_initramfs(target: Target, version: str) -> None:
    """Makes the initramfs of a kernel anew, quickly where the recipe does not say how.

    For virtual hardware a list of storage drivers does. Updates in the running image follow its
    own configuration.
    """
    wanted = settings(target)
    check_modules(target, [*_lines(target, MODULES_LOAD), *own_modules(target)], version)
    if "COMPRESS" in wanted:
        _check_compression(target, wanted["COMPRESS"], version)
    text = "" if "COMPRESS" in wanted else "COMPRESS=gzip\nCOMPRESSLEVEL=1\n"
    if takes_list(target, version):
        text += "MODULES=list\n"
        target.write(FAST_MODULES, "".join(f"{name}\n" for name in CLOUD_STORAGE))
        target.write(HOOK, LIST_HOOK, mode=0o755)
    target.write(FAST_SETTINGS, text)
    try:
        target.chroot(["update-initramfs", "-c", "-k", version])
    finally:
        for path in (FAST_SETTINGS, FAST_MODULES, HOOK):
            target.remove(path)


def _lines(target: Target, path: str) -> list[str]:
    return target.read(path).splitlines() if target.exists(path) else []


def own_modules(target: Target) -> list[str]:
    """The modules that the recipe wants in the initramfs by name."""
    return [name for name in _lines(target, MODULES) if name not in CLOUD_STORAGE]


def _check_compression(target: Target, name: str, version: str) -> None:
    """mkinitramfs(8) takes gzip, with a warning, where it does not find the program."""
    program, package, option = COMPRESSORS[name]
    if not target.exists(f"/usr/bin/{program}") and not target.exists(f"/bin/{program}"):
        raise StageError(
            f"the initramfs cannot be compressed: '{program}' is not in the image",
            hint=f"Add '{package}' to the packages of the apt stage that brings the kernel.",
        )
    config = f"/boot/config-{version}"
    if target.exists(config) and f"{option}=y\n" not in target.read(config):
        raise StageError(f"the kernel {version} cannot read an initramfs compressed by {program}")


def check_modules(target: Target, names: list[str], version: str) -> None:
    """Raises StageError for the first of these modules that the kernel has neither so nor built in.

    The lists are those of depmod(8) and of the kernel's build: paths of modules.
    """
    known: set[str] = set()
    for file in ("modules.dep", "modules.builtin"):
        path = f"/usr/lib/modules/{version}/{file}"
        if target.exists(path):
            known |= {_module(line.split(":")[0]) for line in target.read(path).splitlines()}
    if not known:
        return
    for name in names:
        if _module(name) not in known:
            near = difflib.get_close_matches(_module(name), sorted(known), n=3)
            raise StageError(
                f"the kernel {version} has no module {name}",
                hint=f"Did you mean {' or '.join(near)}?" if near else None,
            )


def _module(path: str) -> str:
    """modprobe(8) makes no difference between the two dashes."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
