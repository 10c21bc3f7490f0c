"""Reads the menus of extlinux and syslinux: the items, and the default.

https://wiki.syslinux.org/wiki/index.php?title=Config defines the format. In unclear cases this
module follows com32/elflink/ldlinux/readconfig.c of syslinux 6.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO

from particle_agent.disk.reading import Tree
from particle_agent.verification.menus import LINES_LIMIT, Item, lines

# The directories where extlinux(1) and syslinux(1) look for their files and configuration.
DIRECTORIES = (
    "/boot/extlinux", "/extlinux", "/boot/syslinux", "/syslinux", "/EFI/syslinux", "/boot", "/"
)  # fmt: skip
NAMES = ("extlinux.conf", "syslinux.cfg")
LOADER = "ldlinux.sys"
MODULE = "ldlinux.c32"
MODULE_SUFFIX = ".c32"
# The suffixes that syslinux tries on a name that is no label (ldlinux.c).
SUFFIXES = ("", ".c32", ".img", ".bss", ".bin", ".bs", ".0")
# The limit for included files, and for menus.
FILES_LIMIT = 64
# libinstaller/syslxint.h: the first sector of the loader's file contains PATCHED after the magic
# number. One field of PATCHED is the offset of PLACES in the file. PLACES has the offsets at which
# the boot sector stores the file's first sector, relative to the partition. The sum of all words of
# the file is the magic number.
CORE_LIMIT = 1 << 20
CORE_MAGIC = 0x3EB202FE
PATCHED = struct.Struct("<IIHHIIHH")
PLACES = struct.Struct("<10H")
# The versions for which PLACES is known.
KNOWN_CORE = re.compile(rb"\r\n(?:SYS|EXT)LINUX 6\.")
SECTOR = 512
# A module's argument that stands for the default menu, which is read in any case.
SAME = "~"


@dataclass
class Menu:
    """The content of a configuration file. Its paths are relative to `directory`.

    `others` are the menus that it refers to: the label, the file, and the directory for its paths.
    `interface` is true if a module shows the menu. `refuge` is true if a label is started after a
    timeout or on an error.
    """

    path: str
    directory: PurePosixPath
    items: list[Item] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    others: list[tuple[str, str, PurePosixPath]] = field(default_factory=list)
    default: str = ""
    interface: bool = False
    refuge: bool = False


@dataclass
class _Label:
    path: str
    name: str
    kernel: str = ""
    initrd: str = ""
    append: str | None = None


def directory(tree: Tree) -> str | None:
    """The directory with the files of extlinux."""
    return next((d for d in DIRECTORIES if LOADER in tree.names(d)), None)


def core_fault(core: bytes, boot_sector: bytes, partition: IO[bytes], start: int) -> str | None:
    """The reason why `boot_sector` does not start the loader file with the content `core`, or None.

    The partition begins at byte `start` of the disk `partition`.
    """
    magic = CORE_MAGIC.to_bytes(4, "little")
    place = next((i for i in range(0, SECTOR, 4) if core[i : i + 4] == magic), None)
    if place is None or place + PATCHED.size > len(core):
        return "it is not a loader that extlinux has installed"
    *_, words, _, _, places = PATCHED.unpack_from(core, place)
    if 4 * words > len(core) or _sum(core[: 4 * words]) != CORE_MAGIC:
        return "its content is damaged"
    if not KNOWN_CORE.match(core) or places + PLACES.size > len(core):
        return None
    low, high = PLACES.unpack_from(core, places)[7:9]
    number = int.from_bytes(boot_sector[low : low + 4] + boot_sector[high : high + 4], "little")
    partition.seek(start + number * SECTOR)
    if partition.read(SECTOR) != core[:SECTOR]:
        return f"it is not in sector {number} of the partition, where the boot sector looks for it"
    return None


def _sum(data: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f"<{len(data) // 4}I", data)
    return sum(words) & 0xFFFFFFFF


def read(tree: Tree, where: str) -> list[Menu]:
    """The menu in a directory, then the menus that it refers to; empty when there is none."""
    name = next((n for n in NAMES if n in tree.names(where)), None)
    pending = [] if name is None else [(f"{where}/{name}", PurePosixPath(where))]
    found: dict[str, Menu] = {}
    while pending and len(found) < FILES_LIMIT:
        path, place = pending.pop(0)
        if path not in found:
            found[path] = _menu(tree, path, place)
            pending += [(other, its) for _, other, its in found[path].others]
    return list(found.values())


def stalls(tree: Tree, found: list[Menu]) -> str | None:
    """The reason why no item starts without a user's choice, or None."""
    by_path = {menu.path: menu for menu in found}
    menu: Menu | None = found[0]
    seen: set[str] = set()
    while menu is not None and menu.path not in seen:
        seen.add(menu.path)
        # A shown menu, a timeout and an error handler may start an item in ways not read here.
        if menu.interface or menu.refuge:
            return None
        if not menu.default:
            return f"{menu.path} has no DEFAULT"
        name = menu.default.split()[0]
        if name not in menu.labels and not _is_program(tree, menu.directory / name):
            return f"the DEFAULT of {menu.path} is {name}, which is neither a label nor a file"
        menu = next((by_path.get(p) for label, p, _ in menu.others if label == name), None)
    return None


