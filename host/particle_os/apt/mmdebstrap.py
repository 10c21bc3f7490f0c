"""Fetches and extracts Debian packages on the host, as an ordinary user, without running them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from particle_agent.apt import proxy as apt_proxy
from particle_agent.contract import wire

from particle_os.apt.proxy import ChosenProxy
from particle_os.errors import InfrastructureError, NotEnoughSpace, printable
from particle_os.system import process
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline

_UNREACHABLE = re.compile(
    r"Could not (?:resolve|connect to) '?([^'\s:]+)"
    r"|https?://([^/\s:]+)\S* .*(?:Temporary failure|Could not connect|Connection|unreachable)"
)
# apt's message about a file of a mirror that answers, such as a wrong hash or an error 404.
_BAD_FILE = re.compile(r"Failed to fetch https?://([^/\s:]+)\S*\s+(\S.*)")


@dataclass(frozen=True)
class Extraction:
    """The packages that mmdebstrap extracts.

    `include` contains package names and apt patterns (apt-patterns(7)); mmdebstrap adds their
    dependencies. If `archive` is given, mmdebstrap writes the files, owned by root, to this tar
    archive. `hooks` are options of mmdebstrap.
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
    proxy: ChosenProxy,
) -> None:
    """Fetches, verifies and extracts packages; runs no maintainer scripts.

    `work` is a directory for temporary files. Raises InfrastructureError; if a mirror cannot be
    reached, the message names its host.
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
    proxy: ChosenProxy,
) -> Iterator[Callable[[], None]]:
    """Runs `extract_packages` in the background; yields a function that waits for its end."""

    def begin(chosen: wire.AptProxy | None) -> AbstractContextManager[Callable[[], None]]:
        return _extracting(wanted, work, log, deadline, chosen, proxy.environment())

    with ExitStack() as stack:
        under_way = [stack.enter_context(begin(proxy.current()))]

        def finish(chosen: wire.AptProxy | None) -> None:
            if not under_way:
                # The first run failed because the proxy has gone away.
                stack.close()
                under_way.append(stack.enter_context(begin(chosen)))
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
    # apt then says how much it fetches.
    argv.append("--verbose")
    argv.append("--format=tar" if wanted.archive else "--format=null")
    # Newer versions refuse to run as root, because maintainer scripts could harm the host. This
    # variant runs no maintainer scripts.
    argv += ["--skip=check/chrootless"]
    argv += [f"--architectures={wanted.architecture}", '--aptopt=Acquire::Retries "2"']
    argv += ['--aptopt=Acquire::http::Timeout "20"', '--aptopt=APT::Update::Error-Mode "any"']
    argv += ['--aptopt=Acquire::Languages "none"']
    if proxy is not None:
        settings = apt_proxy.settings(proxy, wanted.mirror or "")
        argv += [f'--aptopt={key} "{value}"' for key, value in settings.items()]
    patterns = [name for name in wanted.include if name.startswith("?")]
    names = ",".join(name for name in wanted.include if not name.startswith("?"))
    argv += [f"--include={item}" for item in (*patterns, names)]
    argv += wanted.hooks
    argv += [wanted.suite, str(wanted.archive or "/dev/null")]
    if wanted.mirror:
        argv.append(wanted.mirror)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        env = {**environment, "TMPDIR": scratch}
        within = Confinement(writes=(work,), tcp="any")
        what = f"fetching {wanted.suite}"
        with process.begun(
            argv, within=within, env=env, deadline=deadline, what=what, log=log
        ) as finish:
            yield lambda: _finish(finish)


def _finish(finish: Callable[[], object]) -> None:
    try:
        finish()
    except NotEnoughSpace:
        # mmdebstrap adds that it has failed to fetch, but the mirror is not to blame.
        raise
    except InfrastructureError as error:
        text = "\n".join(error.tail)
        if match := _UNREACHABLE.search(text):
            host = next(group for group in match.groups() if group)
            raise InfrastructureError(
                f"the package mirror {host} cannot be reached",
                hint="Check the network, or give another mirror with --mirror.",
                tail=error.tail,
            ) from error
        if match := _BAD_FILE.search(text):
            raise InfrastructureError(
                f"the package mirror {match[1]} serves a bad file: {printable(match[2], 200)}",
                hint="Build again later, or give another mirror with --mirror.",
                tail=error.tail,
            ) from error
        raise
