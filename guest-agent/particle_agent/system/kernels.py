"""The kernels of the target: initramfs, modules and command line.

The recipe's choices go into the target's own configuration. So they also apply to later kernels,
and to an initramfs that an update in the running system makes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from particle_agent.contract.needs import Need
from particle_agent.errors import StageError
from particle_agent.target.target import Target

# kernel-install(8): one line with the words that a boot loader passes to the kernel.
COMMAND_LINE = "/etc/kernel/cmdline"
# Words about the disk, which the stage with the boot loader sets.
OF_THE_DISK = re.compile(r"(?:root|rootfstype|rootflags|resume)=.*|ro|rw")
# modules-load.d(5)
MODULES_LOAD = "/etc/modules-load.d/kernel.conf"
# initramfs.conf(5) and initramfs-tools(7). The temporary files sort before the recipe's files, so
# that initramfs-tools reads them first and the recipe overrides them.
SETTINGS = "/etc/initramfs-tools/conf.d/recipe"
MODULES = "/usr/share/initramfs-tools/modules.d/recipe"
FAST_SETTINGS = "/etc/initramfs-tools/conf.d/particle-os"
FAST_MODULES = "/usr/share/initramfs-tools/modules.d/particle-os"
HOOK = "/usr/share/initramfs-tools/hooks/zz-particle-os"
# initramfs-tools(7): a hook is called with "prereqs" to list its predecessors, then to do its work.
# A file system whose tools are in the image may be the root file system, so add its module.
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
# initramfs-tools ignores modules that do not exist.
CLOUD_STORAGE = (
    "virtio_pci virtio_mmio virtio_blk virtio_scsi nvme ahci ata_piix sd_mod "
    "xen-blkfront hv_storvsc vmw_pvscsi mptspi ext4 crc32c_generic"
).split()
# The compressors of initramfs-tools: the program, its Debian package, and the kernel's option.
COMPRESSORS = {
    "gzip": ("gzip", "gzip", "CONFIG_RD_GZIP"),
    "zstd": ("zstd", "zstd", "CONFIG_RD_ZSTD"),
    "xz": ("xz", "xz-utils", "CONFIG_RD_XZ"),
    "lz4": ("lz4", "lz4", "CONFIG_RD_LZ4"),
}
# The common packages (`debian.WITHOUT`) that bring such a package in at least one suite.
BRINGS = {"xz-utils": ("build-essential", "linux-image-*", "nginx-*")}


def rewrites() -> Iterator[tuple[str, str]]:
    """The files that no image has after its initramfs is made (see `StageOptions.rewrites`)."""
    for path in (FAST_SETTINGS, FAST_MODULES, HOOK):
        yield path, "give the file another name: the build uses and removes this one"


def compression_needs(name: str) -> Iterator[Need]:
    """The need for the program that compresses the initramfs; every Debian has gzip."""
    program, package, _ = COMPRESSORS[name]
    if name != "gzip":
        yield Need(
            what=f"package {package}",
            message=f"the initramfs needs the package '{package}', which no stage installs",
            hint=f"add '{package}' to the packages of the apt stage that brings the kernel",
            key=("compression",),
            packages=(package, *BRINGS.get(package, ())),
            files=(f"/usr/bin/{program}", f"/bin/{program}"),
        )


def versions(target: Target) -> list[str]:
    """The versions of the installed kernels."""
    names = target.list("/boot")
    return [name.removeprefix("vmlinuz-") for name in names if name.startswith("vmlinuz-")]


def images(target: Target) -> dict[str, int]:
    """The names of the initramfs images, with the times of their last change (ns)."""
    names = [name for name in target.list("/boot") if name.startswith("initrd.img-")]
    return {name: target.path(f"/boot/{name}").stat().st_ctime_ns for name in names}


def is_cloud(version: str) -> bool:
    """Whether this is Debian's kernel for virtual hardware only."""
    return "-cloud-" in version


def command_line(target: Target) -> list[str]:
    """The words of the recipe or the base for the kernel's command line, without the disk's."""
    # In the tree of an OSTree commit, /etc is /usr/etc.
    path = next((p for p in (COMMAND_LINE, f"/usr{COMMAND_LINE}") if target.exists(p)), None)
    text = "" if path is None else target.read(path)
    return [word for word in text.split() if not OF_THE_DISK.fullmatch(word)]


def settings(target: Target) -> dict[str, str]:
    """The recipe's settings of initramfs.conf(5)."""
    text = target.read(SETTINGS) if target.exists(SETTINGS) else ""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def takes_list(target: Target, version: str) -> bool:
    """Whether the initramfs has only listed drivers and no hardware database."""
    wanted = settings(target).get("MODULES", "list" if is_cloud(version) else "most")
    return wanted == "list"


def make_initramfs(target: Target, version: str) -> None:
    """Makes the initramfs of a kernel.

    The recipe's settings apply. The defaults of this build are fast: weak compression and, for
    virtual hardware, a list of storage drivers. Updates in the running image do not use these
    defaults. Raises StageError for an unknown module or an unusable compression.
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
    """The modules that the recipe names for the initramfs."""
    return [name for name in _lines(target, MODULES) if name not in CLOUD_STORAGE]


def _check_compression(target: Target, name: str, version: str) -> None:
    """Raises StageError if the image or the kernel lacks the compression.

    Without the program, mkinitramfs(8) would only warn and use gzip.
    """
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
    """Raises StageError for the first module that is neither loadable nor built into the kernel.

    modules.dep is from depmod(8), modules.builtin from the kernel's build. Both list paths.
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
    """The module name of a path. modprobe(8) treats dashes and underscores as equal."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
