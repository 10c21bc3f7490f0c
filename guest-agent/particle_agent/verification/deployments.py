"""Verifies what boots the deployments of OSTree, and what updates them.

Each boot entry leads to a deployment and starts its kernel. GRUB's menu has the same entries. The
origin of a deployment names its branch, and the server of the branch (ostree(1)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from particle_agent.contract.findings import Findings
from particle_agent.contract.inspection import Deployment
from particle_agent.disk import reading
from particle_agent.disk.reading import Tree
from particle_agent.ostree.reading import DEPLOYMENTS_LIMIT, DeployedTree
from particle_agent.verification import menus
from particle_agent.verification.menus import Item
from particle_agent.verification.objects import REPOSITORY, is_copy
from particle_agent.verification.volumes import FoundVolume

# The directory of the entries and of GRUB's menu, in the root file system or in that of /boot.
LOADERS = ("/boot/loader", "/loader")
ENTRIES, MENU = "entries", "grub.cfg"
NUMBERS = re.compile(r"(\d+)")
# GRUB takes the character after a backslash as it is.
ESCAPED = re.compile(r"\\(.)")
MODULES = "/usr/lib/modules"
TEXT_BYTES = 1 << 16
# ostree-admin-config(1), ostree.repo-config(5). A container image is followed without a remote.
REFSPEC = re.compile(r"^refspec=(.+)$", re.MULTILINE)
FOLLOWED = re.compile(r"^(?:baserefspec|container-image-reference)=.+$", re.MULTILINE)
REMOTES = "/etc/ostree/remotes.d"
REMOTE = re.compile(r'^\[remote "(.+)"\]\s*$', re.MULTILINE)
MEASURE_SECONDS = 300.0
# ostree.repo-config(5): `min-free-space-percent` stays free.
SPARE_PERCENT = 3


def check(found: Sequence[FoundVolume], findings: Findings) -> None:
    """Reports entries, menus and deployments that do not belong together."""
    deployed = [(v, s) for v in found for s in v.systems if is_deployment(v, s)]
    started: list[Path] = []
    for volume in found:
        if volume.tree is not None:
            for loader in _loaders(volume.tree):
                started += _check_entries(volume.tree, loader, found, findings)
    for volume, system in deployed:
        path = _path(volume, system)
        if system.root not in started:
            findings.add("deployment-not-in-menu", path, "no boot entry starts it")
        _check_origin(volume, system, path, findings)
    for volume in {volume.number: volume for volume, _ in deployed}.values():
        _check_room(volume, started, findings)


def is_deployment(volume: FoundVolume, system: Tree) -> bool:
    """Whether the system is one of several below the root of its file system."""
    return isinstance(system, DeployedTree) and system.root != _root(volume)


def _root(volume: FoundVolume) -> Path | None:
    return None if volume.tree is None else volume.tree.root


def _path(volume: FoundVolume, system: Tree) -> str:
    root = _root(volume)
    assert root is not None
    return "/" + str(system.root.relative_to(root))


def described(tree: Tree, systems: Sequence[Tree]) -> Iterator[tuple[Deployment, Tree]]:
    """The deployments among the systems of a file system, the default first."""
    items = [item for loader in _loaders(tree) for item in _items(tree, loader)]
    places = [place for item in items if (place := tree.place(_deployed_path(item)))]
    default = places[0] if places else None
    for system in sorted(systems, key=lambda system: system.root != default):
        if not isinstance(system, DeployedTree) or system.root == tree.root:
            continue
        path = "/" + str(system.root.relative_to(tree.root))
        refspec = REFSPEC.search(tree.read(f"{path}.origin", TEXT_BYTES))
        checksum = system.root.name.partition(".")[0]
        argv = ["ostree", "show", f"--repo={tree.place(REPOSITORY)}"]
        version = reading.ask(*argv, "--print-metadata-key=version", checksum).strip()
        found = Deployment(
            path=path,
            checksum=checksum,
            version=version.strip("'")[:TEXT_BYTES] or None,
            origin=refspec[1].strip() if refspec else None,
            default=system.root == default,
        )
        yield found, system


# Entries


def _items(tree: Tree, loader: str) -> list[Item]:
    """The entries of deployments in a directory, the default first."""
    found = menus.entry_items(tree, f"{loader}/{ENTRIES}")
    items = sorted((item for item in found if _deployed_path(item)), key=_order, reverse=True)
    return items[:DEPLOYMENTS_LIMIT]


def _loaders(tree: Tree) -> list[str]:
    """The directories of entries. A link /boot leads a file system of /boot to itself."""
    places = {tree.place(loader): loader for loader in LOADERS}
    return list(places.values())


def _check_entries(
    tree: Tree, loader: str, found: Sequence[FoundVolume], findings: Findings
) -> Iterator[Path]:
    """Verifies the entries of deployments in a directory.

    Yields the deployments that they start, the default first.
    """
    items = _items(tree, loader)
    if tree.is_file(f"{loader}/{MENU}"):
        _check_menu(tree, f"{loader}/{MENU}", items, findings)
    for item in items:
        menus.check_item(item, (tree,), found, findings)
        place = _deployment(item, found)
        if place is not None:
            _check_kernel(item, tree, Tree(place), findings)
            yield place


def _deployed_path(item: Item) -> str:
    """The link to the deployment on a kernel's command line; empty without one."""
    words = dict(word.partition("=")[::2] for word in item.command_line.split())
    return words.get("ostree", "")


