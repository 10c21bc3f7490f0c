"""Finds what a commit cannot have, what it would lose, and what no update would change.

The lints are those of `bootc container lint`, for Debian. They run before the stage changes the
image, and report all findings at once.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from particle_agent.errors import StageError
from particle_agent.ostree.image import features, kargs
from particle_agent.ostree.image.choices import Choices
from particle_agent.ostree.image.layout import ETC, HIDDEN, LINKS, MOVED, OLD_DATABASE
from particle_agent.system import generalize, kernels
from particle_agent.target import inside
from particle_agent.target.target import Target


@dataclass(frozen=True)
class Lint:
    """A kind of findings. A `fatal` finding keeps the image from becoming a commit."""

    fatal: bool
    meaning: str
    remedy: str


@dataclass(frozen=True)
class Flaw:
    """A finding: the code of its lint, and a path or an account of the image."""

    code: str
    place: str


REMOVE = "remove them in a 'run' or 'cleanup' stage"
# The codes never change.
LINTS = {
    "kernel-several": Lint(
        True,
        "a commit has one kernel, and would not boot these",
        "name their packages in 'remove' of an apt stage",
    ),
    "usr-etc": Lint(
        True,
        "the image has both /etc and /usr/etc",
        "remove /usr/etc: the stage 'ostree' makes it from /etc",
    ),
    "content-dropped": Lint(
        True,
        "a commit has a link in place of the directory, and would lose these files",
        "put them into another directory, such as /srv",
    ),
    "special-file": Lint(
        True, "they are neither files, directories nor links, and OSTree stores no others", REMOVE
    ),
    "name-not-utf-8": Lint(
        True, "OSTree stores no names, and no texts of links, that are not UTF-8", REMOVE
    ),
    "name-control": Lint(
        True, "no rule of tmpfiles.d can have a name with control characters", REMOVE
    ),
    "ssh-host-key": Lint(
        True, "every machine would get the same host key, which the repository publishes", REMOVE
    ),
    "var-content": Lint(
        True,
        "'var' is 'refuse', and no rule of tmpfiles.d makes these files",
        "remove them, write rules, or set 'var: factory'",
    ),
    "var-run": Lint(
        True,
        "a running system has the content of this directory in /run",
        "make it a link to /run in a 'run' stage",
    ),
    "name-whiteout": Lint(
        True, "in a container image, these names mean that a file is removed", REMOVE
    ),
    "kargs-unreadable": Lint(
        True,
        "bootc cannot read these words for the kernel",
        "https://bootc.dev/bootc/building/kernel-arguments.html describes the format",
    ),
    "bootc-missing": Lint(
        False,
        "machines install and update the container image only with this program, which no package "
        "of Debian has",
        "put it into the image with a 'files' stage, or take a base that has it",
    ),
    "boot-content": Lint(
        False,
        "a commit has an empty /boot, and these files are left out",
        "put them into /usr/lib, or remove them",
    ),
    "volatile-content": Lint(
        False,
        "a package puts files where a running system has none of the image",
        "tmpfiles.d(5) can make them at boot",
    ),
    "var-log": Lint(
        False,
        "each machine gets these logs of the build",
        REMOVE,
    ),
    "file-injected": Lint(
        False, "a builder of containers has left these files, empty for each machine", REMOVE
    ),
    "package-outside-usr": Lint(
        False,
        "packages have files here that reach new machines, and that no update changes",
        "install what machines have to update below /usr",
    ),
    "account-without-rule": Lint(
        False,
        "machines whose /etc/passwd or /etc/group differs from the image's do not get them",
        "give them an ID of their own and a plain name, or a rule of sysusers.d",
    ),
}
# Those that only matter for a container image.
OF_CONTAINERS = ("name-whiteout", "kargs-unreadable", "bootc-missing")
BOOTC, WHITEOUT = "/usr/bin/bootc", ".wh."
INJECTED = ("/etc/hostname", "/etc/resolv.conf")
SHOWN = 5
TMPFILES = "/usr/lib/tmpfiles.d"
# The types of rules that make a path.
MAKERS = set("dDvqQfCL")
# The directories, with a slash, that a running system fills, and those that no update changes.
VOLATILE = ("/run/", "/tmp/")
OF_MACHINE = tuple(f"{path}/" for path in MOVED)
# Names in /boot that kernels and boot loaders have, and that the stage replaces.
OF_BOOT = (
    "vmlinuz", "vmlinuz[.-]*", "initrd.img", "initrd.img[.-]*", "config-*", "System.map-*",
    "efi", "grub", "loader", "extlinux", "syslinux", "ostree", "lost+found", ".particle-os-*",
)  # fmt: skip
# The state of Debian's own programs, and the files of root's home directory. The stage brings them
# to machines, also with `refuse`.
STATE = (
    "/var/.updated", "/var/cache/*", "/var/log/*", "/var/lib/apt/*", "/var/lib/dpkg/*",
    "/var/lib/emacsen-common/*", "/var/lib/grub/*", "/var/lib/initramfs-tools/*", "/var/lib/pam/*",
    "/var/lib/python/*", "/var/lib/sgml-base/*", "/var/lib/shells.state", "/var/lib/systemd/*",
    "/var/lib/ucf/*", "/var/lib/xml-core/*", "/var/spool/mail", "/usr/local/man",
    "/root/.bashrc", "/root/.profile",
)  # fmt: skip
HOST_KEY = re.compile(r"ssh_host_\w+_key|dropbear_\w+_host_key")
# `generalize` removes the keys of this directory.
MADE_AGAIN = "etc/ssh/"
NOT_UTF_8 = re.compile("[\ud800-\udfff]")
# The directories whose content rules of tmpfiles.d(5) bring to machines.
WITH_RULES = ("/var/", *OF_MACHINE)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check(target: Target, choices: Choices, kernel: str, more: Iterable[Flaw]) -> None:
    """Reports the findings on an image, whose commit boots the `kernel` of this version.

    `more` are the findings of others. Raises StageError, also for a choice that the image's OSTree
    does not know.
    """
    features.check(target, choices.root)
    with target.mounted(target.root, "--bind") as place:
        found = [*files(target, place, kernel), *more]
        if choices.var == "refuse":
            found += of_machine(place, paths_with_rules(target))
        found += _of_bootc(target, place)
    report(target, (f for f in found if choices.container or f.code not in OF_CONTAINERS))


def report(target: Target, found: Iterable[Flaw]) -> None:
    """Notes the findings. Raises StageError with all that are fatal."""
    places = defaultdict[str, list[str]](list)
    for flaw in found:
        places[flaw.code].append(flaw.place)
    fatal = [code for code in LINTS if code in places and LINTS[code].fatal]
    for code in LINTS:
        if code in places and not LINTS[code].fatal:
            target.reporter.note(f"{_line(code, places[code])}; {LINTS[code].remedy}")
    if len(fatal) == 1:
        (code,) = fatal
        raise StageError(_line(code, places[code]), hint=f"{_sentence(LINTS[code].remedy)}.")
    if fatal:
        raise StageError(
            f"the image has {len(fatal)} kinds of faults that keep it from becoming a commit",
            hint="docs/ostree.md lists the codes.",
            tail=[f"{_line(code, places[code])}; {LINTS[code].remedy}" for code in fatal],
        )


def _line(code: str, places: Sequence[str]) -> str:
    shown = ", ".join(place if place.isprintable() else ascii(place) for place in places[:SHOWN])
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f"{code}: {LINTS[code].meaning}: {shown}{more}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def files(target: Target, tree: Path, kernel: str) -> Iterator[Flaw]:
    """The findings on the files of an image, whose commit boots the `kernel` of this version.

    `tree` is the target without mounts of the build.
    """
    owned = _paths_of_packages(target)
    yield from _kernels(target, kernel)
    if os.path.lexists(tree / ETC[1:]):
        yield Flaw("usr-etc", ETC)
    for path in LINKS:
        if (place := tree / path[1:]).is_dir() and not place.is_symlink():
            yield from (Flaw("content-dropped", found) for found in _leaves(place, tree))
    for name in target.list("/boot"):
        path = f"/boot/{name}"
        if path not in owned and not any(fnmatchcase(name, known) for known in OF_BOOT):
            yield Flaw("boot-content", path)
    yield from _of_packages(owned, tree)
    yield from _walk(tree)


def _of_packages(owned: Iterable[str], tree: Path) -> Iterator[Flaw]:
    for path in sorted(owned):
        place = tree / path[1:]
        if place.is_symlink() or place.is_file():
            if path.startswith(VOLATILE):
                yield Flaw("volatile-content", path)
            elif path.startswith(OF_MACHINE):
                yield Flaw("package-outside-usr", path)


def of_machine(tree: Path, known: Collection[str]) -> Iterator[Flaw]:
    """The content for machines that no rule makes. `known` are the paths with rules."""
    emptied = tuple(f"/{path}/" for path in generalize.CONTENTS)
    for top, name in {"/var": "", **MOVED}.items():
        if (tree / top[1:]).is_symlink():
            continue
        for path in sorted(_leaves(tree / top[1:], tree)):
            there = f"/var/{name}{path.removeprefix(top)}" if name else path
            state = any(fnmatchcase(path, pattern) for pattern in STATE)
            if there not in known and not state and not path.startswith(emptied):
                yield Flaw("var-content", path)


def _of_bootc(target: Target, tree: Path) -> Iterator[Flaw]:
    """More findings that bootc has, too. `tree` is the target without mounts of the build."""
    if not target.exists(BOOTC):
        yield Flaw("bootc-missing", BOOTC)
    for name in target.list(kargs.DIRECTORY):
        path = f"{kargs.DIRECTORY}/{name}"
        if name.endswith(".toml") and (why := kargs.fault(target.read_bytes(path))):
            yield Flaw("kargs-unreadable", f"{path}: {why}")
    if (run := inside.resolve(tree, "var/run", follow=False)).is_dir() and not run.is_symlink():
        yield Flaw("var-run", "/var/run")
    for path in INJECTED:
        if _size(inside.resolve(tree, path[1:], follow=False)) == 0:
            yield Flaw("file-injected", path)
    for path in sorted(_leaves(inside.resolve(tree, "var/log"), tree)):
        # The stage removes the logs of packages.
        if not path.startswith(generalize.LOGS) and _size(tree / path[1:]):
            yield Flaw("var-log", path)


def _size(place: Path) -> int | None:
    """The size of a regular file in bytes; None for anything else."""
    status = place.lstat() if os.path.lexists(place) else None
    return status.st_size if status and stat.S_ISREG(status.st_mode) else None


def paths_with_rules(target: Target) -> set[str]:
    """The paths that the rules of the packages make."""
    found = set()
    for name in target.list(TMPFILES):
        if name.endswith(".conf") and target.is_file(f"{TMPFILES}/{name}"):
            for line in target.read(f"{TMPFILES}/{name}").splitlines():
                kind, path, *_ = (*line.split(maxsplit=2), "", "")
                if kind[:1] in MAKERS:
                    found.add(path.strip('"').rstrip("/"))
    return found


def _kernels(target: Target, wanted: str) -> Iterator[Flaw]:
    """The kernels that a commit would not boot."""
    found = {version: f"/boot/vmlinuz-{version}" for version in kernels.versions(target)}
    for version in target.list("/usr/lib/modules"):
        if target.exists(path := f"/usr/lib/modules/{version}/vmlinuz"):
            found.setdefault(version, path)
    yield from (Flaw("kernel-several", found[version]) for version in found if version != wanted)


def _paths_of_packages(target: Target) -> set[str]:
    """The paths of packages in /boot, and in directories that are not those of the image."""
    wanted = tuple(top.encode() for top in ("/boot/", *VOLATILE, *OF_MACHINE))
    found = set[str]()
    for name in target.list(f"{OLD_DATABASE}/info"):
        if name.endswith(".list"):
            lines = target.read_bytes(f"{OLD_DATABASE}/info/{name}").split(b"\n")
            found |= {os.fsdecode(line) for line in lines if line.startswith(wanted)}
    return found


def _leaves(place: Path, tree: Path) -> Iterator[str]:
    """The paths below a directory of everything that is no directory."""
    for directory, directories, names in os.walk(place):
        links = [name for name in directories if Path(directory, name).is_symlink()]
        yield from (f"/{Path(directory, name).relative_to(tree)}" for name in (*links, *names))


def _walk(tree: Path) -> Iterator[Flaw]:
    """The findings on the names and kinds of the files that become part of a commit."""
    skipped = {*HIDDEN, *generalize.CONTENTS, "boot", *(path[1:] for path in LINKS)}
    left = [""]
    while left:
        above = left.pop()
        with os.scandir(tree / above) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = f"{above}/{entry.name}".lstrip("/")
            if path not in skipped:
                yield from (Flaw(code, f"/{path}") for code in _faults(entry, path))
                if entry.is_dir(follow_symlinks=False):
                    left.append(path)


def _faults(entry: os.DirEntry[str], path: str) -> Iterator[str]:
    """The codes of the findings on one name. `path` has no slash before it."""
    text = os.readlink(entry.path) if entry.is_symlink() else ""
    if NOT_UTF_8.search(entry.name + text):
        yield "name-not-utf-8"
    if entry.name.startswith(WHITEOUT):
        yield "name-whiteout"
    if f"/{path}".startswith(WITH_RULES) and CONTROL.search(entry.name):
        yield "name-control"
    if entry.is_file(follow_symlinks=False):
        if HOST_KEY.fullmatch(entry.name) and not path.startswith(MADE_AGAIN):
            yield "ssh-host-key"
    elif not entry.is_symlink() and not entry.is_dir(follow_symlinks=False):
        yield "special-file"
