"""Stage apt: installs, upgrades and removes Debian packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from particle_agent.apt import from_host, unattended
from particle_agent.contract.needs import WITHOUT, Need, in_facts, is_one_of
from particle_agent.contract.options import HostDebs, idle, refuse
from particle_agent.contract.values import (
    ArchitectureName,
    Download,
    InstalledName,
    PackageName,
    ReleaseName,
)
from particle_agent.shortcuts import at_once, stand_ins
from particle_agent.stages.base import StageOptions
from particle_agent.stages.software.installed import check_installed, check_removed, present
from particle_agent.stages.software.preparation import (
    Answer,
    Credential,
    Pin,
    local_debs,
    passwords,
    pin,
    preseed,
    require_apt,
)
from particle_agent.stages.software.transaction import Transaction
from particle_agent.target.target import Target

# apt_preferences(5): above this priority apt downgrades.
DOWNGRADES = 1000
# Packages whose purpose is to depend on many others.
COLLECTIONS = ("task-*", "live-task-*", "*-desktop*", "*-full", "debian-cloud-images-packages")
# The users and groups of systemd, D-Bus, udev and OpenSSH in Debian 12 and 13. Other packages of
# WITHOUT["common"] make none.
ACCOUNTS = re.compile(
    "(user|group) (systemd-.*|messagebus|input|kvm|render|sgx|clock|_ssh|ssh|sshd)"
)


@dataclass(frozen=True, kw_only=True)
class Apt(StageOptions):
    """Installs, upgrades and removes Debian packages with the apt of the image.

    No service starts during the build. The initramfs is made once, at the end. apt's indexes and
    downloads stay outside the image.
    """

    reads_network: ClassVar[bool] = True
    type: Literal["apt"] = "apt"
    packages: tuple[PackageName, ...] = ()
    """The packages to install. A name may end with :ARCH, =VERSION or /RELEASE (apt-get(8))."""
    debs: tuple[HostDebs, ...] = ()
    """Package files to install: files, patterns such as `build/*.deb`, and directories, relative to
    the recipe. apt also installs their dependencies."""
    downloads: tuple[Download, ...] = ()
    """Package files from the network to install. apt also installs their dependencies."""
    update: bool = True
    """Whether to fetch the package indexes first."""
    recommends: bool = False
    """Whether to install recommended packages, too."""
    target_release: ReleaseName | None = None
    """The release whose versions this stage prefers, such as trixie-backports."""
    allow_downgrades: bool = False
    """Whether apt may replace packages by older versions: those with =VERSION or /RELEASE, and
    those that a pin prefers. A pin with a priority above 1000 in this stage permits it, too."""
    upgrade: bool = False
    """Whether to upgrade the installed packages (apt-get dist-upgrade)."""
    remove: tuple[InstalledName, ...] = ()
    """The packages to remove. Packages that are not installed are ignored."""
    purge: bool = False
    """Whether to delete the configuration of removed packages, too."""
    autoremove: bool = False
    """Whether to remove dependencies that no installed package needs any more."""
    hold: tuple[InstalledName, ...] = ()
    """Packages that later upgrades must not change, also in the running image (apt-mark hold)."""
    credentials: tuple[Credential, ...] = ()
    """Passwords for repositories. The image does not contain them."""
    architectures: tuple[ArchitectureName, ...] = ()
    """Foreign architectures whose packages can be installed, such as i386 for libc6:i386. The image
    keeps them."""
    pins: tuple[Pin, ...] = ()
    """Preferences, added to /etc/apt/preferences.d/recipe.pref."""
    debconf: tuple[Answer, ...] = ()
    """Answers to questions of packages, set before their installation."""

    def __post_init__(self) -> None:
        # With `update` alone the stage fetches indexes for later stages.
        nothing = not (self.update or self.fetches or self._only_takes_away or self.architectures)
        names = {name.partition("=")[0].partition("/")[0] for name in self.packages}
        secrets = {secret.name for secret in self.secrets}
        refuse(
            idle("apt", "packages", "debs", "update", "upgrade", "remove") if nothing else (),
            (
                (("remove", i), f"remove: '{name}' is among the packages to install, too")
                for i, name in enumerate(self.remove)
                if name in names
            ),
            (
                # Someone may have written the password itself there.
                (("credentials", i, "secret"), f"{one.machine}: the stage has no such secret")
                for i, one in enumerate(self.credentials)
                if one.secret not in secrets
            ),
        )

    def rewrites(self) -> Iterable[tuple[str, str]]:
        return stand_ins.rewrites() if self.fetches else ()

    def removes(self) -> Iterable[str]:
        return self.remove

    @property
    def package_files(self) -> tuple[str, ...]:
        """The references to the attached package files."""
        return (*self.debs, *(each.reference for each in self.downloads))

    def may_bring(self, need: Need) -> bool:
        # The dependencies of package files, and recommended packages, are unknown here.
        if self.package_files or (self.packages and self.recommends):
            return True
        names = [re.split("[:=/]", name)[0] for name in self.packages]
        if any(need.is_brought_by(name) or is_one_of(name, COLLECTIONS) for name in names):
            return True
        if not need.others:
            return False
        if (others := WITHOUT.get(in_facts(need.what))) is not None:
            return not all(_is_common(n) and is_one_of(in_facts(n), others) for n in names)
        accounts = need.what.startswith(("user ", "group "))
        if not accounts or ACCOUNTS.fullmatch(need.what):
            return bool(names)
        return not all(map(_is_common, names))

    def names(self, need: Need) -> bool:
        return any(need.is_brought_by(re.split("[:=/]", name)[0]) for name in self.packages)

    def run(self, target: Target) -> None:
        require_apt(target)
        for architecture in self.architectures:
            target.chroot(["dpkg", "--add-architecture", architecture])
        pin(target, self.pins)
        preseed(target, self.debconf)
        removals = [f"{name}-" for name in present(target, self.remove)]
        with ExitStack() as stack:
            stack.enter_context(unattended.services_stay_off(target))
            stack.enter_context(unattended.no_host_keys(target))
            installs = {re.split("[:=/]", name)[0] for name in self.packages}
            once = stack.enter_context(stand_ins.generated_once(target, installs))
            debs = stack.enter_context(local_debs(target, self.package_files))
            transaction = Transaction(
                arguments=self.arguments,
                options=once,
                release=self.release_options(),
                passwords=stack.enter_context(passwords(target, self.credentials)),
                update=self.update,
                offline=self._only_takes_away,
                always=self.upgrade or self.autoremove,
            )
            if self._host_has_fetched(target):
                options = stack.enter_context(from_host.options(target))
                # The index has no releases, only the chosen version of each package.
                names = [name.partition("/")[0] for name in self.packages]
                names += [f"{deb.package}={deb.version}" for deb in debs]
                more = stack.enter_context(at_once.unpacked(target, from_host.MOUNT, names))
                if more is None:
                    transaction.install(target, [*names, *removals], options)
                else:
                    stand_ins.begin_ahead(target)
                    # dist-upgrade refuses to continue with packages that are only unpacked. `more`
                    # already contains the upgrades.
                    plain = replace(self, upgrade=False)
                    rest = replace(transaction, arguments=plain.arguments, always=self.autoremove)
                    rest.install(target, more, options)
            else:
                names = [*self.packages, *(deb.path for deb in debs), *removals]
                transaction.fetch_and_install(target, names)
            check_installed(target, [*self.packages, *(deb.package for deb in debs)])
            check_removed(target, self.remove)
        if self.hold:
            check_installed(target, self.hold)
            target.chroot(["apt-mark", "hold", "--", *self.hold])

    @property
    def fetches(self) -> bool:
        """Whether the stage may fetch packages."""
        return bool(self.packages or self.package_files or self.upgrade)

    @property
    def only_common(self) -> bool:
        """Whether all packages are common packages from the suite itself."""
        plain = not (
            self.package_files or self.target_release or any("/" in name for name in self.packages)
        )
        return plain and all(_is_common(re.split("[:=]", name)[0]) for name in self.packages)

    @property
    def _only_takes_away(self) -> bool:
        others = self.remove or self.autoremove or self.hold or self.pins or self.debconf
        return not self.fetches and bool(others)

    def _host_has_fetched(self, target: Target) -> bool:
        """Asks the host's apt for the packages. Returns whether their disk is ready."""
        return self.fetches and from_host.fetched(
            target,
            passwords=bool(self.credentials),
            others=self.network != "packages",
        )

    def release_options(self) -> list[str]:
        """The options of apt-get for the preferred release."""
        return [f"--target-release={self.target_release}"] if self.target_release else []

    def arguments(self, names: Sequence[str]) -> list[str]:
        """The other arguments of apt-get, which removes the packages whose names end with '-'."""
        options = [f"-oAPT::Install-Recommends={'true' if self.recommends else 'false'}"]
        if self.purge:
            options.append("-oAPT::Get::Purge=true")
        if self.autoremove:
            options.append("-oAPT::Get::AutomaticRemove=true")
        if self.allow_downgrades or any(one.priority > DOWNGRADES for one in self.pins):
            options.append("--allow-downgrades")
        return [*options, "dist-upgrade" if self.upgrade else "install", "--", *names]


def _is_common(name: str) -> bool:
    return is_one_of(in_facts(name), WITHOUT["common"])
