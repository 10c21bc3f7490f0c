"""The lints of `bootc container lint`, for the image that is written.

Those that a recipe can mend are found before the commit, too (`ostree.image.lints`). Source:
https://bootc.dev/bootc/man/bootc-container-lint.8.html, of bootc 1.16.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate

from particle_agent.errors import StageError
from particle_agent.ostree.container.layer import LayerMember
from particle_agent.ostree.image import kargs
from particle_agent.ostree.image.lints import MAKERS, NOT_UTF_8, SHOWN
from particle_agent.target.target import Target

# https://systemd.io/API_FILE_SYSTEMS/, and /var.
DIRECTORIES = ("dev", "proc", "run", "sys", "tmp", "var")
# An image may bring the root of a base image as an example, for which the same rules hold.
EXAMPLE = "usr/share/doc/bootc/baseimage/base"
LINK = "sysroot/ostree"
PREPARE_ROOT = ("etc/ostree/prepare-root.conf", "usr/lib/ostree/prepare-root.conf")
INJECTED = ("etc/hostname", "etc/resolv.conf")
RULES, ACCOUNTS = "usr/lib/tmpfiles.d/*.conf", "usr/lib/sysusers.d/*.conf"
# The type and the path in a line of tmpfiles.d(5).
RULE = re.compile(r'^(\w\S*)[ \t]+("(?:[^"\\\n]|\\.)*"|\S+)', re.MULTILINE)
KARGS = f"{kargs.DIRECTORY[1:]}/*.toml"
ENABLED = ("yes", "true", "1", "maybe", "signed", "verity")
KERNELS = "usr/lib/modules/*/vmlinuz"
# The members that lints look at, as patterns; `*` is also for a slash.
PATTERNS = (
    "boot/*", "run/*", "tmp/*", "var/*", "usr/etc", KERNELS, RULES, ACCOUNTS, KARGS, *PREPARE_ROOT,
    *INJECTED, "etc/passwd", "etc/group", EXAMPLE, f"{EXAMPLE}/*",
)  # fmt: skip
WATCHED = re.compile("|".join(map(translate, PATTERNS)))
# Bytes that are read of one file; rules and accounts are far smaller.
TEXT_LIMIT = 1 << 20


class SeenTree:
    """The members of the written layer that lints look at, by their paths."""

    def __init__(self) -> None:
        self.members: dict[str, LayerMember] = {}
        self.strange: list[str] = []

    def take(self, member: LayerMember) -> None:
        name = member.name
        if NOT_UTF_8.search(name + member.header.linkname):
            self.strange.append(name)
        elif "/" not in name or WATCHED.match(name):
            self.members[name] = member

    def named(self, pattern: str) -> list[str]:
        """The paths of a pattern."""
        return [name for name in self.members if fnmatchcase(name, pattern)]

    def is_directory(self, name: str) -> bool:
        return name in self.members and self.members[name].header.isdir()

    def size(self, name: str) -> int | None:
        """The size of a regular file in bytes; None for anything else."""
        member = self.members.get(name)
        if member is None or not (member.header.isreg() or member.header.islnk()):
            return None
        return member.place.lstat().st_size

    def data(self, name: str) -> bytes:
        """The content of a file; at most `TEXT_LIMIT` bytes, and none for another member."""
        if self.size(name) is None:
            return b""
        with self.members[name].place.open("rb") as file:
            return file.read(TEXT_LIMIT)

    def lines(self, pattern: str) -> Iterator[list[str]]:
        """The words of all lines of the files of a pattern."""
        for name in self.named(pattern):
            for line in self.data(name).decode(errors="replace").splitlines():
                yield line.split()


@dataclass(frozen=True)
class BootcLint:
    """A lint of bootc; `find` returns the places in the written image.

    `before` are the codes of `ostree.image.lints` that find the same before the commit.
    """

    fatal: bool
    find: Callable[[SeenTree], Iterable[str]]
    before: tuple[str, ...] = ()


def _var_run(seen: SeenTree) -> Iterator[str]:
    if "var/run" in seen.members and not seen.members["var/run"].header.issym():
        yield "/var/run"


def _injected(seen: SeenTree) -> Iterator[str]:
    for name in INJECTED:
        if seen.size(name) == 0:
            yield f"/{name}"


def _usr_etc(seen: SeenTree) -> Iterator[str]:
    if "usr/etc" in seen.members:
        yield "/usr/etc"


def _kargs(seen: SeenTree) -> Iterator[str]:
    for name in seen.named(KARGS):
        if why := kargs.fault(seen.data(name)):
            yield f"/{name}: {why}"


def _kernels(seen: SeenTree) -> Iterator[str]:
    found = [name for name in seen.named(KERNELS) if name.count("/") == KERNELS.count("/")]
    if len(found) != 1:
        yield from (f"/{name}" for name in found or [KERNELS])


def _api_directories(seen: SeenTree) -> Iterator[str]:
    yield from (f"/{name}" for name in DIRECTORIES if not seen.is_directory(name))


def _composefs(seen: SeenTree) -> Iterator[str]:
    for top in _roots(seen):
        places = [f"{top}{name}" for name in PREPARE_ROOT]
        found = next((name for name in places if name in seen.members), places[-1])
        settings = configparser.ConfigParser(strict=False, interpolation=None)
        try:
            settings.read_string(seen.data(found).decode(errors="replace"))
        except configparser.Error:
            yield f"/{found}"
            continue
        composefs = settings.get("composefs", "enabled", fallback="no")
        transient = settings.get("root", "transient", fallback="no")
        if composefs not in ENABLED and transient not in ("true", "1"):
            yield f"/{found}"


def _root(seen: SeenTree) -> Iterator[str]:
    for top in _roots(seen):
        if not seen.is_directory(f"{top}sysroot"):
            yield f"/{top}sysroot"
        found = seen.members.get(f"{top}ostree")
        if found is None or not found.header.issym() or found.header.linkname != LINK:
            yield f"/{top}ostree"


def _roots(seen: SeenTree) -> tuple[str, ...]:
    """The root of the image, and that of a base image in it."""
    return ("", f"{EXAMPLE}/") if seen.is_directory(EXAMPLE) else ("",)


def _logs(seen: SeenTree) -> Iterator[str]:
    for name in seen.named("var/log/*"):
        if seen.size(name):
            yield f"/{name}"


def _var(seen: SeenTree) -> Iterator[str]:
    ruled = set()
    for name in seen.named(RULES):
        for kind, path in RULE.findall(seen.data(name).decode(errors="surrogateescape")):
            if kind[:1] in MAKERS:
                plain = re.sub(r"\\(.)", r"\1", path.strip('"')).replace("%%", "%")
                ruled.add(plain.strip("/"))
    yield from (f"/{name}" for name in seen.named("var/*") if name not in ruled)


def _accounts(seen: SeenTree) -> Iterator[str]:
    ruled = {w[1] for w in seen.lines(ACCOUNTS) if len(w) > 1 and w[0].rstrip("!") in ("u", "g")}
    for what, name in (("user", "etc/passwd"), ("group", "etc/group")):
        for line in seen.data(name).decode(errors="replace").splitlines():
            account, colon, _ = line.partition(":")
            if colon and account not in ruled:
                yield f"{what} {account}"


def _boot(seen: SeenTree) -> Iterator[str]:
    if not seen.is_directory("boot"):
        yield "/boot"
    yield from (f"/{name}" for name in seen.named("boot/*"))


def _volatile(seen: SeenTree) -> Iterator[str]:
    yield from (f"/{name}" for top in ("run", "tmp") for name in seen.named(f"{top}/*"))


# All lints of bootc 1.16, by their names.
BOOTC = {
    "api-base-directories": BootcLint(True, _api_directories),
    "baseimage-composefs": BootcLint(False, _composefs),
    "baseimage-root": BootcLint(True, _root, ("content-dropped",)),
    "bootc-kargs": BootcLint(True, _kargs, ("kargs-unreadable",)),
    "buildah-injected": BootcLint(False, _injected, ("file-injected",)),
    "etc-usretc": BootcLint(True, _usr_etc, ("usr-etc",)),
    "kernel": BootcLint(True, _kernels, ("kernel-several",)),
    "nonempty-boot": BootcLint(False, _boot, ("boot-content",)),
    "nonempty-run-tmp": BootcLint(False, _volatile, ("volatile-content",)),
    "sysusers": BootcLint(False, _accounts, ("account-without-rule",)),
    "utf8": BootcLint(True, lambda seen: seen.strange, ("name-not-utf-8",)),
    "var-log": BootcLint(False, _logs, ("var-log",)),
    "var-run": BootcLint(True, _var_run, ("var-run",)),
    "var-tmpfiles": BootcLint(False, _var, ("var-content",)),
}


def found(seen: SeenTree) -> dict[str, list[str]]:
    """The places that each lint finds, without the lints that find nothing."""
    places = {name: list(lint.find(seen)) for name, lint in BOOTC.items()}
    return {name: where for name, where in places.items() if where}


def report(target: Target, places: dict[str, list[str]]) -> None:
    """Notes the warnings of bootc. Raises StageError for what it would refuse."""
    for name, where in places.items():
        if not BOOTC[name].fatal:
            target.reporter.note(f"'bootc container lint' warns of {name}: {_shown(where)}")
    if fatal := [name for name in places if BOOTC[name].fatal]:
        first = f"{fatal[0]}: {_shown(places[fatal[0]])}"
        raise StageError(
            f"'bootc container lint' would refuse the image: {first}",
            hint="docs/ostree.md lists the lints.",
            tail=[f"{name}: {_shown(places[name])}" for name in fatal],
        )


def _shown(where: list[str]) -> str:
    shown = ", ".join(place if place.isprintable() else ascii(place) for place in where[:SHOWN])
    return f"{shown} and {len(where) - SHOWN} more" if len(where) > SHOWN else shown
