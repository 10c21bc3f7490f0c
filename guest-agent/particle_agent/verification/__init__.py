"""Verifies a disk image: it is intact, it can boot, and the build left nothing behind.

The disk is untrusted. It is read-only, in a VM that is thrown away, and each read has a limit. The
results are findings with the codes of `contract.findings`.
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


def of_disk(device: Path, report: Callable[[Finding], None]) -> None:
    """Verifies a disk. Calls `report` for each finding."""
    findings = Findings(report)
    with device.open("rb") as disk:
        size = disk.seek(0, os.SEEK_END)
        found_table = table.read(disk, size, findings)
        if found_table is not None:
            table.check(found_table, findings)
        identified = volumes.identify(device, found_table)
        if found_table is None and not identified:
            findings.add("partition-table-missing", "disk", "there is no file system either")
        _check_names(identified, findings)
        with volumes.mounted(device, identified) as found, ThreadPoolExecutor(2) as pool:
            # The checkers take the longest and are separate programs, so run them in parallel.
            checks = [(v, pool.submit(file_systems.check, v.node(device), v.kind)) for v in found]
            for volume in found:
                if volume.tree is None and volume.kind in reading.MOUNTED:
                    findings.add(
                        "file-system-unreadable",
                        volume.name,
                        f"its {volume.kind} is damaged, or has features that are too new",
                    )
            if found_table is not None or identified:
                boot.check(disk, size, found_table, found, findings)
            for root in (volume for volume in found if volume.is_root):
                check_system(root, found, findings)
            if not any(volume.is_root for volume in found):
                findings.add("system-not-found", "disk", "no file system has both /etc and /usr")
            for volume, check in checks:
                for code, message in check.result():
                    findings.add(code, volume.name, message)
    findings.finish()


def _check_names(found: Sequence[FoundVolume], findings: Findings) -> None:
    for one, other in table.same([(volume.name, volume.uuid) for volume in found if volume.uuid]):
        findings.add("file-system-duplicate", f"{one} and {other}", "programs may use either one")


def check_system(root: FoundVolume, found: Sequence[FoundVolume], findings: Findings) -> None:
    """Verifies the content of a root file system, which may refer to all of the `found` volumes."""
    assert root.tree is not None
    names.check_fstab(root, found, findings)
    files = walk.walk(root.tree.root, findings)
    leftovers.check(root.tree, files, findings)
    rights.check(root.tree, files, findings)
