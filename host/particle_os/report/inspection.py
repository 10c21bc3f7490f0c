"""What an inspection found, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from particle_agent.contract.inspection import Inspection

from particle_os.errors import printable
from particle_os.report.table import human_bytes


def described(found: Inspection) -> Iterator[tuple[str, str]]:
    """What was found, as lines for people: a word and what it is. All text is made printable."""
    if found.size:
        yield "disk", f"{human_bytes(found.size)}, {found.table or 'no partition table'}"
    for part in found.partitions:
        words = [f"{part.number}:", human_bytes(part.size)]
        if part.name:
            words.append(f"'{part.name}'")
        if part.file_system is None:
            words.append("no file system that is known")
        else:
            words += [part.file_system.kind, part.file_system.uuid]
            if part.file_system.used is not None:
                words.append(f"{human_bytes(part.file_system.used)} used")
        yield "partition", printable(" ".join(words))
    if found.size:
        yield "boot loader", ", ".join(found.boot_loaders) or "none that is known"
    if found.system is None:
        yield "system", "none found"
        return
    release = {s.key: s.value for s in found.system.os_release}
    yield "system", printable(release.get("PRETTY_NAME", "unknown: there is no os-release"))
    if found.system.hostname:
        yield "host name", printable(found.system.hostname)
    yield "kernel", printable(", ".join(found.system.kernels)) or "none"
    yield "packages", str(len(found.system.packages))
    for account in found.system.accounts:
        password = {"set": "a password", "empty": "NO PASSWORD NEEDED", "locked": "no password"}
        text = f"{account.name} ({account.uid}), {account.shell}, {password[account.password]}"
        yield "user", printable(text)
