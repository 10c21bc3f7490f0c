"""Runs the apt-get of the target for one stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from particle_agent.apt import proxy as apt_proxy
from particle_agent.apt.failure import apt_failure
from particle_agent.errors import CommandFailed, StageError
from particle_agent.target.target import Target

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


@dataclass(frozen=True)
class Transaction:
    """The work of apt for one stage.

    - `arguments` makes the arguments of apt-get for names of packages.
    - `options` are for each installation, and `release` for one with apt's own sources.
    - `passwords` are the options with passwords for repositories.
    - With `update`, apt fetches the indexes first. With `offline`, it only takes packages away.
    - With `always`, there is work without any name, such as an upgrade.
    """

    arguments: Callable[[Sequence[str]], list[str]]
    options: Sequence[str]
    release: Sequence[str]
    passwords: Sequence[str]
    update: bool
    offline: bool
    always: bool

    def install(self, target: Target, names: Sequence[str], more: Sequence[str] = ()) -> None:
        """Installs without fetching indexes; `more` are further options."""
        if names or self.always:
            _apt_get(target, *more, *self.options, *self.arguments(names))

    def fetch_and_install(self, target: Target, names: Sequence[str]) -> None:
        """Installs with the target's apt, which also fetches the packages."""
        if self.offline:
            self.install(target, names)
            return
        with target.network():
            # A proxy would see the passwords.
            if self.passwords or not self._through_proxy(target, names):
                self._update_and_install(target, names)

    def _through_proxy(self, target: Target, names: Sequence[str]) -> bool:
        """Installs through the proxy. Returns False without a proxy, or if it stops answering."""
        proxy = target.apt_proxy
        if proxy is None:
            return False
        try:
            if apt_proxy.answers(proxy):
                with apt_proxy.options(target, proxy) as through:
                    self._update_and_install(target, names, through)
                return True
        except (StageError, CommandFailed) as error:
            if apt_proxy.answers(proxy):
                error.hint = apt_proxy.hint(error.hint, error.tail)
                raise
        target.reporter.note(f"the apt proxy {proxy.url} has gone away; apt goes on without it")
        return False

    def _update_and_install(
        self, target: Target, names: Sequence[str], through: Sequence[str] = ()
    ) -> None:
        if self.update:
            _apt_get(target, *through, *self.passwords, "update")
        self.install(target, names, [*through, *self.passwords, *self.release])


def _apt_get(target: Target, *arguments: str) -> None:
    try:
        target.chroot([*APT_GET, *arguments])
    except CommandFailed as failed:
        raise apt_failure(failed.tail) or failed from failed
