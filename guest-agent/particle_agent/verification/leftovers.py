"""What an image has from the machine or the build that made it, and should not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from particle_agent.disk import reading
from particle_agent.disk.reading import Tree
from particle_agent.verification.findings import Findings

MACHINE_ID = "/etc/machine-id"
# machine-id(5): what stands for an identity that is yet to be made.
NO_MACHINE_ID = ("", "uninitialized")
# QEMU's user network (-netdev user): its resolver.
RESOLVER = re.compile(r"^\s*nameserver\s+10\.0\.2\.3\s*$", re.MULTILINE)
RESOLV_CONF = ("/etc/resolv.conf", "/etc/.resolv.conf.systemd-resolved.bak")
SSH_KEY = re.compile(r"ssh_host_\w+_key")
# Names that only the builder's own files have, for as long as a build lasts.
BUILD_FILES = (
    ("/etc", ".particle-os-*"),
    ("/etc/initramfs-tools/conf.d", "particle-os"),
    ("/usr/share/initramfs-tools/hooks", "zz-particle-os"),
    ("/usr/share/initramfs-tools/modules.d", "particle-os"),
    ("/run/secrets", "*"),
)
FILES = (
    ("credential-secret", "/var/lib/systemd/credential.secret"),
    ("policy-rc-d", "/usr/sbin/policy-rc.d"),
    ("random-seed", "/var/lib/systemd/random-seed"),
)
# Directories, and what in them is of no concern.
CONTENTS = (
    ("apt-lists", "/var/lib/apt/lists", ("lock", "partial", "auxfiles")),
    ("apt-archives", "/var/cache/apt/archives", ("lock", "partial")),
    ("temporary-file", "/tmp", ()),
    ("temporary-file", "/var/tmp", ()),
)
LOGS = "/var/log"
# Packages make these, empty or with a text that tells what they are not.
NO_LOGS = ("README", "journal", "private", "lastlog", "faillog")
HISTORIES = (".bash_history", ".python_history", ".lesshst", ".viminfo", ".ash_history")
KEY_DIRECTORIES = ("/root/.ssh", "/etc/ssl/private", "/etc/ssh")
KEY_SIGN = b"PRIVATE KEY-----"
KEY_BYTES = 4096
NAMES_TOLD = 5
# find(1) with what everybody may write to, or what runs with other rights; one line of the rest.
FIND_SECONDS = 300.0
FIND_LIMIT = 1 << 20
WRITABLE, SETUID = 0o002, 0o6000
DPKG_INFO = "/var/lib/dpkg/info"
DIVERSIONS = "/var/lib/dpkg/diversions"
OVERRIDES = "/var/lib/dpkg/statoverride"
MERGED = re.compile(r"/usr(/(?:bin|sbin|lib\w*)/)")


def check(tree: Tree, findings: Findings) -> None:
    """Tells what a system has that it should not have."""
    if tree.read(MACHINE_ID, KEY_BYTES).strip() not in NO_MACHINE_ID:
        findings.add("machine-id-set", MACHINE_ID, "it should be an empty file")
    for name in tree.names("/etc/ssh"):
        if SSH_KEY.fullmatch(name):
            findings.add("ssh-host-key", f"/etc/ssh/{name}", "it should be made at the first boot")
    for path in RESOLV_CONF:
        if RESOLVER.search(tree.read(path, KEY_BYTES)):
            findings.add("resolv-conf", path, "it names the resolver of QEMU's user network")
    for code, path in FILES:
        if tree.exists(path):
            findings.add(code, path, "it should not be there")
    for directory, pattern in BUILD_FILES:
        for name in tree.names(directory):
            if fnmatchcase(name, pattern):
                findings.add("build-file", f"{directory}/{name}", "it should not be there")
    _check_contents(tree, findings)
    _check_homes(tree, findings)


def _check_contents(tree: Tree, findings: Findings) -> None:
    for code, directory, known in CONTENTS:
        names = [name for name in tree.names(directory) if name not in known]
        if names:
            findings.add(code, directory, _told(names))
    journal = f"{LOGS}/journal"
    if any(tree.names(f"{journal}/{name}") for name in tree.names(journal)):
        findings.add("log", journal, "journals of machines")
    logs = [n for n in tree.names(LOGS) if n not in NO_LOGS and _has_log(tree, f"{LOGS}/{n}")]
    if logs:
        findings.add("log", LOGS, _told(logs))


def _has_log(tree: Tree, path: str) -> bool:
    return tree.is_file(path) or any(tree.is_file(f"{path}/{name}") for name in tree.names(path))


def _told(names: list[str]) -> str:
    more = len(names) - NAMES_TOLD
    return ", ".join(names[:NAMES_TOLD]) + (f" and {more} more" if more > 0 else "")


def _check_homes(tree: Tree, findings: Findings) -> None:
    homes = ["/root", *(f"/home/{name}" for name in tree.names("/home")[:100])]
    for home in homes:
        for name in HISTORIES:
            if tree.is_file(f"{home}/{name}"):
                findings.add("shell-history", f"{home}/{name}", "it should not be there")
    for directory in dict.fromkeys([*KEY_DIRECTORIES, *(f"{home}/.ssh" for home in homes)]):
        for name in tree.names(directory)[:100]:
            path = f"{directory}/{name}"
            if not SSH_KEY.fullmatch(name) and KEY_SIGN in tree.read_bytes(path, KEY_BYTES):
                findings.add("private-key", path, "it should be made at the first boot")


# Files that no package owns


def check_rights(tree: Tree, findings: Findings) -> None:
    """Tells what gives rights away although no package of the system wants it so."""
    found = dict(_found(tree.root, findings))
    owned = _owned(tree, set(found))
    for path in sorted(found.keys() - owned):
        if found[path] & WRITABLE:
            findings.add("world-writable", path, f"its mode is {found[path]:04o}")
        if found[path] & SETUID:
            findings.add("setuid", path, f"its mode is {found[path]:04o}")


def _found(root: Path, findings: Findings) -> Iterator[tuple[str, int]]:
    """Files that run with other rights, and what everybody may write to, with their modes.

    A directory with the sticky bit, such as /tmp, is everybody's by intention.
    """
    argv = ["find", str(root), "-xdev", "("]
    argv += ["-type", "f", "-perm", "/6002", "-o"]
    argv += ["-type", "d", "-perm", "-0002", "!", "-perm", "-1000", ")"]
    argv += ["-printf", r"%m /%P\0"]
    status, said = reading.output(argv, seconds=FIND_SECONDS, limit=FIND_LIMIT)
    if status != 0:
        findings.add("file-system-not-checked", "/", f"find ends with status {status}")
    for line in said.split("\0")[:-1]:
        mode, _, path = line.partition(" ")
        if mode.isdecimal():
            yield path, int(mode, 8)


def _owned(tree: Tree, wanted: set[str]) -> set[str]:
    """Those of the paths `wanted` that dpkg(1) knows, from packages or from the administrator."""
    if not wanted:
        return set()
    # Packages may name a file as it was before /bin and /lib became links to those in /usr.
    spelled = {path.encode("utf-8", "surrogateescape"): path for path in wanted}
    for path in wanted:
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
