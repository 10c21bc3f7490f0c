"""Searches all files of a system in one pass, and asks dpkg's database for their owners."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from particle_agent.contract.findings import Findings
from particle_agent.disk import reading
from particle_agent.disk.reading import Tree

FIND_SECONDS = 300.0
FIND_LIMIT = 8 << 20
WRITABLE, SETUID, EXECUTABLE = 0o002, 0o6000, 0o111
LOGS = "/var/log"
HOMES = ("/root", "/home")
# find(1), -size: blocks of 512 bytes. No private key is larger.
SMALL = "-32"
DPKG_INFO = "/var/lib/dpkg/info"
DIVERSIONS = "/var/lib/dpkg/diversions"
OVERRIDES = "/var/lib/dpkg/statoverride"
MERGED = re.compile(r"/usr(/(?:bin|sbin|lib\w*)/)")


@dataclass(frozen=True)
class Found:
    """A file. `type` is a letter of find(1): f, d, b or c. `size` is in bytes."""

    path: str
    type: str
    mode: int
    size: int


def walk(root: Path, findings: Findings) -> list[Found]:
    """Finds executables, world-writable files and devices, logs, and small files in homes.

    World-writable directories with the sticky bit, such as /tmp, are left out: they are intended.
    """
    above = glob.escape(str(root))
    homes = [part for home in HOMES for part in ("-o", "-path", f"{above}{home}/*")][1:]
    argv = ["find", str(root), "-xdev", "(", "-type", "f", "("]
    argv += ["-perm", "/6113", "-o", "-path", f"{above}{LOGS}/*", "-size", "+0"]
    argv += ["-o", "-size", SMALL, "-size", "+0", "(", *homes, ")", ")"]
    argv += ["-o", "-type", "d", "-perm", "-0002", "!", "-perm", "-1000"]
    argv += ["-o", "-type", "b,c", "-perm", "-0002", ")"]
    argv += ["-printf", r"%y %m %s /%P\0"]
    status, listed = reading.output(argv, seconds=FIND_SECONDS, limit=FIND_LIMIT)
    if status != 0:
        findings.add("file-system-not-checked", "/", f"find ends with status {status}")
    elif listed and not listed.endswith("\0"):
        findings.add("file-system-not-checked", "/", "it has too many files to check them all")
    return list(_read(listed))


def _read(listed: str) -> Iterator[Found]:
    for line in listed.split("\0")[:-1]:
        kind, mode, size, path = [*line.split(" ", 3), "", "", ""][:4]
        # Error messages of find(1) may stand between the lines.
        if mode.isdecimal() and size.isdecimal():
            yield Found(path, kind, int(mode, 8), int(size))


def owned(tree: Tree, wanted: Iterable[str]) -> set[str]:
    """The paths of `wanted` that dpkg(1) knows from packages, diversions or overrides."""
    # Packages may list the path from before /bin and /lib became links into /usr.
    spelled = {path.encode("utf-8", "surrogateescape"): path for path in wanted}
    if not spelled:
        return set()
    for path in list(spelled.values()):
        if MERGED.match(path):
            spelled.setdefault(path[4:].encode("utf-8", "surrogateescape"), path)
    known: set[bytes] = set()
    for name in tree.names(DPKG_INFO):
        if name.endswith(".list"):
            known |= spelled.keys() & tree.read_bytes(f"{DPKG_INFO}/{name}").split(b"\n")
    # Three lines for each diversion: the original path, the diverted path, and the package.
    known |= spelled.keys() & tree.read_bytes(DIVERSIONS).split(b"\n")
    # dpkg-statoverride(1): user, group, mode and path.
    lines = tree.read_bytes(OVERRIDES).split(b"\n")
    known |= spelled.keys() & {line.split(b" ", 3)[-1] for line in lines}
    return {spelled[path] for path in known}
