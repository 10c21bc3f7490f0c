"""Runs Python with these arguments, confined to a directory: `inside.py DIRECTORY ARGUMENT...`.

unshare(1) starts it as the first process of its namespaces. Python is a child with a session of its
own: the group of the first process has the number 0 in here, and a program that signals group 0
signals itself. The packages that this program imports are those of the tree, without a mutant.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from particle_agent.target import limits
from particle_os.system.confinement import GIB, Confinement, landlock_abi

CPU_SECONDS = 3600
# Landlock keeps signals inside since this version.
LEAST_ABI = 6
PACKAGES = ("host", "guest-agent")


def main(place: Path, argv: list[str]) -> None:
    if landlock_abi() < LEAST_ABI:
        sys.exit("mutants need a kernel with Landlock 6 or later (Linux 6.12)")
    limits._loopback_up()
    if child := os.fork():
        sys.exit(_status_of(child))
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    terminals = (Path("/dev/pts"), Path("/dev/ptmx"), Path("/dev/shm"))
    python = (Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent)
    # Tests run programs that they have written to their directories.
    within = Confinement(
        reads=(*python, place), writes=(place, *terminals), tcp="any", memory=16 * GIB
    )
    within.entry(sys.executable)()
    # Only from here on does Python load the mutated packages.
    roots = (place / "tree" / package for package in PACKAGES)
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, roots))
    os.execv(sys.executable, [sys.executable, *argv])


def _status_of(child: int) -> int:
    """Waits for the child, and meanwhile reaps orphans as the first process of a system does."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
