"""Machines for real jobs of CI: fresh systems of Debian 13, entered as containers are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..vm.fresh_root import FreshRoot
from . import github

# The settings of the image debian:trixie (debuerreotype, scripts/debuerreotype-minimizing-config).
SETTINGS = {
    "dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
    "apt/apt.conf.d/docker-autoremove-suggests": 'Apt::AutoRemove::SuggestsImportant "false";\n',
    "apt/apt.conf.d/docker-clean": (
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb '
        '/var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };\n'
        'APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb '
        '/var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };\n'
        'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
    ),
    "apt/apt.conf.d/docker-gzip-indexes": 'Acquire::GzipIndexes "true";\n',
    "apt/apt.conf.d/docker-no-languages": 'Acquire::Languages "none";\n',
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Machines:
    """Makes machines that are as bare as a container `debian:trixie`."""

    directory: Path
    bare: FreshRoot

    @classmethod
    def make(cls, directory: Path) -> Machines:
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        bare = FreshRoot.make(directory / "bare", [])
        for name, text in SETTINGS.items():
            (bare.directory / "etc" / name).write_text(text)
        return cls(directory, bare)

    def root(self, name: str) -> FreshRoot:
        """A new system, with the settings that pip has on this host, and with the source tree."""
        root = FreshRoot(self.directory / name)
        subprocess.run(["cp", "-a", "--reflink=auto", self.bare.directory, root.directory],
                       check=True)  # fmt: skip
        root.take_network_settings()
        root.copy_tree(github.TOP, "/srv/particle-os")
        return root

    def enter(self, root: FreshRoot, binds: Sequence[Path] = ()) -> tuple[str, ...]:
        """The command that runs a command in the system, without privilege and /dev/kvm."""
        options = [option for path in binds for option in ("--bind", str(path))]
        return (
            sys.executable, str(github.CONTAINER), "--root", str(root.directory), *options, "--",
        )  # fmt: skip

    def github(self, name: str, environment: dict[str, str]) -> github.Runner:
        """A new machine with GitHub's runner; what the machines store lasts.

        Every machine has the same paths, as those of GitHub have: retire one before the next one.
        """
        root = self.root(name)
        place = self.directory / "runner"
        runner = github.Runner(
            place, self.directory / "stored", {"PATH": PATH, "LANG": "C.UTF-8", **environment}
        )
        runner.action = Path("/srv/particle-os")
        runner.confined = self.enter(root, [place])
        return runner

    def remove(self, name: str) -> None:
        """Removes a machine."""
        shutil.rmtree(self.directory / name, ignore_errors=True)
