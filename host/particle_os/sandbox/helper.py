"""The parts of the helper VM: kernel, initrd and read-only root, made once without privilege.

mmdebstrap (mode chrootless, variant extract) fetches, verifies and extracts Debian packages as an
ordinary user, and runs none of their scripts. One pass over its archive separates the kernel and
the few modules of the initrd; tar2sqfs turns the rest into the root file system.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from particle_os.apt import mmdebstrap
from particle_os.apt.proxy import NO_PROXY, ChosenProxy
from particle_os.sandbox import root
from particle_os.sandbox.template import Template
from particle_os.system import process, publication
from particle_os.system.checksum import file_sha256
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import read_regular
from particle_os.system.workspace import Workspace, locked
from particle_os.vm import cpio

# Increase it when the same template and tools give different files.
FORMAT = 3
FILES = ("kernel", "initrd", "root.squashfs")
SUMS = "SHA256SUMS"
SUMS_LIMIT = 1 << 16
MAKE_SECONDS = 900.0
ZSTD = b"\x28\xb5\x2f\xfd"
# The field "header" of a kernel for x86 (boot.rst).
X86_SIGN, X86_SIGN_PLACE = b"HdrS", 0x202
# XEN_ELFNOTE_PHYS32_ENTRY (Linux' include/xen/interface/elfnote.h) gives QEMU the entry point.
PVH_NOTE = struct.pack("<III4s", 4, 8, 18, b"Xen")


@dataclass(frozen=True)
class Helper:
    """The files of a helper, and the key, which identifies everything that they depend on."""

    key: str
    kernel: Path
    initrd: Path
    root: Path

    def identity(self) -> str:
        """Identifies this build of the helper, because the mirror's packages are not in the key."""
        status = self.root.stat()
        return f"{self.key} {status.st_size} {status.st_mtime_ns}"

    def is_intact(self) -> bool:
        """Whether the files have their checksums."""
        return intact(self.root.parent)


