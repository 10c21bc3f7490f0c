"""Settings for a proxy for apt during a build. No setting is written into the image.

The host finds and checks the proxy. The VM and the host both use these settings for their apt.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from particle_agent.apt.failure import NOT_FETCHED
from particle_agent.contract.wire import AptProxy
from particle_agent.target.target import Target

# The address of the host's 127.0.0.1 in QEMU's user network.
HOST_LOOPBACK = "10.0.2.2"
# Each machine has its own loopback: a proxy on another machine does not reach this one.
OWN = (HOST_LOOPBACK, "127.0.0.1", "localhost")
ANSWER_SECONDS = 5.0
SOURCES = "/run/particle-os-sources"
_OTHER_PORT = re.compile(r"http://([A-Za-z0-9.-]+):(?!80(?:[/\s]|$))[0-9]+")
_HTTPS = re.compile(r"\bhttps://([A-Za-z0-9.-]+)(?=[/\s]|$)")
_PIN_BY_HOST = re.compile(r"^\s*Pin:\s*origin\b", re.MULTILINE | re.IGNORECASE)


def settings(proxy: AptProxy, sources: str) -> dict[str, str]:
    """The settings of apt.conf(5) that fetch packages through the proxy.

    `sources` are the texts of sources.list(5).
    """
    https = proxy.url if proxy.https == "connect" else "DIRECT"
    hosts = set(OWN) | (set(_OTHER_PORT.findall(sources)) if proxy.caches else set())
    return {
        "Acquire::http::Proxy": proxy.url,
        "Acquire::https::Proxy": https,
        **{f"Acquire::http::Proxy::{host}": "DIRECT" for host in sorted(hosts)},
    }


def configuration(proxy: AptProxy) -> str:
    """The text of a file of apt.conf(5) with the settings for any sources."""
    return "".join(f'{key} "{value}";\n' for key, value in settings(proxy, "").items())


def may_rewrite(proxy: AptProxy, preferences: str) -> bool:
    """Whether https sources can be rewritten for the proxy.

    Pins by origin prevent it: after rewriting, all packages would come from the host "HTTPS".
    """
    return proxy.https == "rewrite" and not _PIN_BY_HOST.search(preferences)


def rewritten(sources: str) -> str:
    """The sources with https URLs in apt-cacher-ng's notation."""
    return _HTTPS.sub(r"http://HTTPS///\1", sources)


def answers(proxy: AptProxy) -> bool:
    """Whether the proxy answers in HTTP. A proxy that hangs still accepts connections."""
    place = urlsplit(proxy.url)
    try:
        with socket.create_connection((place.hostname, place.port), ANSWER_SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: %s\r\n\r\n" % place.netloc.encode())
            return connection.recv(len(b"HTTP/")).startswith(b"HTTP")
    except OSError:
        return False


def hint(given: str | None, tail: Sequence[str]) -> str | None:
    """The hint for a failure of apt through a proxy.

    `given` is the hint for a failure without a proxy, and `tail` the last lines of apt.
    """
    if not NOT_FETCHED.search("\n".join(tail)):
        return given
    more = "Packages come through a proxy; to do without it, build with '--apt-proxy none'."
    return f"{given} {more}" if given else more


@contextmanager
def options(target: Target, proxy: AptProxy) -> Iterator[list[str]]:
    """Yields the options that make the target's apt-get use the proxy."""
    files = _read(target, "/etc/apt/sources.list", "/etc/apt/sources.list.d")
    values = settings(proxy, "\n".join(files.values()))
    pins = _read(target, "/etc/apt/preferences", "/etc/apt/preferences.d")
    if may_rewrite(proxy, "\n".join(pins.values())):
        target.make_directory(f"{SOURCES}/sources.list.d")
        for path, text in files.items():
            target.write(f"{SOURCES}/{path.removeprefix('/etc/apt/')}", rewritten(text))
        values["Dir::Etc::sourcelist"] = f"{SOURCES}/sources.list"
        values["Dir::Etc::sourceparts"] = f"{SOURCES}/sources.list.d"
    try:
        yield [f"-o{key}={value}" for key, value in values.items()]
    finally:
        target.remove(SOURCES)


def _read(target: Target, single: str, directory: str) -> dict[str, str]:
    paths = [single, *(f"{directory}/{name}" for name in target.list(directory))]
    return {path: target.read(path) for path in paths if target.path(path).is_file()}
