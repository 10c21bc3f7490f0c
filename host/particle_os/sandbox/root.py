"""The root file system of the helper VM, out of the archive that mmdebstrap makes."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from particle_os.errors import InfrastructureError
from particle_os.sandbox import netfilter

MODULES = ("failover", "net_failover", "virtio_net", "virtio_blk", "squashfs", "overlay")
# 40 % of the files. The helper VM has no users who read documentation.
LEFT_OUT = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/", "dev/")
BOOT_FILES = ("initrd.sh", "init.sh", "modprobe.sh", "sshd_config")
ROOT_FILES = {
    "etc/passwd": "root:*:0:0:root:/root:/bin/sh\nsshd:*:100:65534::/run/sshd:/usr/sbin/nologin\n"
    "_apt:*:42:65534::/nonexistent:/usr/sbin/nologin\n"
    "nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nshadow:x:42:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:20000:0:99999:7:::\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
}
ROOT_DIRECTORIES = ("dev", "proc", "sys", "run", "tmp", "root", "scratch", "particle-os")


def boot_file(name: str) -> bytes:
    return resources.files("particle_os.sandbox").joinpath("guest", name).read_bytes()


def split(archive: Path, filtered: Path) -> dict[str, bytes]:
    """Copies the files of the root file system; returns the kernel, busybox and the modules."""
    collected: dict[str, bytes] = {}
    on_demand: dict[str, tarfile.TarInfo] = {}
    modules = {f"{name}.ko{end}": name for name in MODULES for end in ("", ".xz")}
    with (
        tarfile.open(archive, "r:") as source,
        tarfile.open(filtered, "w:", format=tarfile.PAX_FORMAT) as sink,
    ):
        for member in source:
            name = member.name.removeprefix("./")
            base = name.rpartition("/")[2]
            if name.startswith("boot/vmlinuz-"):
                collected["vmlinuz"] = _content(source, member)
            if name == "usr/bin/busybox":
                collected["busybox"] = _content(source, member)
            if base in modules and name.startswith(("usr/lib/modules/", "lib/modules/")):
                data = _content(source, member)
                collected[modules[base]] = lzma.decompress(data) if base.endswith(".xz") else data
            if name.endswith((".ko", ".ko.xz")):
                on_demand[name] = member
            if name.startswith((*LEFT_OUT, "boot/")) or name in (
                "boot",
                *ROOT_DIRECTORIES,
                *ROOT_FILES,
            ):
                continue
            sink.addfile(member, source.extractfile(member) if member.isreg() else None)
        listed = netfilter.index(on_demand, lambda name: _content(source, on_demand[name]))
        for member, data in _root_members(listed):
            sink.addfile(member, io.BytesIO(data))
    if missing := [n for n in ("vmlinuz", "busybox", *MODULES) if n not in collected]:
        raise InfrastructureError(
            f"the helper's packages do not contain {', '.join(missing)}",
            hint="The template needs a kernel with these modules, and 'busybox-static'.",
        )
    return collected


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise InfrastructureError(f"{member.name} in the helper's packages is not a file")
    return file.read()


def _root_members(listed: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The files that are not in a package; `listed` is the index of the modules on demand."""
    for name in ROOT_DIRECTORIES:
        member = tarfile.TarInfo(f"./{name}")
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        yield member, b""
    files = {name: (text.encode(), 0o644) for name, text in ROOT_FILES.items()}
    files["particle-os/init.sh"] = (boot_file("init.sh"), 0o755)
    files["particle-os/modprobe.sh"] = (boot_file("modprobe.sh"), 0o755)
    files["particle-os/netfilter"] = (listed.encode(), 0o644)
    files["particle-os/sshd_config"] = (boot_file("sshd_config"), 0o644)
    for name, (data, mode) in files.items():
        member = tarfile.TarInfo(f"./{name}")
        member.size, member.mode = len(data), mode
        yield member, data
