"""A proxy for the packages of a build: found, checked, used, and counted.

apt-cacher-ng is known by what it answers at its root; its report page counts hits and misses
(https://www.unix-ag.uni-kl.de/~bloch/acng/html/). Of any other proxy it is known only that it
tries to reach a host that cannot exist.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar, get_args
from urllib.parse import urlsplit

from particle_agent.apt import proxy as apt_proxy
from particle_agent.contract import wire

from particle_os.errors import InfrastructureError, StageFailed, UsageError
from particle_os.recipe.values import ProxyChoice
from particle_os.records import AptProxyResult
from particle_os.system import process
from particle_os.system.deadline import Deadline

T = TypeVar("T")
# Where apt-cacher-ng listens unless it is told otherwise.
USUAL = "http://127.0.0.1:3142"
VARIABLES = ("APT_PROXY", "http_proxy")
APT_SETTING = "Acquire::http::Proxy"
CHECK_SECONDS = 10.0
REPORT_SECONDS = 30.0
REPORT_BYTES = 8 << 20
# Never a host: RFC 6761, 6.4.
NOWHERE = "http://particle-os.invalid/dists/check/InRelease"
# How a proxy says that it got nowhere, or may not go there. Who is no proxy finds no such file.
REFUSALS = (403, 500, 502, 503, 504)
# A row of the log analysis: period, then hits, misses and total of the requests.
_COUNTS = re.compile(
    r"<td[^>]*>\d{4}-[^<]*</td>\s*<td[^>]*>.*?</td>\s*"
    r"<td[^>]*>(\d+)[^<]*</td>\s*<td[^>]*>(\d+)[^<]*</td>\s*<td[^>]*>\d+</td>"
)


class NoProxy(Exception):
    """What answers, if anything does, is no proxy; the text says what it is."""


class ChosenProxy:
    """The proxy of one build, as long as it answers; `found` is None when there is none.

    `direct` keeps apt from those that the environment names. What the user should know goes to
    `note`.
    """

    def __init__(
        self,
        found: wire.AptProxy | None = None,
        *,
        direct: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._found = found
        self._direct = direct or found is not None
        self._note = note
        self._gone = False
        self._before = counts(found) if found else None

    def current(self) -> wire.AptProxy | None:
        """The proxy that `through` tries first."""
        return None if self._gone else self._found

    def through(self, action: Callable[[wire.AptProxy | None], T]) -> T:
        """What `action` returns, given the proxy; done anew without it when it has gone away."""
        proxy = self.current()
        if proxy is not None:
            try:
                return action(proxy)
            except (InfrastructureError, StageFailed) as error:
                if apt_proxy.answers(proxy):
                    error.hint = apt_proxy.hint(error.hint, error.tail)
                    raise
            self._gone = True
            self._note(f"the apt proxy {proxy.url} has gone away; apt goes on without it")
        return action(None)

    def environment(self) -> dict[str, str]:
        """The variables about proxies that apt on the host gets."""
        names = [name for name in os.environ if name.lower().endswith("_proxy")]
        if self._direct:
            names = [name for name in names if name.lower() == "no_proxy"]
        return {name: os.environ[name] for name in names}

    def for_guest(self) -> wire.AptProxy | None:
        """The proxy as the VM reaches it, if it does."""
        if self._found is None or self._gone:
            return None
        place = urlsplit(self._found.url)
        if place.hostname in ("127.0.0.1", "localhost"):
            return replace(self._found, url=f"http://{apt_proxy.HOST_LOOPBACK}:{place.port}")
        return self._found

    def result(self) -> AptProxyResult | None:
        """What the proxy has done for the build, as far as it tells."""
        if self._found is None:
            return None
        before, after = self._before, None if self._gone else counts(self._found)
        hits = misses = None
        # Its log may have been rotated in between.
        if before and after and after[0] >= before[0] and after[1] >= before[1]:
            hits, misses = after[0] - before[0], after[1] - before[1]
        return AptProxyResult(url=self._found.url, gone=self._gone, hits=hits, misses=misses)


NO_PROXY = ChosenProxy()


def find(wish: str, environment: Mapping[str, str], note: Callable[[str], None]) -> ChosenProxy:
    """The proxy that is wished for. Raises UsageError, or InfrastructureError if it is none.

    With "auto" it is the first that answers of those that the environment and the configuration
    of the host's apt name, then apt-cacher-ng where it usually is; "none" goes without any.
    """
    if not is_wish(wish):
        raise UsageError(f"--apt-proxy: expected {get_args(ProxyChoice)[1].what}, found '{wish}'")
    if wish == "none":
        return ChosenProxy(direct=True)
    if wish != "auto":
        try:
            return ChosenProxy(check(wish), note=note)
        except NoProxy as error:
            raise InfrastructureError(
                f"the apt proxy {wish} {error}", hint="Start it, or build with '--apt-proxy none'."
            ) from error
    for name, url in _named(environment):
        # A password stays on the host; its apt knows the variable, too.
        if not url or url == "DIRECT" or "@" in url:
            continue
        try:
            if not is_wish(url) or url in ("auto", "none"):
                raise NoProxy("is no URL such as http://127.0.0.1:3142")
            return ChosenProxy(check(url), note=note)
        except NoProxy as error:
            note(f"the apt proxy of {name} is not used: {url} {error}")
    try:
        usual = check(USUAL)
    except NoProxy:
        return NO_PROXY
    return ChosenProxy(usual, note=note) if usual.caches else NO_PROXY


def _named(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The proxies that somebody has named, by where: URLs, or what stands in their place."""
    for name in VARIABLES:
        yield name, environment.get(name, "")
    if not shutil.which("apt-config"):
        return
    lines: list[str] = []
    # The builds' own apt does not read that configuration, so an error in it is none here.
    with contextlib.suppress(InfrastructureError):
        process.run(
            ["apt-config", "shell", "URL", APT_SETTING],
            deadline=Deadline.after(CHECK_SECONDS, "asking apt for its proxy"),
            what="apt-config",
            log=lines.append,
        )
    for line in lines:
        if line.startswith("URL="):
            yield APT_SETTING, shlex.split(line)[0].removeprefix("URL=")


