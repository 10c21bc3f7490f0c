"""Loads kernel modules of the helper VM.

The VM lacks the indexes of modprobe(8). Each module lists the modules that it depends on in its
section .modinfo (linux/module.h: MODULE_INFO).
"""

from __future__ import annotations

import lzma
import os
import re
import subprocess
import tempfile
from pathlib import Path

PLACE = Path("/usr/lib/modules")
DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def load(name: str, place: Path = PLACE) -> None:
    """Loads a module and its dependencies, unless the kernel has a file system of this name."""
    known = Path("/proc/filesystems").read_text().split()
    if name in known:
        return
    files = {
        file.partition(".ko")[0].replace("-", "_"): Path(directory, file)
        for directory, _, names in os.walk(place)
        for file in names
        if ".ko" in file
    }
    _load(name, files, set())


def _load(name: str, files: dict[str, Path], loaded: set[str]) -> None:
    if name in loaded or name not in files or Path("/sys/module", name).exists():
        return
    loaded.add(name)
    path = files[name]
    data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    if found := DEPENDS.search(data):
        for needed in filter(None, found.group(1).decode("ascii").split(",")):
            _load(needed.replace("-", "_"), files, loaded)
    with tempfile.NamedTemporaryFile(suffix=".ko") as file:
        file.write(data)
        file.flush()
        argv = ["busybox", "insmod", file.name]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
