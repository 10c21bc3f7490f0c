"""Verifies that the names in fstab and on the kernel's command line exist."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree, default_in
from particle_agent.verification import volumes
from particle_agent.verification.volumes import UNSTABLE, FoundVolume

FSTAB = "/etc/fstab"
FSTAB_LIMIT = 1 << 20
LINES_LIMIT = 1000
# getmntent(3): the escapes of blanks within a field.
OCTAL = re.compile(r"\\(\d{3})")
# With one of these options the boot continues without the file system.
OPTIONAL = {"nofail", "noauto", "x-systemd.automount"}
EXT = {"ext2", "ext3", "ext4"}
INIT = "/sbin/init"
# Mount points without a line in fstab.
KERNEL_MOUNTS = ("/dev", "/proc", "/run", "/sys", "/tmp")
# btrfs(5): the subvolume to mount. If /usr is a separate file system, it contains the init.
SUBVOLUME = re.compile(r"(?:^|,)subvol=([^,]+)")
USR_MOUNT = re.compile(r"^[^#\s]\S*\s+/usr\s", re.MULTILINE)
# mkswap(8): the end of the first page.
SWAP_PAGE = 4096
SWAP_SIGNATURE = b"SWAPSPACE2"


def check_fstab(root: Tree, disk: Sequence[FoundVolume], findings: Findings) -> None:
    """Reports names in the fstab(5) of the root directory `root` that do not exist."""
    text = root.read(FSTAB, FSTAB_LIMIT)
    mounts, sources = [*KERNEL_MOUNTS], dict[str, str]()
    for number, line in enumerate(text.splitlines()[:LINES_LIMIT], start=1):
        fields = [OCTAL.sub(_blank, field) for field in line.split()]
        if not fields or fields[0].startswith("#"):
            continue
        place = f"{FSTAB}:{number}"
        if len(fields) < 3:
            findings.add("fstab-line-broken", place, "it has fewer than three fields")
            continue
        name, mount, kind, *more = fields
        options = more[0].split(",") if more else []
        if OPTIONAL.isdisjoint(options):
            _check_source(name, kind, place, root, disk, findings)
        if mount.startswith("/") and not root.exists(mount):
            findings.add("fstab-mount-point-missing", place, f"there is no directory {mount}")
        mounts.append(mount)
        if not {"bind", "rbind"}.isdisjoint(options) and name.startswith("/"):
            sources[place] = name
    for place, name in sources.items():
        # Directories in other mounts are invisible here.
        covered = any(PurePosixPath(name).is_relative_to(m) for m in mounts if m != "/")
        if not covered and not root.exists(name):
            findings.add("fstab-bind-missing", place, f"there is no directory {name}")


def _blank(match: re.Match[str]) -> str:
    return chr(int(match.group(1), 8) & 0x7F)


def _check_source(
    name: str, kind: str, place: str, root: Tree, disk: Sequence[FoundVolume], findings: Findings
) -> None:
    tagged = volumes.parse(name)
    if tagged is not None:
        volume = volumes.find(disk, tagged)
        if volumes.is_missing(disk, tagged):
            findings.add("fstab-device-missing", place, f"nothing on the disk is {name}")
        elif volume is not None and not _fits(kind, volume.kind):
            message = f"it says {kind}, but {volume.name} has {volume.kind}"
            findings.add("fstab-type-wrong", place, message)
    elif volumes.lacks_partition(disk, name):
        findings.add("fstab-device-missing", place, f"the disk has no partition {name}")
    elif UNSTABLE.fullmatch(name):
        findings.add("fstab-unstable", place, f"{name} may be another disk on other hardware")
    elif kind == "swap" and name.startswith("/") and not name.startswith("/dev/"):
        head = root.read_bytes(name, SWAP_PAGE)
        if not head.endswith(SWAP_SIGNATURE) or len(head) < SWAP_PAGE:
            findings.add("fstab-swap-broken", place, f"{name} is no swap file")


def _fits(wanted: str, found: str) -> bool:
    """Whether mount(8) accepts a file system of the kind `found` as one of the kind `wanted`."""
    if wanted in ("auto", found) or {wanted, found} <= EXT:
        return True
    # Compare known kinds only: other kinds have several names.
    known = {*EXT, "xfs", "btrfs", "vfat", "swap"}
    return not {wanted, found} <= known


def check_command_line(
    line: str, place: str, disk: Sequence[FoundVolume], findings: Findings
) -> None:
    """Reports names on a kernel's command line that do not exist on the disk."""
    words = dict(word.partition("=")[::2] for word in line.split())
    root = words.get("root", "")
    # Without root= the initramfs finds the root file system by other means. A "$" is a variable of
    # GRUB's script.
    if not root or "$" in root:
        return
    name = volumes.parse(root)
    volume = volumes.find(disk, name) if name else None
    if name and volumes.is_missing(disk, name):
        findings.add("root-missing", place, f"nothing on the disk is {root}")
    elif volumes.lacks_partition(disk, root):
        findings.add("root-missing", place, f"the disk has no partition {root}")
    elif UNSTABLE.fullmatch(root):
        findings.add("root-unstable", place, f"{root} may be another disk on other hardware")
    resume = volumes.parse(words.get("resume", ""))
    if resume and volumes.is_missing(disk, resume):
        findings.add("resume-missing", place, f"nothing on the disk is {words['resume']}")
    if volume is not None and volume.tree is not None and "rdinit" not in words:
        tree = _mounted(volume.tree, volume.kind, words.get("rootflags", ""))
        init, deployed = words.get("init", INIT), words.get("ostree", "")
        if tree is not None and not tree.exists(deployed):
            message = f"{volume.name} has no deployment {deployed}"
            findings.add("deployment-missing", place, message)
        elif tree is not None and not _has_init(tree, deployed, init):
            findings.add("init-missing", place, f"{volume.name} has no program {init}")


def _mounted(tree: Tree, kind: str, flags: str) -> Tree | None:
    """The tree that the kernel mounts as its root; None if it is a missing subvolume."""
    if (found := SUBVOLUME.search(flags)) is None:
        return default_in(tree, kind)
    place = tree.place(found.group(1))
    return Tree(place) if place is not None and place.is_dir() else None


def _has_init(tree: Tree, deployed: str, init: str) -> bool:
    """Whether the system has its first program. If /usr is another file system, that may have it.

    ostree-prepare-root(1): `deployed` is a link to the directory of the system.
    """
    place = tree.place(deployed)
    system = tree if place is None else Tree(place)
    return bool(USR_MOUNT.search(system.read(FSTAB, FSTAB_LIMIT))) or _is_program(system, init)


def _is_program(tree: Tree, path: str) -> bool:
    place = tree.place(path)
    return place is not None and tree.is_file(path) and bool(place.stat().st_mode & 0o111)
