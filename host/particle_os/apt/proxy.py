"""Finds, checks and uses a proxy for the packages of a build, and counts its hits.

apt-cacher-ng identifies itself on its start page, and its report page counts hits and misses
(https://www.unix-ag.uni-kl.de/~bloch/acng/html/). A server counts as another proxy if it tries to
reach a host that cannot exist.
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
from pathlib import Path
from typing import TypeVar, get_args
from urllib.parse import urlsplit

from particle_agent.apt import proxy as apt_proxy
from particle_agent.contract import wire

from particle_os.errors import InfrastructureError, StageFailed, UsageError
from particle_os.recipe.values import ProxyChoice
from particle_os.records import AptProxyResult
from particle_os.system import process
from particle_os.system.confinement import Confinement
from particle_os.system.deadline import Deadline, cut_off

T = TypeVar("T")
# The default address of apt-cacher-ng.
USUAL = "http://127.0.0.1:3142"
VARIABLES = ("APT_PROXY", "http_proxy")
APT_SETTING = "Acquire::http::Proxy"
CHECK_SECONDS = 10.0
REPORT_SECONDS = 30.0
REPORT_BYTES = 8 << 20
# The domain .invalid never exists (RFC 6761, 6.4).
NOWHERE = "http://particle-os.invalid/dists/check/InRelease"
# The answers of a proxy that cannot reach a host or refuses it. Other servers answer 404.
REFUSALS = (403, 500, 502, 503, 504)
# A row of the report page: the period, then the hits, misses and total of the requests.
_COUNTS = re.compile(
    r"<td[^>]*>\d{4}-[^<]*</td>\s*<td[^>]*>.*?</td>\s*"
    r"<td[^>]*>(\d+)[^<]*</td>\s*<td[^>]*>(\d+)[^<]*</td>\s*<td[^>]*>\d+</td>"
)


class NoProxy(Exception):
    """There is no usable proxy at a URL; the text, which follows the URL, gives the reason."""


class ChosenProxy:
    """The proxy of one build, or none (`found` is None).

    With `direct`, apt does not use the proxies that the environment names. `note` gets messages for
    the user.
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
        """The proxy that `through` tries first; None if there is none or it has gone away."""
        return None if self._gone else self._found

    def through(self, action: Callable[[wire.AptProxy | None], T]) -> T:
        """Calls `action` with the proxy; if the proxy has gone away, calls it again without one."""
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
        """The proxy variables in the environment of the host's apt."""
        found = of_environment()
        if self._direct:
            return {name: url for name, url in found.items() if name.lower() == "no_proxy"}
        return found

    def for_guest(self) -> wire.AptProxy | None:
        """The proxy with the URL by which the VM reaches it."""
        if self._found is None or self._gone:
            return None
        place = urlsplit(self._found.url)
        if place.hostname in ("127.0.0.1", "localhost"):
            return replace(self._found, url=f"http://{apt_proxy.HOST_LOOPBACK}:{place.port}")
        return self._found

    def result(self) -> AptProxyResult | None:
        """The URL of the proxy, and its hits and misses in this build, if it reports them."""
        if self._found is None:
            return None
        before, after = self._before, None if self._gone else counts(self._found)
        hits = misses = None
        # If the proxy rotates its log during the build, the counts fall.
        if before and after and after[0] >= before[0] and after[1] >= before[1]:
            hits, misses = after[0] - before[0], after[1] - before[1]
        return AptProxyResult(url=self._found.url, gone=self._gone, hits=hits, misses=misses)


NO_PROXY = ChosenProxy()


def of_environment() -> dict[str, str]:
    """The proxy variables of the environment, for what is no package."""
    return {name: os.environ[name] for name in os.environ if name.lower().endswith("_proxy")}


def find(wish: str, environment: Mapping[str, str], note: Callable[[str], None]) -> ChosenProxy:
    """Finds the proxy for `wish`: a URL, "auto" or "none".

    "auto" tries the proxies that the environment and the configuration of the host's apt name, then
    the default address of apt-cacher-ng. Raises UsageError if `wish` is invalid, and
    InfrastructureError if there is no usable proxy at the URL.
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
        # The VM must not get a password. The host's apt reads the variable itself.
        if not url or url == "DIRECT" or "@" in url:
            continue
        try:
            if not is_wish(url) or url in ("auto", "none"):
                raise NoProxy("is not a URL such as http://127.0.0.1:3142")
            return ChosenProxy(check(url), note=note)
        except NoProxy as error:
            note(f"the apt proxy of {name} is not used: {url} {error}")
    try:
        usual = check(USUAL)
    except NoProxy:
        return NO_PROXY
    return ChosenProxy(usual, note=note) if usual.caches else NO_PROXY


def _named(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the configured proxies: the name of the variable or setting, and its value."""
    for name in VARIABLES:
        yield name, environment.get(name, "")
    if not shutil.which("apt-config"):
        return
    lines: list[str] = []
    given = os.environ.get("APT_CONFIG")
    # The apt of a build does not read this configuration, so errors in it do not matter.
    with contextlib.suppress(InfrastructureError):
        process.run(
            ["apt-config", "shell", "URL", APT_SETTING],
            deadline=Deadline.after(CHECK_SECONDS, "asking apt for its proxy"),
            what="apt-config",
            within=Confinement(reads=(Path(given),) if given else ()),
            env={"APT_CONFIG": given} if given else {},
            log=lines.append,
        )
    for line in lines:
        if line.startswith("URL="):
            yield APT_SETTING, shlex.split(line)[0].removeprefix("URL=")


def is_wish(text: str) -> bool:
    return bool(get_args(ProxyChoice)[1].accepts(text))


def check(url: str) -> wire.AptProxy:
    """Determines the kind of the proxy at `url`. Raises NoProxy if there is no usable proxy."""
    url = url.rstrip("/")
    status, body = _get(url, "/", CHECK_SECONDS)
    if b"Apt-Cacher NG" in body:
        # It answers 403, without trying, if its configuration forbids the rewriting of HTTPS.
        status, _ = _get(url, "http://HTTPS///127.0.0.1/dists/check/InRelease", CHECK_SECONDS)
        https = "direct" if status == 403 else "rewrite"
        return wire.AptProxy(url=url, https=https, caches=True)  # type: ignore[arg-type]
    status, _ = _get(url, NOWHERE, CHECK_SECONDS)
    if status == 407:
        raise NoProxy("requires a password")
    if status not in REFUSALS:
        raise NoProxy(f"is not a proxy: it answers {status} for a host that does not exist")
    return wire.AptProxy(url=url, https="connect", caches=False)


def counts(proxy: wire.AptProxy) -> tuple[int, int] | None:
    """The hits and misses in the log of apt-cacher-ng; None if the proxy reports none."""
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
    """Sends one request; returns status and body. Raises NoProxy if there is no answer."""
    place = urlsplit(url)
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=seconds)
    try:
        host = urlsplit(target).netloc or place.netloc
        connection.connect()
        with cut_off(connection.sock, Deadline.after(seconds, "the answer of the proxy")):
            connection.request("GET", target, headers={"Host": host, "Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read(REPORT_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise NoProxy(f"does not answer: {error or type(error).__name__}") from error
    finally:
        connection.close()
