"""Debian packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

from particle_agent import kernels, packages
from particle_agent.apt_failure import apt_failure
from particle_agent.errors import CommandFailed, StageError
from particle_agent.options import PackageName, StageOptions
from particle_agent.target import ENVIRONMENT, Target

APT_GET = (
    "apt-get",
    "--yes",
    "--quiet",
    "-oAcquire::Languages=none",
    "-oAcquire::Retries=2",
    "-oAcquire::http::Timeout=20",
    "-oAcquire::https::Timeout=20",
    "-oAPT::Update::Error-Mode=any",
    "-oAPT::Sandbox::User=root",
    "-oDpkg::Use-Pty=0",
    # The scratch disk is thrown away unless the build succeeds: no need to sync each file.
    "-oDpkg::Options::=--force-unsafe-io",
    "-oDpkg::Options::=--force-confold",
)
FIELD = re.compile(r"^(Package|Status|Provides): (.*)$", re.MULTILINE)
POLICY = "/usr/sbin/policy-rc.d"
# dpkg and the maintainer scripts find these programs here first.
STAND_INS = "/run/particle-os-bin"
ASKED_FOR = "/run/particle-os-asked"
HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))


@dataclass(frozen=True, kw_only=True)
class Apt(StageOptions):
    """Installs Debian packages with the apt of the image.

    No service starts during the build, the initramfs is made once at the end, and apt's indexes
    and downloads stay outside of the image.
    """

    reads_network: ClassVar[bool] = True
    type: Literal["apt"] = "apt"
    packages: tuple[PackageName, ...] = ()
    """What to install; a name may carry :ARCH, =VERSION or /RELEASE as in apt-get(8)."""
    update: bool = True
    """Whether to fetch the package indexes first."""
    recommends: bool = False
    """Whether to install recommended packages too."""

    def run(self, target: Target) -> None:
        if not target.exists("/usr/bin/apt-get"):
            raise StageError(
                "the base has no apt-get",
                hint="Use a Debian base image that contains the 'apt' package.",
            )
        with ExitStack() as stack:
            stack.enter_context(_services_stay_off(target))
            stack.enter_context(_no_host_keys(target))
            once = stack.enter_context(_generated_once(target))
            if self._host_has_fetched(target):
                install = stack.enter_context(packages.options(target))
                # The index knows no releases; it holds the version that was chosen.
                names = [name.partition("/")[0] for name in self.packages]
            else:
                stack.enter_context(target.network())
                if self.update:
                    _apt_get(target, "update")
                install, names = [], list(self.packages)
            if names:
                recommends = "true" if self.recommends else "false"
                install += once
                install += [f"-oAPT::Install-Recommends={recommends}", "install", "--"]
                _apt_get(target, *install, *names)
                _check_installed(target, names)

    def _host_has_fetched(self, target: Target) -> bool:
        """Whether the host's apt has done the work that is slow in here."""
        if not self.packages:
            return False
        request = packages.make_request(target)
        if request is None:
            return False
        with target.timings.part("packages from the host"):
            answer = target.reporter.packages(request)
        if answer.refused:
            target.reporter.note(f"apt runs in the VM, which is slower: {answer.refused}")
        return answer.refused is None


def _apt_get(target: Target, *arguments: str) -> None:
    try:
        target.chroot([*APT_GET, *arguments])
    except CommandFailed as failed:
        raise apt_failure(failed.tail) or failed from failed


def _check_installed(target: Target, names: Iterable[str]) -> None:
    """apt-get(8) takes a name that it does not find for a regular expression, or for "x" of "x+".

    Raises StageError naming what is not there afterwards.
    """
    if not target.exists("/var/lib/dpkg/status"):
        return
    here = set()
    for paragraph in target.read("/var/lib/dpkg/status").split("\n\n"):
        fields = dict(FIELD.findall(paragraph))
        if fields.get("Status", "").endswith(" installed"):
            here.add(fields["Package"])
            here |= {one.split(" ")[0] for one in fields.get("Provides", "").split(", ")}
    for name in names:
        plain = re.split("[:=/]", name)[0]
        if plain not in here:
            raise StageError(
                f"apt-get: there is no package '{plain}'; it took the name for something else",
                hint="Check the name against the suite of the base image.",
            )


@contextmanager
def _services_stay_off(target: Target) -> Iterator[None]:
    """invoke-rc.d(8) asks policy-rc.d; 101 forbids the action."""
    if target.exists(POLICY):
        yield
        return
    target.write(POLICY, "#!/bin/sh\nexit 101\n", mode=0o755)
    try:
        yield
    finally:
        target.remove(POLICY)


@contextmanager
def _no_host_keys(target: Target) -> Iterator[None]:
    """openssh-server makes no keys where a file exists; the image makes its own at first boot."""
    placeholders = [path for path in HOST_KEYS if not target.exists(path)]
    had_directory = target.exists("/etc/ssh")
    for path in placeholders:
        target.write(path, "", mode=0o600)
    try:
        yield
    finally:
        for path in placeholders:
            if target.exists(path) and target.read(path) == "":
                target.remove(path)
        if not had_directory and not target.list("/etc/ssh"):
            target.remove("/etc/ssh")


@contextmanager
def _generated_once(target: Target) -> Iterator[list[str]]:
    """What packages have generated again and again is generated once, at the end, side by side.

    That is the initramfs of each kernel, and udev's database of hardware. Yields the options with
    which apt-get only notes that these were asked for.
    """
    for name in ("update-initramfs", "systemd-hwdb"):
        text = f'#!/bin/sh\nmkdir -p {ASKED_FOR}\necho "$*" > {ASKED_FOR}/{name}\n'
        target.write(f"{STAND_INS}/{name}", text, mode=0o755)
    try:
        yield [f"-oDPkg::Path={STAND_INS}:{ENVIRONMENT['PATH']}"]
    finally:
        target.remove(STAND_INS)
        asked = target.list(ASKED_FOR)
        target.remove(ASKED_FOR)
    with ThreadPoolExecutor() as pool:
        hwdb = pool.submit(_make_hwdb if "systemd-hwdb" in asked else lambda target: None, target)
        if "update-initramfs" in asked:
            for version in kernels.versions(target):
                if not kernels.takes_list(target, version):
                    # Its initramfs holds the database.
                    hwdb.result()
                kernels.make_initramfs(target, version)
        hwdb.result()


def _make_hwdb(target: Target) -> None:
    target.chroot(["systemd-hwdb", "--usr", "update"])
