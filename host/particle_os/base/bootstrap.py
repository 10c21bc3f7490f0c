"""Makes a base from the packages of a suite: the host fetches them, a helper VM installs them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from particle_agent.contract.wire import (
    AgentEvent,
    Continue,
    DiskNeeded,
    DiskWritten,
    HostAnswer,
    StageStart,
)
from particle_agent.stages.output.export import Export
from particle_agent.stages.software.bootstrap import Bootstrap

from particle_os.apt import mmdebstrap
from particle_os.apt.package_disk import write_disk
from particle_os.apt.proxy import ChosenProxy
from particle_os.architecture import ARCHITECTURES
from particle_os.errors import InfrastructureError
from particle_os.system.deadline import Deadline

if TYPE_CHECKING:
    from particle_os.sandbox.running import Sandbox

FETCH_SECONDS = 600.0
# Without usr-is-merged, init-system-helpers of bookworm pulls in usrmerge and its conversion.
EXTRA_PACKAGES = {"bookworm": ("usr-is-merged",)}
SandboxOpener = Callable[[str, Path], AbstractContextManager["Sandbox"]]


@contextmanager
def bootstrapped(
    suite: str,
    mirror: str | None,
    architecture: str,
    *,
    directory: Path,
    open_sandbox: SandboxOpener,
    listen: Callable[[AgentEvent], None],
    log: Callable[[str], None],
    deadline: Deadline,
    proxy: ChosenProxy,
    plain: bool,
) -> Iterator[tuple[Sandbox, Path]]:
    """Makes a base in `directory`; yields a VM with the unpacked base, and the base's tarball.

    The host fetches and verifies the packages without privilege. Meanwhile `open_sandbox` starts
    a helper VM, which then extracts and installs the packages, and runs their scripts. With
    `plain` dpkg itself unpacks the packages.
    """
    debs = directory / "debs"
    debs.mkdir(mode=0o700, parents=True)
    output = directory / "base.tar"
    with (
        _fetching(debs, suite, mirror, architecture, log, deadline, proxy) as finish,
        open_sandbox("base", output) as sandbox,
    ):
        sources = finish()
        archives = list(debs.glob("*.deb"))
        write_disk(archives, sandbox.packages, directory, deadline, log=log, database=not plain)
        _install(sandbox, suite, architecture, sources, deadline, listen)
        yield sandbox, output


def _install(
    sandbox: Sandbox,
    suite: str,
    architecture: str,
    sources: str,
    deadline: Deadline,
    listen: Callable[[AgentEvent], None],
) -> None:
    """Installs the packages of the packages disk, and writes the base to the output disk."""
    sandbox.agent.extract(sources, deadline, listen)

    def on_event(event: AgentEvent) -> HostAnswer | None:
        if isinstance(event, StageStart):
            # The packages are here, so the VM has no network meanwhile.
            return Continue()
        if isinstance(event, DiskNeeded | DiskWritten):
            sandbox.take_disk_event(event, deadline)
        else:
            listen(event)
        return None

    sandbox.agent.run(
        [Bootstrap(), Export()],
        hostname=suite,
        deadline=deadline,
        listen=on_event,
        architecture=architecture,
    )
    output = sandbox.outputs["output"]
    if output.written is None:
        raise InfrastructureError("the helper VM wrote no base tarball")
    os.truncate(output.path, output.written)


@contextmanager
def _fetching(
    debs: Path,
    suite: str,
    mirror: str | None,
    architecture: str,
    log: Callable[[str], None],
    deadline: Deadline,
    proxy: ChosenProxy,
) -> Iterator[Callable[[], str]]:
    """Fetches the packages of a base into `debs` in the background.

    Yields a function that waits for the end and returns the sources.list(5) of the packages.
    """
    place = shlex.quote(str(debs))
    # Suites before trixie leave these links to the installer; later suites ship them.
    links = " ".join(("bin", "sbin", "lib", *ARCHITECTURES[architecture].image.library_links))
    merge = (
        f'--setup-hook=for d in {links}; do mkdir -p "$1/usr/$d" && '
        'ln -s "usr/$d" "$1/$d" || exit 1; done'
    )
    keep = (
        f'--extract-hook=cp "$1/etc/apt/sources.list" {place} && '
        f'find "$1/var/cache/apt/archives" -name "*.deb" -exec mv -t {place} {{}} +'
    )
    essential = ["?essential", "?priority(required)", "apt", *EXTRA_PACKAGES.get(suite, ())]
    wanted = mmdebstrap.Extraction(suite, mirror, architecture, essential, hooks=[merge, keep])
    with mmdebstrap.extracting_packages(
        wanted,
        work=debs.parent,
        log=log,
        deadline=deadline.sooner(FETCH_SECONDS, f"fetching the packages of {suite}"),
        proxy=proxy,
    ) as finish:

        def sources() -> str:
            finish()
            return (debs / "sources.list").read_text()

        yield sources