def key_of(template: Template) -> str:
    """A hash of everything that the files depend on, except the packages on the mirror."""
    parts = {
        "format": FORMAT,
        "template": asdict(template),
        "tools": [process.identity("mmdebstrap"), process.identity("tar2sqfs")],
        "files": {
            **root.ROOT_FILES,
            **{n: root.boot_file(n).decode() for n in root.BOOT_FILES},
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _parts(directory: Path, key: str) -> Helper:
    return Helper(key, directory / "kernel", directory / "initrd", directory / "root.squashfs")


def find(template: Template, cache: Path) -> Helper | None:
    """The helper of this template; None when it has not been made yet."""
    key = key_of(template)
    directory = cache / "helpers" / key
    if not directory.is_dir():
        return None
    # Mark it as used: pruning the cache removes the least recently used entries first.
    with suppress(OSError):
        os.utime(directory)
    return _parts(directory, key)


def ensure(
    template: Template,
    *,
    cache: Path,
    work: Workspace,
    log: Callable[[str], None],
    note: Callable[[str], None],
    proxy: ChosenProxy = NO_PROXY,
) -> Helper:
    """The helper of this template; makes it when the cache lacks it.

    A lock makes concurrent callers make it once. `work` holds temporary files.
    """
    if (helper := find(template, cache)) and helper.is_intact():
        return helper
    store = cache / "helpers"
    store.mkdir(exist_ok=True, mode=0o700)
    key = key_of(template)
    deadline = Deadline.after(MAKE_SECONDS, f"making the helper VM {template.name}")
    with locked(store / f"{key}.lock", deadline):
        if helper := find(template, cache):
            if helper.is_intact():
                return helper
            note(f"the helper VM {template.name} is damaged")
            (store / key).rename(work.path / "damaged-helper")
        note(f"making the helper VM {template.name} (once)")
        made = work.path / "helper"
        made.mkdir(mode=0o700)
        _make(template, made, log, deadline, proxy)
        publication.keep(made, store / key)
    return _parts(store / key, key)


def adopt(template: Template, made: Path, cache: Path) -> None:
    """Moves the files of a helper that another machine has made into the cache, if it lacks one."""
    store = cache / "helpers"
    store.mkdir(exist_ok=True, mode=0o700)
    key = key_of(template)
    deadline = Deadline.after(MAKE_SECONDS, f"keeping the helper VM {template.name}")
    with locked(store / f"{key}.lock", deadline):
        if find(template, cache) is None:
            publication.keep(made, store / key)


def _make(
    template: Template,
    work: Path,
    log: Callable[[str], None],
    deadline: Deadline,
    proxy: ChosenProxy,
) -> None:
    archive = work / "extracted.tar"
    wanted = mmdebstrap.Extraction(
        template.suite,
        template.mirror,
        template.architecture,
        [template.kernel or template.record.image.kernels[0], *template.packages],
        archive,
    )
    mmdebstrap.extract_packages(wanted, work=work, log=log, deadline=deadline, proxy=proxy)
    filtered = work / "root.tar"
    collected = root.split(archive, filtered)
    archive.unlink()
    _write_initrd(work / "initrd", collected)
    _write_kernel(work / "kernel", collected["vmlinuz"], deadline)
    _write_root(filtered, work / "root.squashfs", log, deadline)
    filtered.unlink()
    (work / SUMS).write_text("".join(f"{sha256}  {name}\n" for name, sha256 in _sums(work).items()))


def _write_root(archive: Path, path: Path, log: Callable[[str], None], deadline: Deadline) -> None:
    """Makes the root file system of an archive."""
    with archive.open("rb") as stream:
        process.run(
            ["tar2sqfs", "--quiet", "--compressor", "zstd", "--defaults", "uid=0,gid=0,mode=0755"]
            + ["--no-skip", path],
            stdin=stream,
            deadline=deadline,
            what="making the helper's root file system",
            within=Confinement(writes=(path.parent,)),
            log=log,
        )


def _sums(directory: Path) -> dict[str, str]:
    # hashlib releases the interpreter lock.
    with ThreadPoolExecutor(len(FILES)) as pool:
        digests = pool.map(lambda name: file_sha256(directory / name), FILES)
        return dict(zip(FILES, digests, strict=True))


def intact(directory: Path) -> bool:
    """Whether the files of a helper have their checksums."""
    try:
        lines = read_regular(directory / SUMS, SUMS_LIMIT).decode().splitlines()
        listed = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
        return listed == _sums(directory)
    except (OSError, ValueError):
        return False


def _write_kernel(path: Path, image: bytes, deadline: Deadline) -> None:
    """Writes the kernel without its compression, which costs an emulated processor a second.

    QEMU starts the kernel at its PVH entry. A kernel without that entry, or with another
    compression than zstd, stays unchanged; so does a kernel of arm64, which has none. Source of the
    offsets: "payload_offset" in Linux' Documentation/arch/x86/boot.rst.
    """
    path.write_bytes(image)
    if image[X86_SIGN_PLACE : X86_SIGN_PLACE + len(X86_SIGN)] != X86_SIGN:
        return
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    if image[start : start + len(ZSTD)] != ZSTD:
        return
    packed, unpacked = path.with_suffix(".zst"), path.with_suffix(".elf")
    # The last four bytes of the payload are the unpacked size.
    packed.write_bytes(image[start : start + length - 4])
    process.run(
        ["zstd", "--quiet", "--decompress", "-o", unpacked, packed],
        deadline=deadline,
        what="unpacking the helper's kernel",
        within=Confinement(writes=(path.parent,)),
    )
    packed.unlink()
    if _contains(unpacked, PVH_NOTE):
        unpacked.rename(path)
    else:
        unpacked.unlink()


def _contains(path: Path, words: bytes) -> bool:
    """Whether a file contains these bytes; reads it in chunks."""
    before = b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            if words in before + chunk:
                return True
            before = chunk[-len(words) :]
    return False


def _write_initrd(path: Path, collected: dict[str, bytes]) -> None:
    """Writes an initramfs of busybox, the modules and guest/initrd.sh as its init."""
    entries = [("bin", 0o040755, b""), ("modules", 0o040755, b"")]
    entries.append(("init", 0o100755, root.boot_file("initrd.sh")))
    entries.append(("bin/busybox", 0o100755, collected["busybox"]))
    entries += [(f"modules/{name}.ko", 0o100644, collected[name]) for name in root.MODULES]
    cpio.append(path, entries)
