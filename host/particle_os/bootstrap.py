"""Fetches and extracts Debian packages on the host, as an ordinary user, without running them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from particle_agent import apt_proxy, wire

from particle_os import process
from particle_os.apt_proxy import NO_PROXY, AptProxy
from particle_os.deadline import Deadline
from particle_os.errors import InfrastructureError

_UNREACHABLE = re.compile(
    r"Could not (?:resolve|connect to) '?([^'\s:]+)|Failed to fetch https?://([^/\s:]+)"
    r"|https?://([^/\s:]+)\S* .*(?:Temporary failure|Could not connect|Connection)"
)


def extract_packages(
    archive: Path | None,
    *,
    work: Path,
    suite: str,
    mirror: str | None,
    architecture: str,
    include: Sequence[str],
    log: Callable[[str], None],
    deadline: Deadline,
    hooks: Sequence[str] = (),
    proxy: AptProxy = NO_PROXY,
) -> None:
    """Writes a tar archive of the packages' files, owned by root, to `archive`, if there is one.

    `work` is a directory for what is temporary. `include` takes package names and apt patterns
    (apt-patterns(7)); dependencies come along. Maintainer scripts do not run. Raises
    InfrastructureError naming the mirror's host when it cannot be reached.
    """
    proxy.through(
        lambda told: _extract(
            archive,
            work=work,
            suite=suite,
            mirror=mirror,
            architecture=architecture,
            include=include,
            log=log,
            deadline=deadline,
            hooks=hooks,
            proxy=told,
            environment=proxy.environment(),
        )
    )


def _extract(
    archive: Path | None,
    *,
    work: Path,
    suite: str,
    mirror: str | None,
    architecture: str,
    include: Sequence[str],
    log: Callable[[str], None],
    deadline: Deadline,
    hooks: Sequence[str],
    proxy: wire.AptProxy | None,
    environment: Mapping[str, str],
) -> None:
    argv: list[str] = ["mmdebstrap", "--mode=chrootless", "--variant=extract"]
    argv.append("--format=tar" if archive else "--format=null")
    # Newer ones refuse root, lest maintainer scripts harm the host; this variant runs none.
    argv += ["--skip=check/chrootless"]
    argv += [f"--architectures={architecture}", '--aptopt=Acquire::Retries "2"']
    argv += ['--aptopt=Acquire::http::Timeout "20"', '--aptopt=APT::Update::Error-Mode "any"']
    argv += ['--aptopt=Acquire::Languages "none"']
    if proxy is not None:
        told = apt_proxy.settings(proxy, mirror or "")
        argv += [f'--aptopt={key} "{value}"' for key, value in told.items()]
    patterns = [name for name in include if name.startswith("?")]
    names = ",".join(name for name in include if not name.startswith("?"))
    argv += [f"--include={item}" for item in (*patterns, names)]
    argv += hooks
    argv += [suite, str(archive or "/dev/null")]
    if mirror:
        argv.append(mirror)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        # mmdebstrap takes the helper programs of dpkg from sbin, which users may lack.
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        others = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env = {**others, **environment, "TMPDIR": scratch, "PATH": path, "LC_ALL": "C.UTF-8"}
        try:
            process.run(argv, env=env, deadline=deadline, what=f"fetching {suite}", log=log)
        except InfrastructureError as error:
            text = "\n".join(error.tail)
            if match := _UNREACHABLE.search(text):
                host = next(group for group in match.groups() if group)
                raise InfrastructureError(
                    f"the package mirror {host} cannot be reached",
                    hint="Check the network, or give another one with --mirror.",
                    tail=error.tail,
                ) from error
            raise
