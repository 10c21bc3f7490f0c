"""Finds leftovers in an image from the machine or the build that made it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from particle_agent.contract.findings import Findings
from particle_agent.disk.reading import Tree
from particle_agent.unpack import runtime_files
from particle_agent.verification import walk
from particle_agent.verification.walk import HOMES, LOGS, Found

MACHINE_ID = "/etc/machine-id"
# machine-id(5): the first boot uses this ID, unless the file is a link to /etc/machine-id.
DBUS_MACHINE_ID = "/var/lib/dbus/machine-id"
# machine-id(5): the contents that make the first boot generate an ID.
NO_MACHINE_ID = ("", "uninitialized")
# The resolver of QEMU's user network (-netdev user).
RESOLVER = re.compile(r"^\s*nameserver\s+10\.0\.2\.3\s*$", re.MULTILINE)
# apt.conf(5): a proxy on the machine itself, or on 10.0.2.2, the host in QEMU's user network.
APT_CONF = "/etc/apt/apt.conf"
APT_CONF_BYTES = 1 << 16
APT_PROXY = re.compile(
    r"""^(?!\s*(?://|\#)).*\bproxy\b[\w:.-]*\s+"?
    (\w+://(?:[^/@\s"]*@)?(?:127\.|localhost\b|\[::1\]|0\.0\.0\.0|10\.0\.2\.2\b)[^"\s;]*)""",
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
RESOLV_CONF = ("/etc/resolv.conf", "/etc/.resolv.conf.systemd-resolved.bak")
SSH_KEY = re.compile(r"ssh_host_\w+_key")
# Names of files of particle-os that only exist during a build.
BUILD_FILES = (
    ("/etc", ".particle-os-*"),
    ("/etc/initramfs-tools/conf.d", "particle-os"),
    ("/usr/share/initramfs-tools/hooks", "zz-particle-os"),
    ("/usr/share/initramfs-tools/modules.d", "particle-os"),
    ("/run/secrets", "*"),
)
FILES = (
    ("credential-secret", "/var/lib/systemd/credential.secret"),
    *(("container-file", path) for path in runtime_files.MARKS),
    ("policy-rc-d", "/usr/sbin/policy-rc.d"),
    ("random-seed", "/var/lib/systemd/random-seed"),
    ("apt-cache", "/var/cache/apt/pkgcache.bin"),
    ("apt-cache", "/var/cache/apt/srcpkgcache.bin"),
)
# Codes, directories, and entries of these directories that are no leftovers.
CONTENTS = (
    ("apt-lists", "/var/lib/apt/lists", ("lock", "partial", "auxfiles")),
    ("apt-archives", "/var/cache/apt/archives", ("lock", "partial")),
    ("temporary-file", "/tmp", ()),
    ("temporary-file", "/var/tmp", ()),
)
JOURNAL = "/var/log/journal/"
# A link of systemd's package to a text about the logs.
NO_LOG = "/var/log/README"
# lastlog(8), faillog(8): one record for each user. The records of users without a login are zeros.
RECORDS = ("/var/log/lastlog", "/var/log/faillog")
HISTORIES = (".bash_history", ".python_history", ".lesshst", ".viminfo", ".ash_history")
PASSWD, USERS_LIMIT = "/etc/passwd", 1000
KEY_DIRECTORIES = ("/root/.ssh", "/etc/ssl/private", "/etc/ssh")
KEY_SIGN = b"PRIVATE KEY-----"
# RFC 7468 and its predecessors: a file with a private key, under any name.
KEY_FILE = re.compile(rb"^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----", re.MULTILINE)
KEY_FILES_LIMIT = 2000
KEY_BYTES = 4096
NAMES_SHOWN = 5


def check(tree: Tree, found: Sequence[Found], findings: Findings) -> None:
    """Reports the leftovers in a system. `found` is the result of `walk.walk`."""
    if tree.read(MACHINE_ID, KEY_BYTES).strip() not in NO_MACHINE_ID:
        findings.add("machine-id-set", MACHINE_ID, "it should be an empty file")
    dbus = tree.place(DBUS_MACHINE_ID, follow=False)
    if dbus is not None and not dbus.is_symlink() and tree.is_file(DBUS_MACHINE_ID):
        findings.add("machine-id-set", DBUS_MACHINE_ID, f"it should be a link to {MACHINE_ID}")
    for name in tree.names("/etc/ssh"):
        if SSH_KEY.fullmatch(name):
            findings.add("ssh-host-key", f"/etc/ssh/{name}", "it should be made at the first boot")
    for path in RESOLV_CONF:
        if RESOLVER.search(tree.read(path, KEY_BYTES)):
            findings.add("resolv-conf", path, "it names the resolver of QEMU's user network")
    for path in (APT_CONF, *(f"{APT_CONF}.d/{name}" for name in tree.names(f"{APT_CONF}.d"))):
        if proxy := APT_PROXY.search(tree.read(path, APT_CONF_BYTES)):
            message = f"{proxy.group(1)} does not exist where the image runs"
            findings.add("apt-proxy", path, message)
    for code, path in FILES:
        if tree.exists(path):
            findings.add(code, path, "it should not be there")
    _check_runtime_files(tree, findings)
    for directory, pattern in BUILD_FILES:
        for name in tree.names(directory):
            if fnmatchcase(name, pattern):
                findings.add("build-file", f"{directory}/{name}", "it should not be there")
    _check_contents(tree, findings)
    _check_logs(tree, found, findings)
    _check_homes(tree, found, findings)


def _check_runtime_files(tree: Tree, findings: Findings) -> None:
    """Reports the files over which a container runtime mounts its own, beside a mark of it.

    Without a mark, an image may have empty files on purpose.
    """
    if not any(tree.exists(path) for path in runtime_files.MARKS):
        return
    for path in runtime_files.TARGETS:
        place = tree.place(path, follow=False)
        if place is None or place.is_symlink() or not place.is_file() or tree.is_file(path):
            continue
        findings.add("container-file", path, "a container runtime has left it empty")


def _check_contents(tree: Tree, findings: Findings) -> None:
    for code, directory, known in CONTENTS:
        names = [name for name in tree.names(directory) if name not in known]
        if names:
            findings.add(code, directory, _listed(names))


def _check_logs(tree: Tree, found: Sequence[Found], findings: Findings) -> None:
    files = {file.path: file for file in found if file.size and _is_below(file, (LOGS,))}
    if any(path.startswith(JOURNAL) for path in files):
        findings.add("log", JOURNAL.rstrip("/"), "journals of machines")
    names = [path for path in files if path != NO_LOG and not path.startswith(JOURNAL)]
    logs = set(names) - walk.owned(tree, names)
    logs -= {path for path in RECORDS if not tree.read_bytes(path).strip(b"\0")}
    if logs:
        names = [path.removeprefix(f"{LOGS}/") for path in sorted(logs)]
        findings.add("log", LOGS, _listed(names))


def _is_below(file: Found, directories: Sequence[str]) -> bool:
    return file.type == "f" and any(file.path.startswith(f"{name}/") for name in directories)


def _listed(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _check_homes(tree: Tree, found: Sequence[Found], findings: Findings) -> None:
    homes = ["/root", *(f"/home/{name}" for name in tree.names("/home")[:100])]
    users = [line.split(":") for line in tree.read(PASSWD).splitlines()[:USERS_LIMIT]]
    homes += [user[5] for user in users if len(user) == 7 and user[5] not in ("", "/", *homes)]
    for home in homes:
        for name in HISTORIES:
            if tree.is_file(f"{home}/{name}"):
                findings.add("shell-history", f"{home}/{name}", "it should not be there")
    keys = set()
    for directory in dict.fromkeys([*KEY_DIRECTORIES, *(f"{home}/.ssh" for home in homes)]):
        for name in tree.names(directory)[:100]:
            path = f"{directory}/{name}"
            if not SSH_KEY.fullmatch(name) and KEY_SIGN in tree.read_bytes(path, KEY_BYTES):
                keys.add(path)
    small = [file.path for file in found if _is_below(file, HOMES)]
    keys |= {p for p in small[:KEY_FILES_LIMIT] if KEY_FILE.search(tree.read_bytes(p, KEY_BYTES))}
    for path in sorted(keys):
        findings.add("private-key", path, "it should be made at the first boot")
