"""The text of fstab(5): the file systems of the disk, and the mounts of the recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from particle_agent.contract.options import Options, Place
from particle_agent.contract.values import (
    FileSystemType,
    MountOption,
    MountSource,
    MountTarget,
    PassNumber,
)
from particle_agent.target.target import Target

PATH = "/etc/fstab"
SWAP = "swap"
# fstab(5): how to write what separates fields or begins a comment.
ESCAPES = {ord(character): f"\\{ord(character):03o}" for character in " \t\n\\#"}
# The mount points that the disk's own file systems can have, depending on the boot loader.
OWN = ("/", "/boot", "/boot/efi")
# Mount options, and the pass of fsck(8) for the root file system (0: none).
DEFAULTS = {
    "ext4": ("errors=remount-ro", 1),
    "xfs": ("defaults", 0),
    "btrfs": ("defaults", 0),
    "vfat": ("umask=0077", 1),
}


# What the running system itself mounts.
MOUNTED = MappingProxyType({"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs", "/run": "tmpfs"})
# Files of every system.
FILES = (
    "/etc/fstab", "/etc/group", "/etc/gshadow", "/etc/hostname", "/etc/hosts", "/etc/machine-id",
    "/etc/passwd", "/etc/resolv.conf", "/etc/shadow",
)  # fmt: skip
# A system starts from these, before it mounts others.
NEEDED = ("/bin", "/etc", "/lib", "/lib32", "/lib64", "/sbin", "/usr")


@dataclass(frozen=True, kw_only=True)
class Mount(Options):
    """A line of /etc/fstab, or more options for a file system of the image's own disk."""

    where: MountTarget
    """The mount point, which is created; `none` for swap. For `/` and the other file systems of the
    image's own disk, `what` and `type` are known."""
    what: MountSource | None = None
    """The file system: LABEL=, UUID= or PARTLABEL= and a name, a device, a directory to bind,
    HOST:/PATH for NFS, or a word such as `tmpfs`."""
    type: FileSystemType | None = None
    """The type, such as `ext4`, `nfs`, `tmpfs` or `swap`; `none` for a directory to bind."""
    options: tuple[MountOption, ...] = ()
    """Options of mount(8) and systemd.mount(5), such as `nofail` or `x-systemd.automount`."""
    pass_: PassNumber | None = None
    """When fsck(8) checks it at boot: 0 for never, 1 for the root file system, 2 for others."""

    def faults(self, own: Collection[str]) -> Iterator[tuple[Place, str]]:
        """The faults of this mount; `own` are the mount points of the disk's own file systems."""
        if self.where in own:
            for name in ("what", "type"):
                if getattr(self, name) is not None:
                    why = "is a file system of the image's own disk; leave out"
                    yield (name,), f"{self.where} {why} '{name}', and give it 'options'"
            if not self.options and self.pass_ is None:
                yield ("where",), f"{self.where} is mounted anyway; give it 'options'"
            return
        missing = "the disk has no file system for it; " if self.where in OWN else ""
        for name in ("what", "type"):
            if getattr(self, name) is None:
                yield (), f"{self.where}: {missing}write '{name}'"
        if (self.where == "none") != (self.type == SWAP) and self.type is not None:
            yield ("where",), "'none' is for the type 'swap', and only for it"
        yield from self._hidden()

    def _hidden(self) -> Iterator[tuple[Place, str]]:
        """The fault of a mount that hides what the system needs."""
        if self.type not in (None, MOUNTED.get(self.where, self.type)):
            what = f"the system itself mounts a {MOUNTED[self.where]} at {self.where}"
            yield ("where",), f"{what}; use another directory"
        if self.where in NEEDED:
            yield (
                ("where",),
                f"a mount at {self.where} hides the image's own; use another directory",
            )
        elif self.where in FILES and "bind" not in self.options:
            yield ("where",), f"{self.where} is a file; name a directory, or add the option 'bind'"


@dataclass(frozen=True)
class FstabLine:
    """A line of fstab(5)."""

    what: str
    where: str
    kind: str
    options: tuple[str, ...]
    pass_: int = 0

    def __str__(self) -> str:
        fields = (self.what, self.where, self.kind, ",".join(self.options) or "defaults")
        escaped = " ".join(text.translate(ESCAPES) for text in fields)
        return f"{escaped} 0 {self.pass_}\n"


@dataclass(frozen=True)
class FileSystemTable:
    """The lines for the disk's own file systems, by mount point, and the mounts of the recipe."""

    own: Sequence[FstabLine]
    mounts: Sequence[Mount]

    def write(self, target: Target, *, points: bool = True) -> None:
        """Writes the file, makes the mount points if `points`, and notes lines that are lost."""
        if lost := list(_lines(target)):
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            target.reporter.note(
                f"{PATH} is replaced, without the line '{lost[0]}'{more}; name such mounts in "
                "the option 'mounts' of the stage 'qemu'"
            )
        lines = list(self._merged())
        target.write(PATH, "".join(map(str, lines)))
        for line in lines:
            if points and line.where.startswith("/") and not target.exists(line.where):
                target.make_directory(line.where)

    def _merged(self) -> Iterator[FstabLine]:
        own = {line.where for line in self.own if line.where.startswith("/")}
        added = {mount.where: mount for mount in self.mounts if mount.where in own}
        for line in self.own:
            mount = added.get(line.where)
            yield line if mount is None else _with_options(line, mount)
        for mount in self.mounts:
            if mount.where not in own:
                what, kind = mount.what or "none", mount.type or "auto"
                yield FstabLine(what, mount.where, kind, mount.options, mount.pass_ or 0)


def _with_options(line: FstabLine, mount: Mount) -> FstabLine:
    kept = tuple(option for option in line.options if option != "defaults")
    options = (*kept, *(option for option in mount.options if option not in kept))
    return replace(line, options=options, pass_=line.pass_ if mount.pass_ is None else mount.pass_)


def own_line(what: str, where: str, kind: str, *options: str) -> FstabLine:
    """The line for one of the disk's own file systems, with Debian's default options."""
    default, order = DEFAULTS[kind]
    return FstabLine(what, where, kind, (default, *options), order if where == "/" else 2 * order)


def _lines(target: Target) -> Iterator[str]:
    """The lines of the file that the target has, without comments."""
    text = target.read(PATH) if target.is_file(PATH) else ""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()