def is_wish(text: str) -> bool:
    return bool(get_args(ProxyChoice)[1].accepts(text))


def check(url: str) -> wire.AptProxy:
    """What kind of proxy is there. Raises NoProxy when there is none that can be used."""
    url = url.rstrip("/")
    status, body = _get(url, "/", CHECK_SECONDS)
    if b"Apt-Cacher NG" in body:
        # It refuses what it may not do, before it tries.
        status, _ = _get(url, "http://HTTPS///127.0.0.1/dists/check/InRelease", CHECK_SECONDS)
        https = "direct" if status == 403 else "rewrite"
        return wire.AptProxy(url=url, https=https, caches=True)  # type: ignore[arg-type]
    status, _ = _get(url, NOWHERE, CHECK_SECONDS)
    if status == 407:
        raise NoProxy("wants a password")
    if status not in REFUSALS:
        raise NoProxy(f"is no proxy: it answers {status} for a host that does not exist")
    return wire.AptProxy(url=url, https="connect", caches=False)


def counts(proxy: wire.AptProxy) -> tuple[int, int] | None:
    """All hits and misses that apt-cacher-ng finds in its log; None when it does not tell."""
    if not proxy.caches:
        return None
    try:
        status, body = _get(proxy.url, "/acng-report.html?doCount=Count+Data", REPORT_SECONDS)
    except NoProxy:
        return None
    if status != 200 or b"Log analysis" not in body:
        return None
    rows = _COUNTS.findall(body.decode("utf-8", "replace"))
    return sum(int(row[0]) for row in rows), sum(int(row[1]) for row in rows)


def _get(url: str, target: str, seconds: float) -> tuple[int, bytes]:
    """Status and body of the answer to one request. Raises NoProxy when there is none."""
    place = urlsplit(url)
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=seconds)
    try:
        host = urlsplit(target).netloc or place.netloc
        connection.request("GET", target, headers={"Host": host, "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(REPORT_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise NoProxy(f"does not answer: {error or type(error).__name__}") from error
    finally:
        connection.close()
