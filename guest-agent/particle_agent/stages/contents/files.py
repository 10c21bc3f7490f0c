"""Stage files: files, directories and symbolic links."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Literal

from particle_agent.contract import needs
from particle_agent.contract.needs import Need
from particle_agent.contract.options import (
    HostTree,
    Options,
    Place,
    attached_mode,
    idle,
    refuse,
    repeated,
)
from particle_agent.contract.values import (
    AbsolutePath,
    Download,
    FileMode,
    KnownAccount,
    LinkText,
    OwnerText,
    PathPattern,
)
from particle_agent.stages.base import StageOptions
from particle_agent.stages.contents.placing import Owner, Placer, owner_of
from particle_agent.stages.contents.tree import Copy
from particle_agent.target.target import Target

# Directories that the kernel fills, and directories that are empty when a system starts.
KERNELS = ("/proc", "/sys", "/dev")
EMPTIED = ("/run", "/tmp", "/var/run", "/var/lock", "/var/tmp")


@dataclass(frozen=True, kw_only=True)
class File(Options):
    """A file with text from the recipe, or a copy of a host file. It replaces an existing file."""

    path: AbsolutePath
    """The path in the image. Missing parent directories are created."""
    content: str | None = None
    """The text of the file. Give one of this, `source` and `download`."""
    source: HostTree | None = None
    """A file, or a directory with its content, to copy. The path is relative to the recipe."""
    template: bool = False
    """Whether the variables of the recipe are filled into a copied text file."""
    download: Download | None = None
    """A file from the network, which the host fetches and checks."""
    mode: FileMode | None = None
    """The permissions, in quotes. The default is the mode of a copy's source, or of the file that
    is replaced, or "0644"."""
    owner: KnownAccount | None = None
    """The owner: a user in the image. The default is the owner of the file that is replaced. For a
    new file it is root, and in a regular user's home directory that user."""
    group: KnownAccount | None = None
    """The group: a group in the image. The default is as for `owner`."""
    modes: Mapping[PathPattern, FileMode] = field(default_factory=dict)
    """The permissions in a copied directory, by patterns for paths in the image. A later pattern
    outweighs an earlier one."""
    owners: Mapping[PathPattern, OwnerText] = field(default_factory=dict)
    """The owners in a copied directory, as USER, USER:GROUP or :GROUP, by patterns for paths in the
    image. A later pattern outweighs an earlier one."""

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.content, self.source, self.download)) != 1:
            raise ValueError(f"{self.path}: write one of 'content', 'source' and 'download'")
        if self.template and self.source is None:
            raise ValueError("template: it is for a file that 'source' names")

    @property
    def is_tree(self) -> bool:
        """Whether the attached `source` is a directory."""
        return self.source is not None and self.source.startswith("tree:")


@dataclass(frozen=True, kw_only=True)
class Directory(Options):
    """A directory. An existing directory keeps its content."""

    path: AbsolutePath
    """The path in the image. Missing parent directories are created."""
    mode: FileMode | None = None
    """The permissions, in quotes. The default is "0755"; an existing directory keeps its own."""
    owner: KnownAccount | None = None
    """The owner: a user in the image. The default is root, and in a regular user's home directory
    that user; an existing directory keeps its own."""
    group: KnownAccount | None = None
    """The group: a group in the image. The default is as for `owner`."""


@dataclass(frozen=True, kw_only=True)
class Link(Options):
    """A symbolic link. It replaces an existing file or link."""

    path: AbsolutePath
    """The path in the image. Missing parent directories are created."""
    to: LinkText
    """The target: an absolute path in the image, or a path relative to the link."""


