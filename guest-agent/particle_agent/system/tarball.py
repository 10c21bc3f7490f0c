"""Writes a directory as a tar archive to an output disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from particle_agent.contract.wire import OutputName
from particle_agent.errors import EnvironmentFailed
from particle_agent.target.target import Target

MIB = 1 << 20
# tar(5): one header of 512 bytes, or three with PAX records and a path, and padding to a block.
MEMBER_BYTES = 4096
CHUNK = 1 << 20


def write(target: Target, tree: Path, disk: OutputName, options: Sequence[str] = ()) -> None:
    """Writes the directory to the disk, and reports the disk as written.

    `options` are those of tar(1), in addition to stable names and numeric owners.
    """
    content = measure(tree)
    output = target.output_disk(-(-content // MIB) * MIB, content=content, disk=disk)
    target.reporter.disk_written(_archive(tree, output, options), disk)


def measure(tree: Path) -> int:
    """An upper bound for the size of an archive of the tree, in bytes."""
    total = MIB
    for directory, directories, files in os.walk(tree):
        for name in (*directories, *files):
            status = os.lstat(os.path.join(directory, name))
            total += MEMBER_BYTES + 2 * len(os.fsencode(directory)) + status.st_size
    return total


def _archive(tree: Path, disk: Path, options: Sequence[str]) -> int:
    """Writes `tree` to the start of `disk` as a POSIX archive; returns its size in bytes."""
    argv = ["tar", "--create", "--file=-", f"--directory={tree}", "--numeric-owner"]
    argv += ["--sort=name", *options, "."]
    size = 0
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as tar, disk.open("r+b") as file:
        assert tar.stdout is not None
        while chunk := tar.stdout.read(CHUNK):
            size += len(chunk)
            file.write(chunk)
        if tar.wait(60) != 0:
            raise EnvironmentFailed(f"tar cannot write the tarball (status {tar.returncode})")
    subprocess.run(["sync"], check=True, timeout=300)
    return size
