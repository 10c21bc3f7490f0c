"""Stage export: writes the system as a tar archive to the output disk."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from particle_agent.errors import EnvironmentFailed
from particle_agent.stages.base import StageOptions
from particle_agent.target.target import Target

MIB = 1 << 20
# tar(5): one header of 512 bytes, or three with PAX records and a path, and padding to a block.
MEMBER_BYTES = 4096
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Export(StageOptions):
    """Writes the system as a tar archive, with owners, modes, links, devices and attributes."""

    in_recipes: ClassVar[bool] = False
    type: Literal["export"] = "export"

    def run(self, target: Target) -> None:
        with target.mounted(target.root, "--bind") as tree:
            content = _measure(tree)
            output = target.output_disk(-(-content // MIB) * MIB, content=content)
            size = _archive(tree, output)
        target.reporter.disk_written(size)


def _measure(tree: Path) -> int:
    """An upper bound for the size of an archive of the tree, in bytes."""
    total = MIB
    for directory, directories, files in os.walk(tree):
        for name in (*directories, *files):
            status = os.lstat(os.path.join(directory, name))
            total += MEMBER_BYTES + 2 * len(os.fsencode(directory)) + status.st_size
    return total


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
            raise EnvironmentFailed(f"tar cannot write the tarball (status {tar.returncode})")
    subprocess.run(["sync"], check=True, timeout=300)
    return size