@dataclass(frozen=True, kw_only=True)
class Files(StageOptions):
    """Writes directories, then files, then symbolic links, each in the order given."""

    type: Literal["files"] = "files"
    directories: tuple[Directory, ...] = ()
    """Directories to create."""
    files: tuple[File, ...] = ()
    """Files to write."""
    links: tuple[Link, ...] = ()
    """Symbolic links to create."""

    def __post_init__(self) -> None:
        # A directory can be copied onto the root directory of the image.
        copied = {("files", i, "path") for i, f in enumerate(self.files) if f.source is not None}
        lost = (
            (place, path, _why_lost(path))
            for place, path in self._paths()
            if path or place not in copied
        )
        nothing = not (self.directories or self.files or self.links)
        refuse(
            idle("files", "directories", "files", "links") if nothing else (),
            ((place, f"path: {path or '/'} {why}") for place, path, why in lost if why),
            repeated("path", self._paths()),
        )

    def _paths(self) -> Iterator[tuple[Place, str]]:
        each: dict[str, Sequence[Directory | File | Link]] = {
            "directories": self.directories, "files": self.files, "links": self.links
        }  # fmt: skip
        for key, items in each.items():
            for number, item in enumerate(items):
                yield (key, number, "path"), item.path.rstrip("/")

    def needs(self) -> Iterator[Need]:
        for number, directory in enumerate(self.directories):
            yield from _owners(directory, "directories", number)
        for number, file in enumerate(self.files):
            yield from _owners(file, "files", number)

    def may_bring(self, need: Need) -> bool:
        # A copied file can be anything; a written file is text. Packages install into /usr (which
        # /bin, /sbin and /lib are parts of), and kernels into /boot.
        if not {path for _, path in self._paths()}.isdisjoint(need.files):
            return True
        places = ("/etc/passwd", "/etc/group", "/usr", "/bin", "/sbin", "/lib", "/boot", "/opt")
        return any(
            file.path in places[:2]
            if file.source is None
            else any(_overlap(file.path, place) for place in places)
            for file in self.files
        )

    def names(self, need: Need) -> bool:
        return not {path for _, path in self._paths()}.isdisjoint(need.files)

    def may_write_below(self, directory: str) -> bool:
        """Whether the stage may write something to `directory` or below it."""
        return any(_overlap(path or "/", directory) for _, path in self._paths())

    def may_copy_below(self, directory: str) -> bool:
        """Whether the stage may copy files with unknown names to `directory` or below it."""
        return any(f.source is not None and _overlap(f.path, directory) for f in self.files)

    def attached_faults(self) -> Iterator[tuple[Place, str]]:
        for number, file in enumerate(self.files):
            place = ("files", number)
            if file.is_tree and file.mode is not None:
                why = "a copied directory keeps the modes of its files; 'modes' sets others"
                yield (*place, "mode"), f"mode: {why}"
            for name, given in (("modes", file.modes), ("owners", file.owners)):
                if given and not file.is_tree:
                    yield (*place, name), f"{name}: only a copied directory has them"

    def run(self, target: Target) -> None:
        placer = Placer(target)
        for each in self.directories:
            owner = owner_of(target, each.owner, each.group, each.path)
            mode = None if each.mode is None else int(each.mode, 8)
            placer.directory(each.path, mode=mode, owner=owner)
        for file in self.files:
            owner = owner_of(target, file.owner, file.group, file.path)
            if file.source is not None and file.is_tree:
                tree = Copy(file.path, owner, file.modes, file.owners)
                tree.run(target, placer, target.attached(file.source))
            else:
                _write(target, placer, file, owner)
        for link in self.links:
            placer.link(link.path, link.to)
        placer.record()


def _why_lost(path: str) -> str | None:
    """The reason why the image would lose a file at `path` ("" is the root directory)."""
    if not path:
        return "is the whole image; name a path in it"
    if top := next((top for top in KERNELS if _within(path, top)), None):
        return f"cannot be written: the kernel fills {top} when the system runs"
    if top := next((top for top in EMPTIED if path != top and _within(path, top)), None):
        return f"would be lost: {top} is empty in the finished image (see tmpfiles.d(5))"
    return None


def _within(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory}/")


def _owners(what: File | Directory, *key: str | int) -> Iterator[Need]:
    if what.owner is not None:
        yield needs.user(what.owner, what.path, *key, "owner")
    if what.group is not None:
        yield needs.group(what.group, what.path, *key, "group")
    for pattern, text in what.owners.items() if isinstance(what, File) else ():
        user, _, group = text.partition(":")
        if user:
            yield needs.user(user, pattern, *key, "owners", pattern)
        if group:
            yield needs.group(group, pattern, *key, "owners", pattern)


def _write(target: Target, placer: Placer, file: File, owner: Owner) -> None:
    mode: int | None = None
    data: IO[bytes] = io.BytesIO((file.content or "").encode())
    if file.download is not None:
        data = target.attached(file.download.reference).open("rb")
    if file.source is not None:
        mode = attached_mode(file.source)
        data = target.attached(file.source).open("rb")
    with data:
        chosen = mode if file.mode is None else int(file.mode, 8)
        placer.file(file.path, data, mode=chosen, owner=owner)


def _overlap(path: str, other: str) -> bool:
    """Whether the paths are equal, or one lies in the other."""
    path, other = f"{path.rstrip('/')}/", f"{other}/"
    return path.startswith(other) or other.startswith(path)
