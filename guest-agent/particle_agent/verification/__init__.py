"""Judges a finished disk image: is it whole, would it boot, and is nothing left in it.

It is read only, in a VM that is thrown away: what is on the disk is nobody's we know. All reading
is bounded, and what is found is told as findings with a code (`findings.ERRORS`, `WARNINGS`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from particle_agent.contract.findings import Findings
from particle_agent.contract.wire import Finding
from particle_agent.disk import reading
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


def of_disk(device: Path, tell: Callable[[Finding], None]) -> None:
    """Verifies a disk; what is wrong with it goes to `tell`."""
    findings = Findings(tell)
    with device.open("rb") as disk:
        size = disk.seek(0, os.SEEK_END)
        found_table = table.read(disk, size, findings)
        if found_table is not None:
            table.check(found_table, findings)
        identified = volumes.identify(device, found_table)
        if found_table is None and not identified:
            findings.add("partition-table-missing", "disk", "there is no file system, either")
        _check_names(identified, findings)
        with volumes.mounted(device, identified) as found, ThreadPoolExecutor(2) as pool:
            # They take the longest, and are programs of their own.
            checks = [(v, pool.submit(file_systems.check, v.node(device), v.kind)) for v in found]
            for volume in found:
                if volume.tree is None and volume.kind in reading.MOUNTED:
                    findings.add(
                        "file-system-unreadable",
                        volume.name,
                        f"its {volume.kind} is too damaged, or too new",
                    )
            if found_table is not None or identified:
                boot.check(disk, size, found_table, found, findings)
            for root in (volume for volume in found if volume.is_root):
                check_system(root, found, findings)
            if not any(volume.is_root for volume in found):
                findings.add("system-not-found", "disk", "nothing has both /etc and /usr")
            for volume, check in checks:
                for code, message in check.result():
                    findings.add(code, volume.name, message)
    findings.finish()


def _check_names(found: Sequence[FoundVolume], findings: Findings) -> None:
    for one, other in table.same([(volume.name, volume.uuid) for volume in found if volume.uuid]):
        findings.add("file-system-duplicate", f"{one} and {other}", "programs may take either one")


def check_system(root: FoundVolume, found: Sequence[FoundVolume], findings: Findings) -> None:
    """Tells what is wrong with what a root file system holds; the others may be named in it."""
    assert root.tree is not None
    names.check_fstab(root, found, findings)
    files = walk.walk(root.tree.root, findings)
    leftovers.check(root.tree, files, findings)
    rights.check(root.tree, files, findings)
