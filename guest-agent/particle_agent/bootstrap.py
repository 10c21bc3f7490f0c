"""Turns the extracted packages of a Debian suite into a configured root file system.

The host fetches and verifies the packages without privilege (mmdebstrap), and hands them in on a
disk, decompressed. Here they are extracted, so that there is a dpkg that can install them; their
maintainer scripts run as root in the VM. What comes out is the base tarball that
`mmdebstrap:SUITE` stands for, once it is exported.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from particle_agent import packages
from particle_agent.errors import InfrastructureError
from particle_agent.options import StageOptions
from particle_agent.target import Target

# Of the host, and how mmdebstrap was called.
LEFT_BEHIND = (
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/apt/apt.conf.d/99mmdebstrap",
)
CHUNK = 1 << 20


def extract(archives: Path, root: Path, sources: str) -> None:
    """Extracts all packages in `archives` into the empty tree `root`; no script runs.

    `sources` becomes sources.list(5). The packages' members are not compressed.
    """
    # The suites before trixie leave these links to the installer; later ones bring them.
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    argv = ["tar", "--extract", "--file=-", f"--directory={root}", "--ignore-zeros"]
    argv += ["--numeric-owner", "--same-permissions", "--keep-directory-symlink"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as tar:
        assert tar.stdin is not None
        for deb in sorted(archives.glob("*.deb")):
            with deb.open("rb") as file:
                left = _find_data(file)
                while left:
                    chunk = file.read(min(CHUNK, left))
                    left -= len(chunk)
                    tar.stdin.write(chunk)
        tar.stdin.close()
        if tar.wait(300) != 0:
            raise InfrastructureError(f"tar cannot extract the packages (status {tar.returncode})")
    (root / "etc/apt/sources.list").write_text(sources)
    (root / "var/lib/dpkg/status").touch()


def _find_data(deb: IO[bytes]) -> int:
    """Goes to the files of a package, an ar archive (deb(5)); returns their size in bytes."""
    deb.seek(8)
    while len(header := deb.read(60)) == 60:
        size = int(header[48:58])
        if header[:16].rstrip() == b"data.tar":
            return size
        deb.seek(size + size % 2, os.SEEK_CUR)
    raise InfrastructureError(f"{deb.name} holds no decompressed files")


@dataclass(frozen=True, kw_only=True)
class Bootstrap(StageOptions):
    """Installs the packages of the host's disk in the tree."""

    type: Literal["bootstrap"] = "bootstrap"

    def run(self, target: Target) -> None:
        with packages.disk(target) as disk:
            archives = f"{disk}/{packages.ARCHIVES}"
            debs = [f"{archives}/{n}" for n in target.list(archives) if n.endswith(".deb")]
            # As mmdebstrap and debootstrap do it: the essential set depends on itself in circles.
            target.chroot(["dpkg", "--force-depends", "--force-unsafe-io", "--install", *debs])
        for path in LEFT_BEHIND:
            target.remove(path)
