"""One walk over the files of a system, for all that may lie anywhere; and whose a file is."""

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
    """A file: its type as find(1) has it (f, d, b, c), permissions, and bytes."""

    path: str
    type: str
    mode: int
    size: int


def walk(root: Path, findings: Findings) -> list[Found]:
    """Files that run, files and devices that everybody may write to, logs, and what is in homes.

    A directory with the sticky bit, such as /tmp, is everybody's by intention.
    """
    above = glob.escape(str(root))
    homes = [part for home in HOMES for part in ("-o", "-path", f"{above}{home}/*")][1:]
    argv = ["find", str(root), "-xdev", "(", "-type", "f", "("]
    argv += ["-perm", "/6113", "-o", "-path", f"{above}{LOGS}/*", "-size", "+0"]
    argv += ["-o", "-size", SMALL, "-size", "+0", "(", *homes, ")", ")"]
    argv += ["-o", "-type", "d", "-perm", "-0002", "!", "-perm", "-1000"]
    argv += ["-o", "-type", "b,c", "-perm", "-0002", ")"]
    argv += ["-printf", r"%y %m %s /%P\0"]
    status, said = reading.output(argv, seconds=FIND_SECONDS, limit=FIND_LIMIT)
    if status != 0:
        findings.add("file-system-not-checked", "/", f"find ends with status {status}")
    elif said and not said.endswith("\0"):
        findings.add("file-system-not-checked", "/", "it has too many files to look at all")
    return list(_read(said))


def _read(said: str) -> Iterator[Found]:
    for line in said.split("\0")[:-1]:
        kind, mode, size, path = [*line.split(" ", 3), "", "", ""][:4]
        # Among the lines there may be what find complains of.
        if mode.isdecimal() and size.isdecimal():
            yield Found(path, kind, int(mode, 8), int(size))


def owned(tree: Tree, wanted: Iterable[str]) -> set[str]:
    """Those of the paths `wanted` that dpkg(1) knows, from packages or from the administrator."""
    # Packages may name a file as it was before /bin and /lib became links to those in /usr.
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
    # deb-diversions: three lines each, the original, where it went, and for which package.
    known |= spelled.keys() & tree.read_bytes(DIVERSIONS).split(b"\n")
    # dpkg-statoverride(1): user, group, mode and path.
    lines = tree.read_bytes(OVERRIDES).split(b"\n")
    known |= spelled.keys() & {line.split(b" ", 3)[-1] for line in lines}
    return {spelled[path] for path in known}
