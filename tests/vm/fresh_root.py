"""Fresh systems of Debian 13 as directories, in which tests install particle-os as users do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUITE = "trixie"
MAKE_SECONDS = 1800
RUN_SECONDS = 3600
USER, UID = "builder", 1000
PIP = (Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf"))
# Certificates of the network of this host.
CERTIFICATES = Path("/usr/local/share/ca-certificates")
# The mounts are the namespace's own, so that none is left, whatever ends the program.
ENTER = """\
set -eu
root=$1; shift
for name in dev proc sys; do mount --rbind "/$name" "$root/$name"; done
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class FreshRoot:
    """A system in a directory, with an ordinary user and without any QEMU of the host."""

    directory: Path

    @classmethod
    def make(cls, directory: Path, packages: Sequence[str]) -> FreshRoot:
        """Makes a system with these packages, and with those that they depend on."""
        argv = ["mmdebstrap", "--mode=root", "--variant=apt", "--quiet", SUITE, directory]
        argv += [f"--include={package}" for package in ("passwd", *packages)]
        subprocess.run(argv, check=True, timeout=MAKE_SECONDS)
        root = cls(directory)
        shutil.copy("/etc/resolv.conf", directory / "etc/resolv.conf")
        root.run("useradd", "--create-home", "--uid", str(UID), "--shell", "/bin/sh", USER)
        return root

    def install(self, *packages: str | Path) -> None:
        """Installs packages; a path is a package in a file of the host."""
        names = []
        for package in packages:
            if isinstance(package, Path):
                names.append(f"/tmp/{package.name}")
                shutil.copy(package, self.directory / "tmp")
            else:
                names.append(package)
        self.run("apt-get", "update")
        self.run("apt-get", "install", "--yes", "--no-install-recommends", *names)

    def run(self, *argv: str | Path, user: bool = False) -> subprocess.CompletedProcess[str]:
        """Runs a program in the system, as root or as the ordinary user, and expects success."""
        done = self.attempt(*argv, user=user)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def attempt(self, *argv: str | Path, user: bool = False) -> subprocess.CompletedProcess[str]:
        """Runs a program in the system, as root or as the ordinary user."""
        become: list[str] = []
        if user:
            # As in a container without privilege: no capability, and none to gain.
            become = [
                "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
                "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
            ]  # fmt: skip
        home = f"/home/{USER}" if user else "/root"
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": home,
            "LANG": "C.UTF-8",
            **{k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
        }
        inside = ["env", f"--chdir={home}", *become, *map(str, argv)]
        return subprocess.run(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", ENTER, "sh",
             self.directory, *inside],
            check=False, capture_output=True, text=True, env=environment, timeout=RUN_SECONDS,
        )  # fmt: skip

    def take_network_settings(self) -> None:
        """Copies this host's settings of pip, and the certificates of its network."""
        for path in PIP:
            if path.exists():
                target = self.directory / str(path).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                # A file of constraints and packages in files are not there.
                text = re.sub(r"(?m)^(constraint|cert|.*file:).*\n", "", path.read_text())
                target.write_text(text)
        if CERTIFICATES.is_dir():
            # The package ca-certificates takes them from here when it is installed.
            place = self.directory / str(CERTIFICATES).lstrip("/")
            shutil.copytree(CERTIFICATES, place, dirs_exist_ok=True)
            if (self.directory / "usr/sbin/update-ca-certificates").exists():
                self.run("update-ca-certificates")

    def copy_tree(self, source: Path, place: str) -> None:
        """Copies a source tree, without what tools left in it."""
        ignored = shutil.ignore_patterns(
            ".venv", ".git", "__pycache__", "out", ".*_cache", ".hypothesis"
        )
        shutil.copytree(source, self.directory / place.lstrip("/"), ignore=ignored)

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
