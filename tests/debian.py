"""Reads Debian's current packages with apt, as an ordinary user and in a private directory."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = ("bookworm", "trixie", "forky", "sid")
CONFIGURATION = """\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{place}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{place}/";
Dir::State::status "{place}/status";
Dir::State::lists "{place}/lists/";
Dir::Cache "{place}/";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "";
APT::Architecture "amd64";
APT::Architectures "amd64";
Acquire::Languages "none";
APT::Update::Error-Mode "any";
Acquire::Retries "3";
# As in apt-file's configuration.
Acquire::IndexTargets::deb::Contents-deb {{
  MetaKey "$(COMPONENT)/Contents-$(ARCHITECTURE)"; ShortDescription "Contents-$(ARCHITECTURE)";
  Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Contents"; KeepCompressed "true";
}};
# Nothing is installed from here, and mirrors may lag behind.
Acquire::Check-Valid-Until "no";
"""


def mirror() -> str:
    """The mirror of PARTICLE_OS_MIRROR, or the first Debian mirror in the host's apt sources."""
    if named := os.environ.get("PARTICLE_OS_MIRROR"):
        return named
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
         "Origin: Debian"],
        check=True, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return done.stdout.split()[0]


class Suite:
    """A current suite of Debian; the files of apt lie in the directory `place`."""

    def __init__(self, name: str, place: Path) -> None:
        self.name = name
        self._place = place
        (place / "lists/partial").mkdir(parents=True)
        (place / "status").touch()
        source = f"deb [signed-by={KEYRING}] {mirror()} {name} main\n"
        (place / "sources.list").write_text(source)
        (place / "apt.conf").write_text(CONFIGURATION.format(place=place))
        self._run("apt-get", "update", "--quiet")

    def _run(self, *argv: str) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._place / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=600, cwd=self._place, env=environment
        )
        assert done.returncode == 0, f"{argv} failed: {done.stderr[-2000:]}"
        return done.stdout

    def paragraphs(self) -> Iterator[dict[str, str]]:
        """The one-line fields of each package in the suite's index."""
        (index,) = (self._place / "lists").glob("*_Packages*")
        text = self._run("/usr/lib/apt/apt-helper", "cat-file", str(index))
        for paragraph in text.split("\n\n"):
            if fields := dict(re.findall(r"(?m)^([A-Za-z-]+): (.*)$", paragraph)):
                yield fields

    def contents(self) -> Iterator[tuple[str, list[str]]]:
        """Each path in the suite, relative to the root directory, and the packages that have it."""
        for index in sorted((self._place / "lists").glob("*_Contents-*")):
            for line in self._run("/usr/lib/apt/apt-helper", "cat-file", str(index)).splitlines():
                path, _, owners = line.rpartition(" ")
                yield path.rstrip(), [owner.rpartition("/")[2] for owner in owners.split(",")]

    def depends(self, package: str) -> list[str]:
        """The names of the packages on which a package depends directly."""
        return re.findall(r"(?m)Depends: ([^<\s]+)$", self._run("apt-cache", "depends", package))

    def script(self, package: str, name: str) -> str | None:
        """A maintainer script of a package; None when the package has no such script."""
        return self._member(package, "--ctrl-tarfile", name)

    def file(self, package: str, path: str) -> str | None:
        """A text file of a package; None when the package has no such file."""
        return self._member(package, "--fsys-tarfile", path)

    def _member(self, package: str, kind: str, name: str) -> str | None:
        data = subprocess.run(
            ["dpkg-deb", kind, self._deb(package)], check=True, capture_output=True, timeout=600
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            try:
                file = archive.extractfile(f"./{name}")
            except KeyError:
                return None
            return file.read().decode() if file else None

    def _deb(self, package: str) -> Path:
        if not (found := list(self._place.glob(f"{package}_*.deb"))):
            self._run("apt-get", "download", "--quiet", package)
            found = list(self._place.glob(f"{package}_*.deb"))
        return found[0]