def _order(item: Item) -> list[tuple[int, str]]:
    """The order of `ls -v`, in which the last entry is the default."""
    parts = NUMBERS.split(item.place)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _deployment(item: Item, found: Sequence[FoundVolume]) -> Path | None:
    for volume in found:
        place = None if volume.tree is None else volume.tree.place(_deployed_path(item))
        if place is not None and any(place == system.root for system in volume.systems):
            return place
    return None


def _check_menu(tree: Tree, menu: str, items: Sequence[Item], findings: Findings) -> None:
    """Reports a menu that differs from the entries that OSTree has made it from."""
    in_menu = [item for item in _menu_items(tree, menu) if _deployed_path(item)]
    for number, (one, other) in enumerate(zip_longest(in_menu, items), start=1):
        if one is None:
            findings.add("boot-menu-differs", menu, f"it lacks {other.place}")
        elif other is None:
            findings.add("boot-menu-differs", menu, f"no file is there for its entry {number}")
        elif _meaning(one) != _meaning(other):
            findings.add(
                "boot-menu-differs", menu, f"its entry {number} differs from {other.place}"
            )


def _meaning(item: Item) -> tuple[tuple[str, ...], list[str]]:
    return item.files, item.command_line.split()


def _menu_items(tree: Tree, menu: str) -> Iterator[Item]:
    """The entries of a menu that OSTree's generator has written: kernel, then initramfs."""
    files: tuple[str, ...] = ()
    options = ""
    for line in (*menus.lines(tree, menu), "menuentry"):
        word, *words = [ESCAPED.sub(r"\1", each) for each in line.split()] or [""]
        if word == "menuentry" and files:
            yield Item(menu, files, options)
            files = ()
        elif word in menus.GRUB_LINUX and words:
            files, options = (words[0],), " ".join(words[1:])
        elif word in menus.GRUB_INITRD:
            files = (*files, *words)


def _check_kernel(item: Item, tree: Tree, deployed: Tree, findings: Findings) -> None:
    """Reports a kernel or an initramfs that is another one than that of the deployment."""
    kernels = [n for n in deployed.names(MODULES) if deployed.is_file(f"{MODULES}/{n}/vmlinuz")]
    if len(kernels) != 1:
        return
    own = [f"{MODULES}/{kernels[0]}/{name}" for name in ("vmlinuz", "initramfs.img")]
    # An entry with other files, such as a device tree, is not judged.
    if len(item.files) != len(own):
        return
    for file, path in zip(item.files, own, strict=True):
        here, there = tree.place(file), deployed.place(path)
        # A missing file is another finding.
        if here is None or there is None or not tree.is_file(file) or not deployed.is_file(path):
            continue
        if not is_copy(here, there):
            message = f"{file} differs from {path} of its deployment"
            findings.add("deployment-kernel-differs", item.place, message)


# Updates


def _check_origin(volume: FoundVolume, system: Tree, path: str, findings: Findings) -> None:
    """Reports an origin without a branch, or with a server that no file configures."""
    assert volume.tree is not None
    origin = f"{path}.origin"
    text = volume.tree.read(origin, TEXT_BYTES)
    refspec = REFSPEC.search(text)
    if refspec is None:
        if FOLLOWED.search(text) is None:
            message = "it is missing, or names no branch"
            findings.add("deployment-origin-missing", origin, message)
        return
    remote, colon, _ = refspec[1].strip().partition(":")
    if colon and remote not in _remotes(volume.tree, system):
        message = f"neither {REPOSITORY}/config nor {REMOTES} has the server '{remote}'"
        findings.add("deployment-remote-missing", origin, message)


def _remotes(tree: Tree, system: Tree) -> set[str]:
    found = set(REMOTE.findall(tree.read(f"{REPOSITORY}/config", TEXT_BYTES)))
    for name in system.names(REMOTES)[:100]:
        if name.endswith(".conf"):
            found.update(REMOTE.findall(system.read(f"{REMOTES}/{name}", TEXT_BYTES)))
    return found


def _check_room(volume: FoundVolume, started: Sequence[Path], findings: Findings) -> None:
    """Reports a file system that an update of the default version may fill."""
    roots = [system.root for system in volume.systems]
    default = next((place for place in started if place in roots), roots[0])
    status, told = reading.output(
        ["du", "--one-file-system", "--summarize", "--block-size=1", str(default)],
        seconds=MEASURE_SECONDS,
        limit=TEXT_BYTES,
    )
    size = told.partition("\t")[0]
    if status != 0 or not size.isdecimal():
        return
    state = os.statvfs(default)
    spare = state.f_blocks * state.f_frsize * SPARE_PERCENT // 100
    free = max(0, state.f_bavail * state.f_frsize - spare)
    if free < int(size):
        message = f"a version has {_mebibytes(int(size))}, and {_mebibytes(free)} are free"
        findings.add("update-room-missing", volume.name, message)


def _mebibytes(size: int) -> str:
    return f"{size >> 20} MiB"
