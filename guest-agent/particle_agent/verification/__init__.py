"""Verifies a disk image: it is intact, it can boot, and the build left nothing behind.

The disk is untrusted. It is read-only, in a VM that is thrown away, and each read has a limit. The
results are findings with the codes of `contract.findings`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

from particle_agent.contract.contents import SEALED, content_of
from particle_agent.contract.findings import Findings
from particle_agent.contract.wire import Finding
from particle_agent.disk import reading
from particle_agent.disk.reading import Tree
from particle_agent.verification import (
    boot,
    file_systems,
    leftovers,
    names,
    rights,
    table,
    volumes,
    walk,
)
from particle_agent.verification.volumes import FoundVolume

# The bytes of a disk that show whether anything has been written to it.
BEGINNING = 1 << 20


def of_disk(device: Path, report: Callable[[Finding], None], *, fresh: bool = False) -> None:
    """Verifies a disk. Calls `report` for each finding.

    A `fresh` disk has been written by this VM: the objects of OSTree in it are not read again.
    """
    findings = Findings(report)
    with device.open("rb") as disk, volumes.readable(device) as readable:
        size = disk.seek(0, os.SEEK_END)
        found_table = table.read(disk, size, findings)
        identified = volumes.identify(readable, found_table)
        if found_table is not None:
            own = tuple(volume.entry for volume in identified if volume.entry is not None)
            table.check(replace(found_table, entries=own), findings)
        elif not identified:
            findings.add("partition-table-missing", "disk", _nothing_on(disk))
        _check_names(identified, findings)
        with volumes.mounted(readable, identified) as found, ThreadPoolExecutor(2) as pool:
            checker = partial(file_systems.check, fresh=fresh)
            # The checkers take the longest and are separate programs, so run them in parallel.
            checks = [(v, pool.submit(checker, v.node(readable), v.kind, v.tree)) for v in found]
            for volume in found:
                if volume.tree is None and volume.kind in reading.MOUNTED:
                    findings.add(
                        "file-system-unreadable",
                        volume.name,
                        f"its {volume.kind} is damaged, or has features that are too new",
                    )
            if found_table is not None or identified:
                boot.check(disk, size, found_table, found, findings)
            for root in chain.from_iterable(volume.systems for volume in found):
                check_system(root, found, findings)
            if not any(volume.is_root for volume in found):
                findings.add("system-not-found", "disk", _without_system(found))
            for volume, check in checks:
                for code, message in check.result():
                    findings.add(code, volume.name, message)
    findings.finish()


def _nothing_on(disk: IO[bytes]) -> str:
    """The message about a disk with neither a partition table nor a known content."""
    disk.seek(0)
    if not any(disk.read(BEGINNING)):
        return f"nothing has been written to it: its first {BEGINNING >> 20} MiB are zeroes"
    return "there is no file system either; is the file an image of a disk?"


def _without_system(found: Sequence[FoundVolume]) -> str:
    """The message about a disk without a system; what is not read may hold one."""
    message = "no file system has both /etc and /usr"
    for volume in found:
        if volume.kind in SEALED:
            words = content_of(volume.kind).words
            message += f"; {volume.name} is {words}, and its content is not read"
        elif volume.kind == volumes.ISO:
            message += (
                f"; {volume.name} is an ISO 9660 image, whose live system is in one of its files"
            )
    return message


def _check_names(found: Sequence[FoundVolume], findings: Findings) -> None:
    for one, other in table.same([(volume.name, volume.uuid) for volume in found if volume.uuid]):
        findings.add("file-system-duplicate", f"{one} and {other}", "programs may use either one")


def check_system(root: Tree, found: Sequence[FoundVolume], findings: Findings) -> None:
    """Verifies the content of a root directory, which may refer to all of the `found` volumes."""
    names.check_fstab(root, found, findings)
    files = walk.walk(root.root, findings)
    leftovers.check(root, files, findings)
    rights.check(root, files, findings)
