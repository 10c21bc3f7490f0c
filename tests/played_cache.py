"""A played farm whose recipes travel, and whose images come back through a real shared cache.

The workers run the command `build` in a process of its own; a script takes its place there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from particle_os.fleet.farm.member.settings import WorkerSettings
from particle_os.report.pages import POLICY
from particle_os.report.results import ArtifactResult
from particle_os.system.checksum import tree_sha256

from .played_farm import BUILD, PlayedFarm
from .unit.fleet.farm.test_returned import pair
from .unit.report.pages import result, verdict

RECIPE = """\
name: {name}
base-image: mmdebstrap:trixie
stages:
  - {{type: apt, packages: [linux-image-cloud-amd64, systemd-sysv]}}
  - {{type: qemu}}
"""
# Python runs this module when it starts: it plays the command `build` of the keepers.
PLAYED = f"""\
import os, shutil, sys
words = sys.orig_argv
if {{"particle_os", "build", "-P"}} <= {{*words}} and "PLAYED_PLACE" in os.environ:
    place, name = os.environ["PLAYED_PLACE"], os.path.basename(words[words.index("build") + 1])[:-4]
    output = next(w for w in words if w.startswith("--output="))[9:]
    shutil.copytree(os.path.join(place, "made", name), output, dirs_exist_ok=True)
    sys.argv = ["-c", name, place]
    code = 1
    try:
        exec({BUILD!r}, {{"__name__": "__main__"}})
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    os._exit(code)
"""


@dataclass
class CachedFarm(PlayedFarm):
    """A farm with a shared cache in the directory `shared`; its clients publish in `out`."""

    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._secret, self._public = pair(self.place, "results")
        (self.place / "site").mkdir()
        (self.place / "site/sitecustomize.py").write_text(PLAYED)
        for name in self.names:
            self._make(name)

    @property
    def shared(self) -> str:
        return f"file://{self.place}/shared"

    @property
    def environment(self) -> dict[str, str]:
        mine = {"PYTHONPATH": str(self.place / "site"), "PLAYED_PLACE": str(self.place)}
        read = {"PLAYED_SHARED": self.shared, "PLAYED_KEY": str(self._public)}
        return {**super().environment, **mine, **read}

    def start_worker(self, count: int = 1, slots_: int = 1, **more: object) -> None:
        builds = WorkerSettings((), (), self.shared, str(self._secret)).encode()
        super().start_worker(count, slots_, builds=builds, **more)

    def is_whole(self, name: str) -> bool:
        """Whether the client has the image and the result of a build."""
        made, out = self.place / "made" / name, self.place / "out"
        files = (f"{name}.qcow2", f"{name}.result.json")
        return all(
            (out / file).exists() and (out / file).read_bytes() == (made / file).read_bytes()
            for file in files
        )

    def _make(self, name: str) -> None:
        """The recipe of an image, and the files that its build leaves."""
        (self.place / f"{name}.yml").write_text(RECIPE.format(name=name))
        made = self.place / "made" / name
        made.mkdir(parents=True)
        image = made / f"{name}.qcow2"
        # A header that says nothing, and data that differs.
        image.write_bytes(b"QFI\xfb" + bytes(70000) + name.encode() * 1000)
        size = image.stat().st_size
        found = ArtifactResult(
            path=image.name, format="qcow2", bytes=size, virtual_bytes=1 << 30,
            allocated_bytes=size, sha256=hashlib.sha256(image.read_bytes()).hexdigest(),
            tree_sha256=tree_sha256(image, size),
        )  # fmt: skip
        text = result(name, [verdict(name, "passed")], artifacts=(found,)).model_dump_json()
        small = {"result.json": text, "log": "x", "console.log": "x", "report.html": POLICY}
        for ending, content in small.items():
            (made / f"{name}.{ending}").write_text(content)
        (self.place / f"result-{name}.json").write_text(text)


def options_here(place: Path) -> dict[str, Any]:
    """The options in a client's own process; none for a farm without a shared cache."""
    if "PLAYED_SHARED" not in os.environ:
        return {}
    return {
        "cache_from": (os.environ["PLAYED_SHARED"],),
        "cache_keys": (Path(os.environ["PLAYED_KEY"]),),
        "output_directory": place / "out",
    }
