"""Fetches and extracts Debian packages on the host, as an ordinary user, without running them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from particle_agent.apt import proxy as apt_proxy
from particle_agent.contract import wire

from particle_os.apt.proxy import NO_PROXY, ChosenProxy
from particle_os.errors import InfrastructureError
from particle_os.system import process
from particle_os.system.deadline import Deadline

_UNREACHABLE = re.compile(
    r"Could not (?:resolve|connect to) '?([^'\s:]+)|Failed to fetch https?://([^/\s:]+)"
    r"|https?://([^/\s:]+)\S* .*(?:Temporary failure|Could not connect|Connection)"
)


@dataclass(frozen=True)
class Extraction:
    """What mmdebstrap is to extract.

    `include` takes package names and apt patterns (apt-patterns(7)); dependencies come along. The
    files go, owned by root, into the tar archive `archive`, if there is one. `hooks` are options
    of mmdebstrap.
    """

    suite: str
    mirror: str | None
    architecture: str
    include: Sequence[str]
    archive: Path | None = None
    hooks: Sequence[str] = ()


def extract_packages(
    wanted: Extraction,
    *,
    work: Path,
    log: Callable[[str], None],
    deadline: Deadline,
    proxy: ChosenProxy = NO_PROXY,
) -> None:
    """Fetches, verifies and extracts packages; maintainer scripts do not run.

    `work` is a directory for what is temporary. Raises InfrastructureError naming the mirror's
    host when it cannot be reached.
    """
    with extracting_packages(wanted, work=work, log=log, deadline=deadline, proxy=proxy) as finish:
        finish()


@contextmanager
def extracting_packages(
    wanted: Extraction,
    *,
    work: Path,
    log: Callable[[str], None],
    deadline: Deadline,
    proxy: ChosenProxy = NO_PROXY,
) -> Iterator[Callable[[], None]]:
    """As `extract_packages`, while something else is done; yields what waits for the end."""

    def begin(told: wire.AptProxy | None) -> AbstractContextManager[Callable[[], None]]:
        return _extracting(wanted, work, log, deadline, told, proxy.environment())

    with ExitStack() as stack:
        under_way = [stack.enter_context(begin(proxy.current()))]

        def finish(told: wire.AptProxy | None) -> None:
            if not under_way:
                # The proxy has gone away: anew, without it.
                stack.close()
                under_way.append(stack.enter_context(begin(told)))
            under_way.pop()()

        yield lambda: proxy.through(finish)


@contextmanager
def _extracting(
    wanted: Extraction,
    work: Path,
    log: Callable[[str], None],
    deadline: Deadline,
    proxy: wire.AptProxy | None,
    environment: Mapping[str, str],
) -> Iterator[Callable[[], None]]:
    argv: list[str] = ["mmdebstrap", "--mode=chrootless", "--variant=extract"]
    argv.append("--format=tar" if wanted.archive else "--format=null")
    # Newer ones refuse root, lest maintainer scripts harm the host; this variant runs none.
    argv += ["--skip=check/chrootless"]
    argv += [f"--architectures={wanted.architecture}", '--aptopt=Acquire::Retries "2"']
    argv += ['--aptopt=Acquire::http::Timeout "20"', '--aptopt=APT::Update::Error-Mode "any"']
    argv += ['--aptopt=Acquire::Languages "none"']
    if proxy is not None:
        told = apt_proxy.settings(proxy, wanted.mirror or "")
        argv += [f'--aptopt={key} "{value}"' for key, value in told.items()]
    patterns = [name for name in wanted.include if name.startswith("?")]
    names = ",".join(name for name in wanted.include if not name.startswith("?"))
    argv += [f"--include={item}" for item in (*patterns, names)]
    argv += wanted.hooks
    argv += [wanted.suite, str(wanted.archive or "/dev/null")]
    if wanted.mirror:
        argv.append(wanted.mirror)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        # mmdebstrap takes the helper programs of dpkg from sbin, which users may lack.
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        others = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env = {**others, **environment, "TMPDIR": scratch, "PATH": path, "LC_ALL": "C.UTF-8"}
        what = f"fetching {wanted.suite}"
        with process.begun(argv, env=env, deadline=deadline, what=what, log=log) as finish:
            yield lambda: _finish(finish)


def _finish(finish: Callable[[], object]) -> None:
    try:
        finish()
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
