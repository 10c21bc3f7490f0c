"""Turns the extracted packages of a Debian suite into a configured root file system.

The host fetches, verifies and extracts the packages without privilege (mmdebstrap, variant
"extract"), and hands them in once more on a disk; their maintainer scripts run here, as root in
the VM. What comes out is the base tarball that `mmdebstrap:SUITE` stands for.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from particle_agent import packages
from particle_agent.checksum import tree_sha256
from particle_agent.errors import InfrastructureError
from particle_agent.options import Options
from particle_agent.target import Target

# Of the host, and how mmdebstrap was called.
LEFT_BEHIND = (
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/apt/apt.conf.d/99mmdebstrap",
)
OUTPUT_BYTES = 4 << 30
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Bootstrap(Options):
    """Installs the packages of the host's disk in the tree and writes it as a tar archive."""

    type: Literal["bootstrap"] = "bootstrap"

    def run(self, target: Target) -> None:
        with packages.disk(target) as disk:
            archives = f"{disk}/{packages.ARCHIVES}"
            debs = [f"{archives}/{n}" for n in target.list(archives) if n.endswith(".deb")]
            # As mmdebstrap and debootstrap do it: the essential set depends on itself in circles.
            target.chroot(["dpkg", "--force-depends", "--force-unsafe-io", "--install", *debs])
        for path in LEFT_BEHIND:
            target.remove(path)
        with target.mounted(target.root, "--bind") as tree:
            output = target.output_disk(OUTPUT_BYTES, content=OUTPUT_BYTES // 8)
            size = _archive(tree, output)
        target.reporter.disk_written(size, tree_sha256(output, size))


def _archive(tree: Path, disk: Path) -> int:
    """Writes `tree` to the start of `disk` as a POSIX archive; returns its size in bytes."""
    argv = ["tar", "--create", "--file=-", f"--directory={tree}", "--numeric-owner"]
    argv += ["--xattrs", "--xattrs-include=*", "--sort=name", "--exclude=./lost+found", "."]
    size = 0
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as tar, disk.open("r+b") as file:
        assert tar.stdout is not None
        while chunk := tar.stdout.read(CHUNK):
            size += len(chunk)
            file.write(chunk)
        if tar.wait(60) != 0:
            raise InfrastructureError(
                f"tar cannot write the base tarball (status {tar.returncode})"
            )
    subprocess.run(["sync"], check=True, timeout=300)
    return size
