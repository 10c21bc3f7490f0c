"""Lets the image's own bootc install it: `bootc install to-filesystem`.

Experimental: no suite of Debian has bootc, so no real one has run here. The options are those of
https://bootc.dev/bootc/man/bootc-install-to-filesystem.8.html, of bootc 1.16.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from particle_agent.contract.needs import Need
from particle_agent.disk import volumes
from particle_agent.disk.identity import Identifiers
from particle_agent.disk.volumes import Volume
from particle_agent.errors import StageError
from particle_agent.ostree.container import archive, empty_disk, layer
from particle_agent.ostree.container.documents import ImageDescription
from particle_agent.ostree.container.empty_disk import InstalledDisk
from particle_agent.ostree.container.install_options import KEYS, PLACE, BootcInstall
from particle_agent.ostree.image.lints import BOOTC
from particle_agent.system import generalize
from particle_agent.target.target import Target

SOURCE, ROOT = f"{PLACE}/source", f"{PLACE}/root"
IMAGE = "image.oci.tar"
NOTE = "'installer: bootc' is experimental: particle-os was never tested with a real bootc"


def need() -> Need:
    """The need of the installer: bootc itself, which no package of Debian brings."""
    return Need(
        what="program bootc",
        message="'installer: bootc' needs /usr/bin/bootc, which no stage before it brings",
        hint="take a base image of bootc, or put the program into the image with a 'files' stage",
        key=("installer",),
        files=(BOOTC,),
    )


def install(target: Target, options: BootcInstall, wanted: InstalledDisk) -> None:
    """Makes the disk with empty file systems, and lets bootc fill it.

    Raises StageError for an image without bootc, and CommandFailed when bootc fails.
    """
    if not target.exists(BOOTC):
        raise StageError(f"the image has no {BOOTC}", hint=f"{need().hint.capitalize()}.")
    target.reporter.note(NOTE)
    generalize.run(target)
    ids = Identifiers(target)
    with _source(target) as source:
        parts = empty_disk.sized(target, wanted, source.stat().st_size)
        content = 2 * max(part.content for part in parts)
        size = volumes.disk_size(parts)
        disk = target.output_disk(size, content=min(content, size))
        volumes.partition(target, disk, wanted.table, parts, ids)
        for part in parts:
            empty_disk.make_file_system(target, part, volumes.node(disk, parts, part.name), ids)
        _run(target, options, wanted.loader, source.parent, disk, parts)
    target.run(["sync"])
    target.reporter.disk_written(size)


@contextmanager
def _source(target: Target) -> Iterator[Path]:
    """Writes the system as a container image, which bootc reads; removes it at the end."""
    directory = target.root.parent / "bootc"
    directory.mkdir(mode=0o700)
    file = directory / IMAGE
    date = int(time.time()) if target.source_date is None else target.source_date
    image = ImageDescription(target.hostname, None, None, None, date)
    try:
        with target.mounted(target.root, "--bind") as tree, file.open("w+b") as sink:
            generalize.empty(tree)
            archive.write_to(sink, image, layer.members(tree, target.source_date))
        yield file
    finally:
        file.unlink(missing_ok=True)
        directory.rmdir()


def _run(
    target: Target,
    options: BootcInstall,
    loader: str,
    source: Path,
    disk: Path,
    parts: Sequence[Volume],
) -> None:
    """Runs bootc, with the file systems mounted and the nodes of the output disk in /dev."""
    argv = [BOOTC, "install", "to-filesystem", f"--source-imgref=oci-archive:{SOURCE}/{IMAGE}"]
    # The stage has no network.
    argv += ["--skip-fetch-check", *options.words(loader), ROOT]
    with ExitStack() as stack:
        stack.callback(target.remove, PLACE)
        stack.enter_context(target.mounted_inside(source, SOURCE, "--bind"))
        if options.root_ssh_authorized_keys:
            target.write(KEYS, "".join(f"{key}\n" for key in options.root_ssh_authorized_keys))
        for part in sorted(parts, key=lambda part: part.mount):
            if part.mount:
                node = volumes.node(disk, parts, part.name)
                where = f"{ROOT}{part.mount}".rstrip("/")
                stack.enter_context(empty_disk.mounted_inside(target, part, node, where))
        for node in (disk, *(Path(f"{disk}{n}") for n in range(1, len(parts) + 1))):
            stack.enter_context(_device(target, node))
        # It mounts file systems.
        with target.capability("SYS_ADMIN"):
            target.chroot(argv)


@contextmanager
def _device(target: Target, node: Path) -> Iterator[None]:
    """Shows a device of the VM in /dev of the target, which has no disks otherwise."""
    target.write(f"/dev/{node.name}", "")
    place = target.path(f"/dev/{node.name}")
    target.run(["mount", "--bind", str(node), str(place)])
    try:
        yield
    finally:
        target.run(["umount", str(place)])
        place.unlink()
