"""Stage bootstrap: makes a root file system from the packages of a Debian suite.

The host fetches and verifies the packages without privileges (mmdebstrap). Its disk of packages has
them uncompressed, with dpkg's database of them. In the VM, tar extracts the packages, because dpkg
takes a minute longer under emulation. The maintainer scripts run as root, in dpkg's order, and dpkg
configures the packages. The exported result is the base tarball of `mmdebstrap:SUITE`.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from particle_agent.apt import from_host
from particle_agent.apt.dpkg import DPKG, STATUS, chunks, find_member
from particle_agent.contract import packages
from particle_agent.contract.architectures.table import native
from particle_agent.errors import EnvironmentFailed
from particle_agent.stages.base import StageOptions
from particle_agent.system.hosts import DEFAULT_HOSTS
from particle_agent.target.command import PIPE_BYTES, TAR_RECORDS
from particle_agent.target.target import Target

# Files that mmdebstrap writes with data of the host.
LEFT_BEHIND = (
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/apt/apt.conf.d/99mmdebstrap",
)
# The directory of dpkg for the control files of the package that it unpacks.
CONTROL = f"{DPKG}/tmp.ci"
# In the order of dpkg's table. "depends" is for cycles in the dependencies of essential packages.
FORCED = ("unsafe-io", "depends")


def extract(disk: Path, root: Path, sources: str) -> None:
    """Extracts all packages of `disk` into the empty tree `root`, and dpkg's database if present.

    It runs no scripts. `sources` becomes sources.list(5). The members of the packages are
    uncompressed. Raises EnvironmentFailed when tar fails.
    """
    # Before trixie, the installer makes these links. Later, a package contains them.
    machine = native()
    # The VM has the architecture of the packages.
    for name in ("bin", "sbin", "lib", *(machine.image.library_links if machine else ())):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    argv = ["tar", "--extract", "--file=-", f"--directory={root}", "--ignore-zeros"]
    argv += [TAR_RECORDS]
    argv += ["--numeric-owner", "--same-permissions", "--keep-directory-symlink"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, pipesize=PIPE_BYTES) as tar:
        assert tar.stdin is not None
        for deb in sorted((disk / packages.ARCHIVES).glob("*.deb")):
            with deb.open("rb") as file:
                for chunk in chunks(file, find_member(file, b"data.tar")):
                    tar.stdin.write(chunk)
        database = disk / packages.DATABASE
        if database.exists():
            with database.open("rb") as file:
                shutil.copyfileobj(file, tar.stdin, PIPE_BYTES)
        tar.stdin.close()
        if tar.wait(300) != 0:
            raise EnvironmentFailed(f"tar cannot extract the packages (status {tar.returncode})")
    (root / "etc/apt/sources.list").write_text(sources)
    (root / STATUS.strip("/")).touch()


@dataclass(frozen=True, kw_only=True)
class Bootstrap(StageOptions):
    """Configures the extracted packages of the host's disk in the tree."""

    in_recipes: ClassVar[bool] = False
    type: Literal["bootstrap"] = "bootstrap"

    def run(self, target: Target) -> None:
        # Debian's installer writes this file, which no package contains. Maintainer scripts resolve
        # "localhost".
        target.write("/etc/hosts", DEFAULT_HOSTS)
        dpkg = ["dpkg", *(f"--force-{thing}" for thing in FORCED)]
        with from_host.disk(target) as disk:
            archives = f"{disk}/{packages.ARCHIVES}"
            debs = [f"{archives}/{n}" for n in target.list(archives) if n.endswith(".deb")]
            names = re.findall(r"(?m)^Package: *(\S+)", target.read(STATUS))
            if names and _run_preinsts(target, debs):
                # The order in which dpkg would configure the packages after unpacking them.
                target.chroot([*dpkg, "--configure", *names])
            else:
                _forget_database(target)
                target.chroot([*dpkg, "--install", *debs])
        for path in LEFT_BEHIND:
            target.remove(path)


def _run_preinsts(target: Target, debs: list[str]) -> bool:
    """Runs the packages' preinst scripts in order, as dpkg does before it unpacks a package.

    Returns False if the scripts affect what dpkg would then unpack.
    """
    extracted = target.path(STATUS).stat().st_ctime_ns
    for deb, name, architecture in _with_preinst(target, debs):
        target.chroot(["dpkg-deb", "--control", deb, CONTROL])
        target.chroot(
            [f"{CONTROL}/preinst", "install"], env=_environment(target, name, architecture)
        )
        target.remove(CONTROL)
    odd = next(_disturbed(target, extracted), None)
    if odd is not None:
        target.reporter.output(f"dpkg unpacks the packages: a script has changed {odd}")
    return odd is None


def _with_preinst(target: Target, debs: list[str]) -> Iterator[tuple[str, str, str]]:
    """The packages with a preinst script: file, name, architecture."""
    for deb in debs:
        with target.open(deb) as file:
            archive = file.read(find_member(file, b"control.tar"))
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as control:
            if "./preinst" in control.getnames():
                member = control.extractfile("./control")
                assert member is not None
                text = member.read().decode("utf-8", "replace")
                fields = dict(re.findall(r"(?m)^(Package|Architecture): *(\S+)", text))
                yield deb, fields["Package"], fields["Architecture"]


def _environment(target: Target, name: str, architecture: str) -> dict[str, str]:
    """The variables that dpkg(1) sets for a maintainer script."""
    version = re.search(r"(?m)^Package: *dpkg\n(?:.+\n)*?Version: *(\S+)", target.read(STATUS))
    return {
        "DPKG_ADMINDIR": DPKG,
        "DPKG_FORCE": ",".join(("security-mac", "downgrade", *FORCED)),
        "DPKG_MAINTSCRIPT_ARCH": architecture,
        "DPKG_MAINTSCRIPT_DEBUG": "0",
        "DPKG_MAINTSCRIPT_NAME": "preinst",
        "DPKG_MAINTSCRIPT_PACKAGE": name,
        "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT": "1",
        "DPKG_ROOT": "",
        "DPKG_RUNNING_VERSION": version.group(1) if version else "",
    }


def _disturbed(target: Target, since: int) -> Iterator[str]:
    """The files of packages that dpkg would now write differently.

    These have changed or vanished after the time `since` (ns), or dpkg diverts them, or overrides
    their owners or modes.
    """
    if target.exists(f"{DPKG}/statoverride") and target.read(f"{DPKG}/statoverride"):
        yield "owners and modes"
    diversions = f"{DPKG}/diversions"
    lines = target.read(diversions).splitlines() if target.exists(diversions) else []
    # See dpkg-divert(1): three lines for each, the path, the other path, the package.
    diverted = dict(zip(lines[::3], lines[2::3], strict=True))
    root = str(target.root)
    for listing in target.path(f"{DPKG}/info").glob("*.list"):
        owner = listing.name.removesuffix(".list").partition(":")[0]
        for path in listing.read_text(errors="surrogateescape").strip("\n").split("\n"):
            try:
                status = os.lstat(root + path)
            except OSError:
                yield path
                continue
            changed = status.st_ctime_ns > since and not stat.S_ISDIR(status.st_mode)
            if changed or diverted.get(path, owner) != owner:
                yield path


def _forget_database(target: Target) -> None:
    """Removes all packages from dpkg's database."""
    target.write(STATUS, "")
    for name in target.list(f"{DPKG}/info"):
        target.remove(f"{DPKG}/info/{name}")
