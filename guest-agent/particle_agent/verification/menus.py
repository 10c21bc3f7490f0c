"""Verifies the menus of boot loaders: the files and file systems that they name must exist."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.verification import names, pe, volumes
from particle_agent.verification.volumes import FoundVolume

MENU_LIMIT = 1 << 20
LINES_LIMIT = 20_000
ENTRIES_LIMIT = 200
GRUB_MENUS = (
    "/boot/grub/grub.cfg", "/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub2/grub.cfg"
)  # fmt: skip
# GRUB manual, "linux", "initrd", "search". Older GRUBs use linuxefi for Secure Boot.
GRUB_LINUX = ("linux", "linux16", "linuxefi")
GRUB_INITRD = ("initrd", "initrd16", "initrdefi")
UUID = re.compile(r"[0-9A-Fa-f]{4,}(?:-[0-9A-Fa-f]{4,})*")
# GRUB reads another menu.
GRUB_SOURCE = ("source", ".", "configfile")
MENUS_LIMIT = 64
ON_ROOT = re.compile(r"\(\$\{?root\}?\)")
# A path on a device other than the searched one, or a path with variables.
NOT_PLAIN = re.compile(r"^\(|\$")
# Boot Loader Specification, types 1 and 2.
ENTRIES = "/loader/entries"
UNIFIED = "/EFI/Linux"
COMMAND_LINE_LIMIT = 1 << 16


@dataclass(frozen=True)
class Item:
    """A bootable item of a menu: files of one file system, and the kernel's command line."""

    place: str
    files: tuple[str, ...]
    command_line: str


def check_item(
    item: Item, trees: Sequence[Tree], disk: Sequence[FoundVolume], findings: Findings
) -> None:
    """Reports missing files of an item, and missing file systems on its command line.

    A file may be in any of `trees`.
    """
    for file in item.files:
        if not any(tree.is_file(file) for tree in trees):
            findings.add(
                "boot-menu-file-missing", item.place, f"there is no {file}, or it is empty"
            )
    names.check_command_line(item.command_line, item.place, disk, findings)


# GRUB


def check_grub(
    volume: FoundVolume,
    tree: Tree,
    menu: str,
    disk: Sequence[FoundVolume],
    findings: Findings,
    seen: set[tuple[Path, str]] | None = None,
) -> int:
    """Verifies a grub.cfg in a tree of `volume`. Returns the number of kernels that it names.

    The menu is a script. Parts that depend on its variables are not verified. A menu may read
    others; `seen` are those that are verified already.
    """
    seen = {(tree.root, menu)} if seen is None else seen
    here: FoundVolume | None = volume
    kernels = 0
    for number, line in enumerate(lines(tree, menu), start=1):
        words = line.split()
        if not words:
            continue
        place = f"{menu}:{number}"
        if words[0].startswith("search"):
            here = _searched(words, place, here, disk, findings)
        elif words[0] in GRUB_SOURCE and len(words) > 1 and here is not None:
            path = ON_ROOT.sub("", words[1])
            for other in () if NOT_PLAIN.search(path) else here.trees:
                if (other.root, path) not in seen and len(seen) < MENUS_LIMIT:
                    seen.add((other.root, path))
                    kernels += check_grub(here, other, path, disk, findings, seen)
        elif words[0] in (*GRUB_LINUX, *GRUB_INITRD) and len(words) > 1:
            linux = words[0] in GRUB_LINUX
            kernels += linux
            files = words[1:2] if linux else words[1:]
            paths = [ON_ROOT.sub("", file) for file in files]
            plain = [path for path in paths if not NOT_PLAIN.search(path)]
            line = " ".join(words[2:]) if linux else ""
            if here is not None and here.trees:
                check_item(Item(place, tuple(plain), line), here.trees, disk, findings)
    return kernels


def _searched(
    words: Sequence[str],
    place: str,
    here: FoundVolume | None,
    disk: Sequence[FoundVolume],
    findings: Findings,
) -> FoundVolume | None:
    """The file system that GRUB's `search` finds. The following paths are relative to it.

    Only a search by UUID is evaluated. Another search leaves the file system `here`.
    """
    if words[0] != "search.fs_uuid" and not {"--fs-uuid", "-u"} & set(words):
        return here
    wanted = [w for w in words[1:] if UUID.fullmatch(w)]
    if not wanted:
        return here
    name = ("UUID", wanted[0])
    if volumes.is_missing(disk, name):
        findings.add("boot-menu-device-missing", place, f"nothing on the disk is {wanted[0]}")
    return volumes.find(disk, name)


# Boot Loader Specification: https://uapi-group.org/specifications/specs/boot_loader_specification/


def entry_items(tree: Tree, directory: str = ENTRIES) -> Iterator[Item]:
    """The entries of type 1. Their paths are relative to the file system's root."""
    for name in [n for n in tree.names(directory) if n.endswith(".conf")][:ENTRIES_LIMIT]:
        path = f"{directory}/{name}"
        files, options = [], []
        for line in lines(tree, path):
            word, _, rest = line.strip().replace("\t", " ").partition(" ")
            if word in ("linux", "initrd", "efi", "uki", "devicetree"):
                files.append(rest.strip())
            elif word == "options":
                options.append(rest.strip())
        yield Item(path, tuple(files), " ".join(options))


def unified_images(tree: Tree) -> list[str]:
    found = [n for n in tree.names(UNIFIED) if n.lower().endswith(".efi")]
    return [f"{UNIFIED}/{name}" for name in found[:ENTRIES_LIMIT]]


def check_unified(tree: Tree, path: str, disk: Sequence[FoundVolume], findings: Findings) -> None:
    """Verifies that a unified kernel image has all parts, and verifies its command line."""
    place = tree.place(path)
    if place is None or not place.is_file():
        findings.add("unified-kernel-image-broken", path, "it is no regular file")
        return
    size = place.stat().st_size
    parts = pe.sections(tree.read_bytes(path, pe.HEAD_BYTES))
    missing = [name for name in (".linux", ".initrd") if name not in parts]
    cut = [name for name, (start, length) in parts.items() if start + length > size]
    if missing:
        findings.add("unified-kernel-image-broken", path, f"it has no {' and no '.join(missing)}")
    if cut:
        findings.add("unified-kernel-image-broken", path, f"{cut[0]} is cut off")
    if ".cmdline" in parts and ".cmdline" not in cut:
        start, length = parts[".cmdline"]
        with place.open("rb") as file:
            file.seek(start)
            line = file.read(min(length, COMMAND_LINE_LIMIT)).decode("utf-8", "replace")
        names.check_command_line(line.strip("\0\n "), path, disk, findings)


def lines(tree: Tree, path: str) -> list[str]:
    """The lines of a menu, with an empty line for each comment."""
    lines = tree.read(path, MENU_LIMIT).splitlines()[:LINES_LIMIT]
    return [line if not line.lstrip().startswith("#") else "" for line in lines]