def _is_program(tree: Tree, path: PurePosixPath) -> bool:
    # syslinux looks for modules in several directories, so assume that a module exists.
    if path.suffix == MODULE_SUFFIX:
        return True
    return any(tree.is_file(f"{path}{suffix}") for suffix in SUFFIXES)


def _menu(tree: Tree, path: str, place: PurePosixPath) -> Menu:
    """Reads a configuration file. Its paths are relative to the directory `place`."""
    menu = Menu(path, place)
    labels: list[_Label] = []
    general = ""
    for source, word, rest in _directives(tree, path, place):
        label = labels[-1] if labels else None
        match word:
            case "LABEL" if rest:
                labels.append(_Label(source, rest.split()[0]))
            case "LINUX" | "KERNEL" if label:
                label.kernel = rest
            case "INITRD" if label:
                label.initrd = rest
            case "APPEND" if label:
                label.append = rest
            case "APPEND":
                general = rest
            case "CONFIG" if label and rest:
                other, _, its = rest.partition(" ")
                menu.others.append((label.name, str(place / other), place / its.strip()))
            case "UI":
                menu.interface = True
                arguments = [name for name in rest.split()[1:] if name != SAME]
                menu.others += [("", str(place / name), place) for name in arguments]
            case "DEFAULT":
                menu.default = rest
            case "ONTIMEOUT" | "ONERROR":
                menu.refuge = True
    menu.labels = {label.name for label in labels}
    if menu.default and menu.default.split()[0] not in menu.labels:
        labels.append(_Label(path, menu.default))
    items = [_item(tree, place, label, general) for label in labels]
    menu.items = [item for item in items if item is not None]
    return menu


def _item(tree: Tree, place: PurePosixPath, label: _Label, general: str) -> Item | None:
    """The item of a label; None if it does not boot a kernel."""
    # The name of a label without KERNEL is the kernel.
    kernel, _, arguments = (label.kernel or label.name).partition(" ")
    if kernel.endswith(MODULE_SUFFIX) or not (label.kernel or tree.is_file(str(place / kernel))):
        return None
    added = general if label.append is None else label.append
    line = f"{arguments} {'' if added == '-' else added}".strip()
    files = [kernel, *label.initrd.split(",")]
    for word in line.split():
        if word.startswith("initrd="):
            files += word.removeprefix("initrd=").split(",")
    paths = tuple(str(place / file) for file in files if file)
    return Item(f"{label.path} ({label.name})", paths, line)


def _directives(tree: Tree, menu: str, place: PurePosixPath) -> Iterator[tuple[str, str, str]]:
    """The file, upper-case word and rest of each line. Included lines replace INCLUDE.

    Paths in included files are relative to the directory of the menu, too.
    """
    pending = [(menu, iter(lines(tree, menu)))]
    files = count = 0
    in_text = False
    while pending and count < LINES_LIMIT:
        path, left = pending[-1]
        line = next(left, None)
        if line is None:
            pending.pop()
            continue
        count += 1
        word, rest = _split(line)
        if word == "MENU" and _split(rest)[0] == "INCLUDE":
            word, rest = _split(rest)
        if in_text or word == "TEXT":
            in_text = word != "ENDTEXT"
        elif word != "INCLUDE":
            yield path, word, rest
        elif rest and files < FILES_LIMIT:
            files += 1
            # A second argument makes the included entries a submenu with this name.
            included = str(place / rest.split()[0])
            if included not in [name for name, _ in pending]:
                pending.append((included, iter(lines(tree, included))))


def _split(line: str) -> tuple[str, str]:
    word, *rest = line.split(None, 1) or [""]
    return word.upper(), rest[0].strip() if rest else ""
